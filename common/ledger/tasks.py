"""What a round's task asks: when there may be such a round, and what a contribution to it holds (docs/protocol.md#parents)."""

from __future__ import annotations

from typing import Literal

from common.blobs.reference import BlobRef
from common.errors import ImplausibleWeight, LedgerConflict, MalformedStatement
from common.ledger.state import RunRecord
from common.plan.model import Plan
from common.plan.weighting import BytesWeighting
from common.statements.kinds import ClearWeight, Contribution, RoundOpened

OfferedName = Literal["delta", "control"]
_OFFERED: tuple[OfferedName, ...] = ("delta", "control")


def check_task(run: RunRecord, opened: RoundOpened) -> None:
    """A run trains no more than its plan, or a control that extended it, says; and its evaluation is its last round.

    Raises:
        LedgerConflict: such a round may not be opened any more.
    """
    planned = run.rounds_planned
    if opened.task == "train" and len(run.committed()) >= planned:
        raise LedgerConflict(f"Round {opened.round} of {run.run} trains, after the plan's {planned} rounds were done.")
    if run.newest_closed is not None and run.newest_closed.opened.task == "evaluate":
        raise LedgerConflict(f"Round {opened.round} of {run.run} was opened after the run's evaluation.")


def mode_of(plan: Plan, task: str) -> Literal["synchronous", "buffered"]:
    """The mode of a round of that task: an evaluation is synchronous in any run."""
    return plan.mode.type if task == "train" else "synchronous"


def plan_blobs(plan: Plan) -> tuple[OfferedName, ...]:
    """Names of the blobs of a contribution to a training round."""
    return _OFFERED if plan.corrects else _OFFERED[:1]


def offered_blobs(contribution: Contribution) -> dict[OfferedName, BlobRef]:
    """What a contribution offers to the reducer, by name: `delta` first, then `control` where its plan has one."""
    return {name: contribution.blobs[name] for name in _OFFERED if name in contribution.blobs}


def check_shape(plan: Plan, opened: RoundOpened, contribution: Contribution) -> None:
    """What a contribution must hold, by its round's task and the plan.

    Raises:
        MalformedStatement: blobs other than the task's, or a kind of weight that the plan does not use.
        ImplausibleWeight: num_tokens outside 1 … steps × batch_size × sequence_length (0 for an evaluation), or num_bytes
            outside 1 … num_tokens × max_bytes_a_token.
    """
    masked = not isinstance(contribution.weight, ClearWeight) or "masked" in contribution.blobs
    if masked and plan.rule.single_deltas:
        raise MalformedStatement(
            f"The contribution is masked, and rule {plan.rule.type} looks at single deltas: a plan chooses masked sums or "
            "per-delta rules, never both."
        )
    wanted = set(plan_blobs(plan)) if opened.task == "train" else set()
    if set(contribution.blobs) != wanted:
        raise MalformedStatement(
            f"A contribution to a round of task {opened.task} holds blobs {sorted(contribution.blobs)}, "
            f"expected {sorted(wanted)}."
        )
    if not isinstance(contribution.weight, ClearWeight):
        raise MalformedStatement("The weight is masked, expected clear: this plan masks nothing.")
    later = [name for name in ("privacy", "relays") if getattr(contribution, name)]
    if later:
        raise MalformedStatement(f"A contribution holds {', '.join(later)}: not of this protocol version.")
    _check_weight(plan, contribution.weight, trains=opened.task == "train")


def _check_weight(plan: Plan, weight: ClearWeight, *, trains: bool) -> None:
    low, high = (1, plan.local.tokens_per_round) if trains else (0, 0)
    if not low <= weight.num_tokens <= high:
        raise ImplausibleWeight(
            f"num_tokens is {weight.num_tokens:,}, expected {low:,} to {high:,} in a round of this plan."
        )
    weighting = plan.weighting
    if not trains or not isinstance(weighting, BytesWeighting):
        if weight.num_bytes is not None:
            raise MalformedStatement(f"num_bytes is {weight.num_bytes:,}, expected none in a round of this plan.")
        return
    if weight.num_bytes is None:
        raise MalformedStatement("The contribution says no num_bytes, and the plan weighs deltas by bytes.")
    high = weight.num_tokens * weighting.max_bytes_a_token
    if not 1 <= weight.num_bytes <= high:
        raise ImplausibleWeight(
            f"num_bytes is {weight.num_bytes:,}, expected 1 to {high:,} of {weight.num_tokens:,} tokens by this plan."
        )
