"""What changes along a history, recorded while it is read: who is a witness, whose key is which, which times are signed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise

from common.clock import parse_rfc3339
from common.identity.keys import key_id
from common.ledger.notes import NoteKey
from common.ledger.rules import Admission
from common.ledger.state import LedgerState
from common.ledger.witnesses import witnesses_of
from common.statements.kinds import Control, Genesis, Kind, PublicKey, RoundOpened, signing_institution

COORDINATOR = "coordinator"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class SignedTime:
    """A time that an entry claims, in seconds since the epoch, and whose signature it stands under.

    Seconds and no datetime: a hostile claim may lie before the first year or after the last one that a datetime has.
    """

    index: int
    what: str
    seconds: float
    signer: str


@dataclass(slots=True)
class Changes:
    """Grows by one entry after the other; asked afterwards.

    For each institution the sizes at which it became, or ceased to be, a witness under a key: a roster of thousands of
    members that changed a thousand times stays small.
    """

    times: list[SignedTime] = field(default_factory=list)
    _witnesses: dict[str, list[tuple[int, NoteKey | None]]] = field(default_factory=dict)
    _keys: dict[str, list[tuple[int, PublicKey]]] = field(default_factory=dict)

    def record(self, admission: Admission) -> None:
        """One more entry that follows."""
        claimed = _signed_time(admission)
        if claimed is not None:
            self.times.append(claimed)
        if admission.place.kind in (Kind.ROSTER, Kind.CONTROL):
            self._record_members(admission.state)

    def witnesses(self, size: int) -> dict[str, NoteKey]:
        """The witnesses by the first `size` entries, with the keys under which they cosign."""
        found = {}
        for name, changes in self._witnesses.items():
            at = bisect_right(changes, size, key=lambda change: change[0])
            key = changes[at - 1][1] if at else None
            if key is not None:
                found[name] = key
        return found

    def replaced_at(self, name: str, known: str) -> int | None:
        """The index of the roster that replaced the signing key known of an institution; None where it never held it."""
        held = self._keys.get(name, [])
        return next((after[0] - 1 for before, after in pairwise(held) if is_key(before[1], known)), None)

    def _record_members(self, state: LedgerState) -> None:
        now: Mapping[str, NoteKey] = witnesses_of(state)
        for name in {*now, *self._witnesses}:
            changes = self._witnesses.setdefault(name, [(0, None)])
            if changes[-1][1] != now.get(name):
                changes.append((state.size, now.get(name)))
        for member in state.roster.members if state.roster else ():
            held = self._keys.setdefault(member.name, [])
            if not held or held[-1][1] != member.signing_key:
                held.append((state.size, member.signing_key))


def is_key(key: PublicKey, known: str) -> bool:
    """Whether this is the key that a reader knows: by its raw bytes, or by its id, both hexadecimal."""
    return known in (key.public, key_id(key))


def _signed_time(admission: Admission) -> SignedTime | None:
    said, index = admission.statement.predicate, admission.place.index
    match said:
        case Genesis():
            return SignedTime(index, "genesis", _seconds(said.created_at), COORDINATOR)
        case Control():
            return SignedTime(index, said.action, _seconds(said.issued_at), signing_institution(said) or COORDINATOR)
        case RoundOpened():
            allowed = admission.state.runs[said.run].statement.plan.deadline_seconds
            opened = _seconds(said.stages[-1].deadline) - allowed
            return SignedTime(index, f"opening of round {said.round} of {said.run}", opened, COORDINATOR)
        case _:
            return None


def _seconds(timestamp: str) -> float:
    return (parse_rfc3339(timestamp) - _EPOCH).total_seconds()
