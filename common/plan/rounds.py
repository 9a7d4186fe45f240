"""The plan's `cohort`, `mode`, `stop` and `retention`: who takes part in a round, how it ends, what is kept of it."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field, model_validator

from common.plan.fields import Number, PlanSection


class Cohort(PlanSection):
    """Who is invited to a round, of those who accepted the plan."""

    size: Annotated[
        int | None, Field(ge=1, le=100_000, description="Institutions a round, drawn anew each round. Default: all.")
    ] = None
    fraction: Annotated[
        Number | None,
        Field(gt=0, le=1, description="Instead of size: share of those who accepted, rounded up, at least quorum."),
    ] = None
    selection: Annotated[
        Literal["uniform", "weighted", "round-robin", "available"],
        Field(
            description="How they are drawn: uniform; weighted by the tokens that each trained on last; round-robin, in "
            "turn; available, those first who contributed when last invited."
        ),
    ] = "uniform"
    over_selection: Annotated[
        Number,
        Field(
            ge=0,
            le=10,
            description="Share of size or fraction that is invited beyond it, for stragglers: the round is sealed when "
            "as many have contributed as were wanted.",
        ),
    ] = Decimal(0)

    @property
    def is_everyone(self) -> bool:
        """Whether nothing is drawn: all who accepted are in each round."""
        return self.size is None and self.fraction is None

    @model_validator(mode="after")
    def _draws_something(self) -> Cohort:
        if self.size is not None and self.fraction is not None:
            raise ValueError("cohort has both size and fraction, expected one of them")
        if self.is_everyone and self.selection != "uniform":
            raise ValueError(f"cohort.selection {self.selection} needs cohort.size or cohort.fraction to draw by")
        if self.is_everyone and self.over_selection:
            raise ValueError("cohort.over_selection needs cohort.size or cohort.fraction to invite more than")
        return self


class Synchronous(PlanSection):
    """A round waits for its cohort, up to its deadline; what comes later is refused."""

    type: Literal["synchronous"] = "synchronous"


class Buffered(PlanSection):
    """FedBuff (arXiv:2106.06639): a round is sealed when `buffer` deltas are in, also ones trained from an older model."""

    type: Literal["buffered"] = "buffered"
    buffer: Annotated[int, Field(ge=1, le=100_000, description="Deltas that make a new model.")]
    max_staleness: Annotated[
        int,
        Field(
            ge=0,
            le=1000,
            description="By how many rounds a delta may be late; s rounds late it weighs num_tokens ÷ sqrt(1 + s).",
        ),
    ] = 4


class StopRules(PlanSection):
    """When a run ends before `rounds`. Measured by the median over institutions of held-out perplexity."""

    target_perplexity: Annotated[Number | None, Field(gt=1, description="End at this perplexity or below.")] = None
    patience_rounds: Annotated[int | None, Field(ge=1, description="End after so many rounds without improvement.")] = (
        None
    )

    @property
    def looks_at_losses(self) -> bool:
        """Whether there is any rule."""
        return self.target_perplexity is not None or self.patience_rounds is not None


class Retention(PlanSection):
    """How long the coordinator keeps what lets others recompute a round. Of both bounds, the stricter one counts."""

    delta_rounds: Annotated[
        int | None, Field(ge=1, description="Keep the deltas of so many newest rounds. Default: all rounds.")
    ] = None
    delta_bytes: Annotated[
        int | None,
        Field(
            ge=1,
            lt=2**53,
            description="Keep the deltas of the newest rounds that together have at most so many bytes, one round's "
            "in any case. Default: no bound.",
        ),
    ] = None

    def rounds_kept(self, rounds: int, delta_bytes: int) -> int:
        """Of how many closed rounds deltas are kept at once, at most.

        Args:
            rounds: how many there are.
            delta_bytes: the fewest that a round's deltas have together.
        """
        bounds = [rounds]
        bounds += [] if self.delta_rounds is None else [self.delta_rounds]
        bounds += [] if self.delta_bytes is None else [max(1, self.delta_bytes // max(1, delta_bytes))]
        return min(bounds)
