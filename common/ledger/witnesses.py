"""Witnesses: who they are, what they cosigned, and which entries a majority of them saw (docs/protocol.md#witnesses). Pure.

A witness cosigns a checkpoint only when its own copy of the ledger has exactly that head. A participant acts on a round only
when the round's opening is among the entries that a majority cosigned: two majorities share a witness, and an honest one
cosigns one history alone.

Source: c2sp.org/tlog-cosignature, c2sp.org/tlog-witness.
"""

from __future__ import annotations

from collections.abc import Mapping

from common.ledger.notes import COSIGNATURE, Note, NoteKey, verify_cosignature
from common.ledger.state import LedgerState
from common.statements.kinds import Genesis, Member


def witness_key(genesis: Genesis, member: Member) -> NoteKey:
    """The key under which a member cosigns: its signing key, under the name CONSORTIUM.llmasos/INSTITUTION."""
    return NoteKey(f"{genesis.consortium}.llmasos/{member.name}", member.signing_key, COSIGNATURE)


def witnesses_of(state: LedgerState) -> dict[str, NoteKey]:
    """Keys of the active members with the role witness, by institution, as of this state's roster."""
    members = state.roster.members if state.roster else ()
    return {
        member.name: witness_key(state.genesis, member)
        for member in members
        if "witness" in member.roles and state.is_active(member.name)
    }


def majority(witnesses: int) -> int:
    """How many of so many witnesses are more than half; of none, none."""
    return witnesses // 2 + 1 if witnesses else 0


def cosigners(note: Note, witnesses: Mapping[str, NoteKey]) -> dict[str, int]:
    """Which of these witnesses cosigned a note, and when (seconds since the epoch). Others' signatures count for nothing.

    Raises:
        BadSignature: one that bears a witness's name and key id does not verify.
    """
    present = {(each.name, each.key_id) for each in note.signatures}
    found = {}
    for institution, key in witnesses.items():
        if (key.name, key.id) in present:
            found[institution] = verify_cosignature(note, key)
    return found


def strangers(note: Note, known: Mapping[str, NoteKey], log: NoteKey) -> list[str]:
    """Names on a note that are neither the log's nor a known witness's."""
    keys = {(key.name, key.id) for key in (*known.values(), log)}
    return [each.name for each in note.signatures if (each.name, each.key_id) not in keys]


def covered_size(sizes: Mapping[str, int], witnesses: int) -> int:
    """How many entries a majority saw: the largest n so that more than half of `witnesses` cosigned n entries or more.

    Args:
        sizes: the largest tree that each witness cosigned; all of them beginnings of one ledger.
        witnesses: how many there are, those that cosigned nothing included.
    """
    needed = majority(witnesses)
    largest = sorted(sizes.values(), reverse=True)
    return largest[needed - 1] if needed and len(largest) >= needed else 0


def may_act(opening: int, covered: int, witnesses: int) -> bool:
    """Whether a round whose opening stands at that index may be acted on. Where nobody is a witness there is nothing to ask."""
    return witnesses == 0 or opening < covered
