"""A new lineage: the coordinator says that entries which its log signed for are held by nobody, and goes on without them."""

from __future__ import annotations

from dataclasses import replace

from common.errors import BadSignature, LedgerConflict, MalformedStatement
from common.ledger.heads import log_key
from common.ledger.notes import parse_note, read_checkpoint
from common.ledger.rulebook.following import follows
from common.ledger.state import LedgerState, Lineage, Place
from common.statements.envelope import Statement
from common.statements.kinds import Control

_OTHERS = ("run", "round", "institution", "model", "deadline", "rounds")


def recovery(state: LedgerState, statement: Statement, control: Control, place: Place) -> LedgerState:
    """The statement stands where the first entry stood that is given up, and names what the log had signed for.

    Raises:
        MalformedStatement: a field that is about something else, or one that lacks.
        LedgerConflict: it does not stand there, or the checkpoint is not the log's, or gives nothing up.
    """
    given = [name for name in _OTHERS if getattr(control, name) is not None]
    if given or control.given_up is None or control.missing_from is None:
        raise MalformedStatement(
            f"A recovery holds missing_from and given_up alone; this one lacks one, or holds others: {', '.join(given)}."
        )
    follows(statement, state.roster_place or state.genesis_place)
    if control.missing_from != place.index:
        raise LedgerConflict(
            f"A recovery at {place.index} says that entries are missing from {control.missing_from} on."
        )
    try:
        head = read_checkpoint(parse_note(control.given_up.encode()), log_key(state.genesis))
    except (MalformedStatement, BadSignature) as err:
        raise LedgerConflict(f"What a recovery gives up is no checkpoint of this log: {err.message}") from err
    if head.size <= place.index:
        raise LedgerConflict(
            f"A recovery at {place.index} gives up a tree of {head.size} entries, which holds no more."
        )
    return replace(state, lineages=(*state.lineages, Lineage(place, head)))
