"""`llmasos-coordinator run watch RUN --format json`, parsed: one RunView a line.

The fields are those of the command's output; later releases may add more, which are passed over. All models are values.
"""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, ValidationError

from common.blobs.reference import BlobRef
from common.errors import OperationError

LOSS_SCALE = 2**16
"""Losses are integers: nats × 2^16."""
POOLED = "pooled"


class View(BaseModel):
    """Base of all that is read from another process: frozen; unknown fields are a newer release's."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Evaluation(View):
    """Held-out losses of one model: a sum over tokens, so that institutions' results add up."""

    scope: str
    loss_sum_fixed: int
    num_tokens: int
    institutions: int = 1

    @property
    def perplexity(self) -> float:
        """exp of the mean loss in nats; infinite when nothing was measured."""
        return perplexity(self.loss_sum_fixed, self.num_tokens)


class Round(View):
    """One round. `evaluations` measure the model that it started from, which is the previous round's result."""

    round: int
    task: str
    outcome: str
    cohort: tuple[str, ...] = ()
    contributors: tuple[str, ...] = ()
    seconds: float = 0.0
    bytes_down: int = 0
    bytes_up: int = 0
    evaluations: tuple[Evaluation, ...] = ()
    reason: str = ""
    training_seconds: float | None = None
    """Of optimizer steps, over all participants, where the engine knows it."""

    @property
    def pooled(self) -> float | None:
        """Perplexity over all held-out text, if it is known already."""
        return next((found.perplexity for found in self.evaluations if found.scope == POOLED), None)


class Participant(View):
    institution: str
    state: str
    steps_done: int = 0
    steps_total: int = 0
    tokens_done: int = 0
    bytes_down: int = 0
    bytes_up: int = 0
    loss_fixed: int | None = None
    reasons: tuple[str, ...] = ()
    tokens_per_second: float = 0.0

    @property
    def loss(self) -> float | None:
        """Mean training loss of the newest step, nats."""
        return None if self.loss_fixed is None else self.loss_fixed / LOSS_SCALE


class Refusal(View):
    index: int
    institution: str
    round: int
    code: str
    attribution: str = ""


class RunView(View):
    """All that an operator sees of a run."""

    run: str
    plan_name: str
    phase: str
    round: int
    rounds_planned: int
    participants: tuple[Participant, ...] = ()
    rounds: tuple[Round, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    end_reason: str = ""
    model: BlobRef | None = None
    deadline: str = ""

    @property
    def ended(self) -> bool:
        return self.phase == "ended"

    @property
    def trained_rounds(self) -> int:
        """Rounds whose deltas became a model."""
        return sum(entry.task == "train" and entry.outcome == "committed" for entry in self.rounds)

    @property
    def final_round(self) -> Round | None:
        """The evaluation that measured the final model, once it is there."""
        last = self.rounds[-1] if self.rounds else None
        return last if last is not None and last.task == "evaluate" and last.evaluations else None


def perplexity(loss_sum_fixed: int, num_tokens: int) -> float:
    """exp(mean loss); infinite for nothing measured and for losses beyond float64."""
    if num_tokens <= 0:
        return math.inf
    try:
        return math.exp(loss_sum_fixed / LOSS_SCALE / num_tokens)
    except OverflowError:
        return math.inf


def parse_view(line: bytes) -> RunView:
    """One line of `run watch --format json`.

    Raises:
        OperationError: the line is something else; quotes its beginning.
    """
    try:
        return RunView.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the line"
        raise OperationError(
            f"`run watch` printed a line that is no run view ({where}: {first['msg']}): {line[:120]!r}.",
            "Check that llmasos and llmasos-coordinator are of the same release.",
        ) from error
