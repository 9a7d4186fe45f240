"""Buffered rounds: which round a late delta goes into; and what every delta weighs (docs/protocol.md#buffered, #weights).

    round 3 opened ── trained from its base ──────────────┐
    round 3 closed   round 4 opened, closed   round 5 opened ◀── taken: staleness 2, weight num_tokens ÷ sqrt(3)

Source: FedBuff, Nguyen et al., arXiv:2106.06639.
"""

from __future__ import annotations

from math import isqrt

from common.ledger.state import Contributed, RoundRecord, RunRecord
from common.plan.weighting import Weighting
from common.statements.kinds import ClearWeight, SealedInput


def most_stale(run: RunRecord) -> int:
    """By how many rounds a delta may be late; 0 where rounds are synchronous."""
    mode = run.statement.plan.mode
    return mode.max_staleness if mode.type == "buffered" else 0


def taking_round(run: RunRecord, number: int) -> RoundRecord | None:
    """The open round that takes what was trained from the base of round `number`, if one does."""
    record = run.open_round
    if record is None or not 1 <= number <= record.number or run.rounds[number - 1].rolled_back:
        return None  # a base that was rolled back is nobody's any more
    late = record.number - number
    return record if late == 0 or (late <= most_stale(run) and record.opened.task == "train") else None


def is_awaited(run: RunRecord, number: int) -> bool:
    """Whether what is trained from the base of round `number` is taken now, or by a round that opens next."""
    if taking_round(run, number) is not None:
        return True
    newest = run.current
    if run.ended is not None or run.open_round is not None or newest is None or newest.opened.task != "train":
        return False
    if not 1 <= number <= newest.number or run.rounds[number - 1].rolled_back:
        return False
    return 1 <= newest.number + 1 - number <= most_stale(run)


def contributed(run: RunRecord, number: int, institution: str) -> tuple[RoundRecord, Contributed] | None:
    """An institution's contribution that was trained from the base of round `number`, and the round that took it."""
    for record in run.rounds[number - 1 :]:
        entry = record.contributions.get(institution)
        if entry is not None and entry.contribution.round == number:
            return record, entry
    return None


def weights(run: RunRecord, record: RoundRecord) -> dict[str, int]:
    """What each used delta of a closed round weighs, by institution."""
    used = (entry for entry in (record.closed.inputs if record.closed else ()) if entry.status == "used")
    return {entry.institution: weight(run.statement.plan.weighting, record, entry) for entry in used}


def weight(weighting: Weighting, record: RoundRecord, entry: SealedInput) -> int:
    """floor(n ÷ sqrt(1 + staleness)), at least 1, with n by the plan's weighting: integers alone, and below 2^29 as n is."""
    contribution = record.contributions[entry.institution].contribution
    said, late = contribution.weight, record.number - contribution.round
    num_bytes = said.num_bytes if isinstance(said, ClearWeight) else None
    own = weighting.of(entry.num_tokens, num_bytes)
    return max(1, isqrt(own * own // (1 + late))) if late else own
