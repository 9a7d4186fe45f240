"""One's own part: what this institution signed is in the ledger, unaltered, and counted as it said."""

from __future__ import annotations

from collections.abc import Sequence

from common.ledger.staleness import contributed, is_awaited
from common.ledger.state import RoundRecord, RunRecord
from common.statements.kinds import ClearWeight
from common.verify.material import Own
from common.verify.report import Check, Finding, Outcome


def check_own(own: Own, runs: Sequence[RunRecord]) -> Check:
    """Each contribution to these runs that was signed, and each that the ledger says was."""
    findings: list[Finding] = []
    looked_at = 0
    for record in runs:
        for entry in record.rounds:
            looked_at += own.institution in entry.contributions
            findings += _round(record, entry, own)
    question = f"Are the contributions of {own.institution} in, unaltered, and weighted as signed?"
    return Check("own", question, f"{looked_at} contributions", tuple(findings))


def _round(run: RunRecord, record: RoundRecord, own: Own) -> list[Finding]:
    signed = own.signed.get(f"contribution/{record.place.digest}")
    found = contributed(run, record.number, own.institution)
    taking, given = found if found is not None else (record, None)
    where = f"round {record.number} of {run.run}"
    if given is None:
        if signed is None or is_awaited(run, record.number):
            return []
        text = f"What was signed for {where} is not in the ledger: it came too late, was refused, or was dropped."
        return [Finding(Outcome.GAPS, text, record.place.index, expected=signed, got="nothing")]
    if signed is None:
        text = f"The ledger holds a contribution to {where} that this institution's journal does not know."
        return [Finding(Outcome.FAILED, text, given.place.index, "nothing", given.place.digest, own.institution)]
    if signed != given.place.digest:
        text = f"Another contribution to {where} is in the ledger than the one in the journal: two were signed."
        return [Finding(Outcome.FAILED, text, given.place.index, signed, given.place.digest, own.institution)]
    return _weighted(run, taking, own)


def _weighted(run: RunRecord, record: RoundRecord, own: Own) -> list[Finding]:
    if record.closed is None or record.closed_place is None:
        return []
    weight = record.contributions[own.institution].contribution.weight
    said = weight.num_tokens if isinstance(weight, ClearWeight) else 0
    counted = {entry.institution: entry.num_tokens for entry in record.closed.inputs}.get(own.institution)
    if counted == said:
        return []
    text = f"Round {record.number} of {run.run} was closed with another weight than was signed."
    return [Finding(Outcome.FAILED, text, record.closed_place.index, str(said), str(counted), "coordinator")]
