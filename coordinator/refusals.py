"""What was not taken, as the ledger keeps it: who, in which round, by which code, and the digest of what was refused.

A statement that breaks a rule is refused by the desk, a transfer of a blob by its servicer; both end here. However often it is
tried, there is one refusal for each institution, run, round and code. The words are neutral: a NaN is usually a bug.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from common.errors import (
    BadBlobReference,
    BlobTooLarge,
    CorruptChunk,
    LLMasOSError,
    MalformedMessage,
    TooManyRequests,
    TruncatedChunk,
)
from common.ledger.rules import refused_at
from common.ledger.state import LedgerState
from common.logs import get_logger
from common.statements.kinds import Member, Refusal
from coordinator.ledger import Ledger
from coordinator.ports import UploadPurpose
from coordinator.rounds.engine import Engine

log = get_logger(__name__)

RECORDED_OF_CALLS: tuple[type[LLMasOSError], ...] = (
    MalformedMessage,
    BlobTooLarge,
    BadBlobReference,
    CorruptChunk,
    TruncatedChunk,
    TooManyRequests,
)
"""What of a call is recorded besides statements. Not what comes to the honest too: a round that closed meanwhile, a blob whose
beginning a restart forgot. Not codes that a signed statement may still earn: `signed-by` says more."""


@dataclass(frozen=True, slots=True)
class Refused:
    """One refusal, to be recorded."""

    institution: str
    code: str
    what: Literal["statement", "transfer"]
    refused_sha256: str
    attribution: Literal["signed-by", "sent-on-connection"] = "sent-on-connection"
    run: str | None = None
    round: int | None = None


class RefusalBook:
    """Appends refusals to the ledger."""

    def __init__(self, ledger: Ledger, engine: Engine) -> None:
        self._ledger = ledger
        self._engine = engine

    def note(self, sender: Member, error: LLMasOSError, purpose: UploadPurpose | None, refused_sha256: str) -> None:
        """Record what a call was refused for, where that is recorded. Any thread; waits for the engine the first time only."""
        if not isinstance(error, RECORDED_OF_CALLS) or self._ledger.gate.closed:
            return
        opened = purpose.round_opened if purpose is not None else None
        found = self._ledger.state.round_by_opening(opened) if opened else None
        run, number = (found[0].run, found[1].number) if found else (None, None)
        refused = Refused(sender.name, error.code, "transfer", refused_sha256, run=run, round=number)
        if self._key(refused) not in self._ledger.state.refusals:
            self._engine.call(lambda: self.record(refused))

    def record(self, refused: Refused) -> None:
        """On the engine's thread; does nothing for what is recorded already."""
        state, key = self._ledger.state, self._key(refused)
        if key in state.refusals:
            return
        institution, run, number, code = key
        statement = Refusal(
            institution=institution,
            run=run,
            round=number,
            refused_sha256=refused.refused_sha256,
            code=code,
            attribution=refused.attribution,
        )
        self._ledger.append(statement, refused_at(state, run, number))
        log.warning(
            "refusal recorded",
            extra={
                "what": refused.what,
                "institution": institution,
                "code": code,
                "run": run,
                "round": number,
                "attribution": refused.attribution,
                "refused_sha256": refused.refused_sha256,
            },
        )

    def _key(self, refused: Refused) -> tuple[str, str | None, int | None, str]:
        state = self._ledger.state
        of_round = (refused.institution, refused.run, refused.round, refused.code)
        if of_round in state.refusals:
            return of_round
        run, number = place_of(state, refused.run, refused.round)
        return refused.institution, run, number, refused.code


def place_of(state: LedgerState, run: str | None, number: int | None) -> tuple[str | None, int | None]:
    """Run and round that a refusal is recorded under, as far as they are known here.

    Only the newest round counts by itself: else a thousand old rounds were a thousand places to fill the ledger with.
    """
    record = state.runs.get(run or "")
    if record is None:
        return None, None
    current = record.current
    return record.run, number if current is not None and current.number == number else None
