"""How many institutions had accepted a plan when a round was opened: SCAFFOLD's N (docs/protocol.md#control-variates)."""

from __future__ import annotations

from common.ledger.state import RoundRecord, RunRecord


def accepted_before(run: RunRecord, record: RoundRecord) -> int:
    """Acceptances below the round's opening, by the ledger alone; whoever accepts later, or leaves, changes nothing here."""
    return sum(entry.answer.accept and entry.place.index < record.place.index for entry in run.answers.values())
