"""What the Flower engine is told: a JSON file, and its answer, run views a line (llmasos.simulation.watch)."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from common.errors import UsageError
from common.ledger.cohort import cohort_sizes, round_seed
from common.names import Name
from common.plan.model import Plan


class Section(BaseModel):
    """Base: frozen, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class VirtualInstitution(Section):
    """An institution's name and folder of text; on a cluster the folder must be readable from every machine."""

    name: Name
    folder: Path
    text_column: str | None = None


class Turn(Section):
    """A round to be played: who trains, and whose deltas count."""

    number: int
    task: Literal["train", "evaluate"]
    seed: int
    cohort: tuple[Name, ...]
    used: tuple[Name, ...]
    """Of the cohort; none: the round is abandoned."""


class Resources(Section):
    """What one virtual institution takes while it trains, by Ray's count, and where Ray is."""

    cpus: Annotated[float, Field(gt=0)] = 1.0
    gpus: Annotated[float, Field(ge=0, description="A share of a GPU: 0.25 trains four on one.")] = 0.0
    ray_address: Annotated[
        str | None, Field(description="A Ray cluster's; none: Ray is started here and ends here.")
    ] = None
    cores: Annotated[int, Field(ge=1, description="Of this machine, where Ray is started here.")] = 1
    threads: Annotated[int, Field(ge=1, description="Of each training.")] = 1


class EngineJob(Section):
    """A simulation."""

    prepared: Path
    institutions: Annotated[tuple[VirtualInstitution, ...], Field(min_length=1)]
    home: Path
    """Tokens and moments, owner-only."""
    final: Path
    """Where the final model goes: the run's model blob, byte for byte."""
    scratch: Annotated[Path | None, Field(description="Short path for Ray's own files; none: Ray's default.")] = None
    turns: tuple[Turn, ...] = ()
    """A finished run's rounds, to be played again; none: rounds of the plan, seeds from its own `seed`."""
    resources: Resources = Resources()


def own_turn(plan: Plan, names: Sequence[str], number: int, task: Literal["train", "evaluate"]) -> Turn:
    """A round without a ledger: the draw of docs/protocol.md#open, from the plan's seed in place of its statement's digest and
    the institutions' nonces, which only keys make. Nobody is late here, so none are invited beyond those who are wanted. All
    are asked to evaluate.
    """
    cohort = sorted(names)
    wanted = cohort_sizes(plan, len(cohort)).enough
    if task == "train" and wanted < len(cohort):
        ranked = sorted(cohort, key=lambda name: sha256(f"{plan.seed}/{number}/{name}".encode()).digest())
        cohort = sorted(ranked[:wanted])
    seed = round_seed(str(plan.seed), number)
    return Turn(number=number, task=task, seed=seed, cohort=tuple(cohort), used=tuple(cohort))


def check_playable(plan: Plan, *, replayed: bool = False) -> None:
    """
    Args:
        replayed: cohorts come from a finished run's ledger.

    Raises:
        UsageError: the plan asks for what only daemons do; says what, and what to do.
    """
    asked = {
        "mode buffered": plan.mode.type == "buffered",
        "personal layers": bool(plan.personal),
        "rule operator": plan.rule.type == "operator",
        f"cohort.selection {plan.cohort.selection}": plan.cohort.selection != "uniform" and not replayed,
    }
    found = [what for what, there in asked.items() if there]
    if found:
        raise UsageError(
            f"The Flower engine does not play {', '.join(found)}.",
            "Simulate with processes (leave --engine out), or change the plan.",
        )


def stop_reason(plan: Plan, medians: Sequence[float]) -> str:
    """The plan's stop rule that applies, by the medians of perplexity that committed rounds started from; or nothing."""
    rules = plan.stop
    if rules.target_perplexity is not None and medians and medians[-1] <= float(rules.target_perplexity):
        return "target-reached"
    patience = rules.patience_rounds
    if patience is not None and len(medians) > patience and min(medians[-patience:]) >= min(medians[:-patience]):
        return "no-improvement"
    return ""
