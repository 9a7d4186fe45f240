"""The ledger as the coordinator holds it: envelopes in the state database, their fold in memory, one writer, many readers.

Writing happens on the engine's thread: rules first (common.ledger.rules), then the transaction, then the new state and the tree
become visible and waiting readers wake. Readers take `state`, an immutable value, and never see half a change; and no head that
they see is of entries which a crash could still take away.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate

from common.clock import Clock, parse_rfc3339, rfc3339
from common.errors import LedgerConflict, UnknownCertificate
from common.identity.certificates import spiffe_id
from common.identity.keys import SigningKey
from common.ledger.merkle import TreeHead
from common.ledger.rules import Admission, admit, admit_verified, signer_key, start
from common.ledger.state import LedgerState, Place
from common.ledger.tree import StoredTree
from common.statements.envelope import Parent, Statement, sign
from common.statements.kinds import Kind, Member, Predicate, Roster
from coordinator.ports import LedgerSlice
from coordinator.recovery.gate import SigningGate
from coordinator.store.database import Database, LedgerRow, Seal, Transaction
from coordinator.store.tiles import Tiles
from coordinator.store.tree import LedgerTree, envelope_hash

Beside = Callable[[Transaction], None]
"""More writes in the transaction that appends a statement."""


@dataclass(frozen=True, slots=True)
class TakenBack:
    """An entry that was in this ledger before, when it was appended by what it says, and what stands beside it."""

    admission: Admission
    at: datetime
    beside: Beside | None = None


TAIL_ENTRIES, TAIL_BYTES = 256, 4 * 1024 * 1024
"""Newest envelopes that stay in memory: every follower asks for them at once."""
LINGER_SECONDS = 0.1
"""How long a follower's answer waits for more after entries on which nobody waits to act."""
UNHURRIED = frozenset({Kind.ANSWER, Kind.CONTRIBUTION, Kind.REFUSAL, Kind.ATTESTATION, Kind.ROUND_CLOSED})
"""What is told a little later, together with what follows: contributions, their round's closing and the next one's opening
reach a follower in one answer, and are one checkpoint to cosign."""


def _nothing_else() -> bool:
    return False


class Ledger:
    """Appends on the engine's thread; everything else from any thread.

    Raises:
        LedgerConflict: the stored envelopes do not follow from each other under this genesis, or the stored tree not from them.
    """

    def __init__(
        self,
        database: Database,
        key: SigningKey,
        clock: Clock,
        genesis_envelope: bytes,
        gate: SigningGate | None = None,
    ) -> None:
        self.gate = gate or SigningGate()
        self._database = database
        self._key = key
        self._clock = clock
        lock = threading.RLock()
        self._grown = threading.Condition(lock)
        self._hurry = threading.Condition(lock)
        self._appended_at: dict[int, datetime] = {}
        self._holders: tuple[Roster | None, dict[str, Member]] = (None, {})
        self._seals = database.seals()
        self._tail: deque[LedgerRow] = deque()
        self._tail_bytes = 0
        self._tiles = Tiles(database)
        self._published: tuple[LedgerState, LedgerTree] = self._replay(genesis_envelope)
        self._hurried = self.state.size - 1  # whoever lacks what was there before this start has waited long enough

    @property
    def state(self) -> LedgerState:
        """The fold of all that is durable."""
        return self._published[0]

    @property
    def head(self) -> TreeHead:
        """The head of the tree of all that is durable."""
        return self._published[1].head()

    def head_after(self, envelopes: Sequence[bytes]) -> TreeHead:
        """What the head would be, were these appended."""
        return self._published[1].grown([envelope_hash(envelope) for envelope in envelopes])[0].head()

    def tree(self) -> StoredTree:
        """The tree of all that is durable now: heads and proofs of this size and every earlier one."""
        return self._tiles.of(self._published[1])

    # --- reading -----------------------------------------------------------------------------------------------------

    def slice(
        self, from_index: int, *, max_bytes: int, wait_seconds: float, or_when: Callable[[], bool] = _nothing_else
    ) -> LedgerSlice:
        """Consecutive envelopes from `from_index`; waits up to `wait_seconds` for the first, or until `or_when`.

        Of kinds that are UNHURRIED alone it waits LINGER_SECONDS longer, where it may wait at all. `or_when` is asked when the
        ledger grew, and at `wake`.
        """
        with self._grown:
            came = self._grown.wait_for(lambda: self.state.size > from_index or or_when(), timeout=wait_seconds)
            if came and wait_seconds > 0:
                self._hurry.wait_for(lambda: self._hurried >= from_index or or_when(), timeout=LINGER_SECONDS)
            size, tail = self.state.size, tuple(self._tail)
        rows = self._rows(from_index, tail, max_bytes) if size > from_index else []
        return LedgerSlice(from_index, tuple(row.envelope for row in rows if row.index < size), size)

    def _rows(self, from_index: int, tail: Sequence[LedgerRow], max_bytes: int) -> list[LedgerRow]:
        """As Database.envelopes, from memory where that reaches back so far."""
        if not tail or tail[0].index > from_index:
            return self._database.envelopes(from_index, max_bytes=max_bytes)
        asked = tail[from_index - tail[0].index :]
        totals = accumulate(len(row.envelope) for row in asked)
        fitting = sum(total <= max_bytes for total in totals)
        return list(asked[: max(1, fitting)])

    def envelope(self, place: Place) -> bytes:
        """The stored envelope of a statement that stands there."""
        return self._database.envelopes(place.index, limit=1)[0].envelope

    def wait_for_growth(self, size: int, timeout: float) -> int:
        """Blocks until the ledger has more than `size` statements or the time is over; its size then."""
        with self._grown:
            self._grown.wait_for(lambda: self.state.size > size, timeout=timeout)
            return self.state.size

    def by_certificate(self, serial: str, spki_sha256: str, peer: str) -> Member:
        """The active member whom this certificate belongs to, by the newest roster.

        Raises:
            UnknownCertificate: serial, key or name is not one that an active member holds.
        """
        member = self._named(serial, spki_sha256, peer)
        if member.status == "active":
            return member
        raise UnknownCertificate(
            f"{member.name} is no active member of {self.state.genesis.consortium} any more: {member.status}.",
            "Whoever was revoked or left comes back under a new name alone; ask the operator.",
        )

    def follower_by_certificate(self, serial: str, spki_sha256: str, peer: str) -> Member:
        """The same, and also one who left: it may read how that ended, see `readable_until`."""
        member = self._named(serial, spki_sha256, peer)
        return member if member.status == "left" else self.by_certificate(serial, spki_sha256, peer)

    def readable_until(self, name: str) -> int | None:
        """Index of the last entry that this member may read; None where nothing limits it."""
        departure = self.state.departures.get(name)
        return departure.erased.index if departure is not None and departure.erased is not None else None

    def _named(self, serial: str, spki_sha256: str, peer: str) -> Member:
        """Whom the newest roster names this certificate for, whatever the status."""
        state = self.state
        member = self._holder(state.roster, serial)
        if member is not None:
            held = any(each.serial == serial and each.spki_sha256 == spki_sha256 for each in member.certificates)
            if spiffe_id(state.genesis.consortium, member.name) == peer and held:
                return member
        raise UnknownCertificate(
            f"The certificate with serial {serial} for {peer} is not in the newest roster of "
            f"{state.genesis.consortium}."
        )

    def _holder(self, roster: Roster | None, serial: str) -> Member | None:
        """Whose certificate bears that serial, which is one member's alone. Asked at each message of each stream."""
        holders = self._holders
        if holders[0] is not roster:
            members = roster.members if roster else ()
            holders = (roster, {each.serial: member for member in members for each in member.certificates})
            self._holders = holders
        return holders[1].get(serial)

    def appended_at(self, place: Place) -> datetime:
        """When that statement became durable, by this machine's clock."""
        return self._appended_at[place.index]

    def seal_of(self, round_opened: str) -> str | None:
        """Why that round is sealed, or None."""
        seal = self._seals.get(round_opened)
        return seal.reason if seal else None

    def sealed_at(self, round_opened: str) -> datetime | None:
        """When that round was sealed, or None."""
        seal = self._seals.get(round_opened)
        return parse_rfc3339(seal.sealed_at) if seal else None

    # --- writing, on the engine's thread -----------------------------------------------------------------------------

    def seal(self, round_opened: str, reason: str) -> None:
        """Durably take no more contributions to that round."""
        self.gate.expect_open()
        seal = Seal(round_opened, reason, rfc3339(self._clock.now()))
        with self._database.transaction() as tx:
            tx.seal(seal)
        self._seals[round_opened] = seal
        self.wake()

    def append(self, predicate: Predicate, parent: Place, beside: Beside | None = None) -> Place:
        """Sign and append a statement of the coordinator's, durably.

        Raises:
            CoordinatorRecovering: nothing is signed now.
        """
        return self._write(admit_verified(self.state, self.draft(predicate, parent)), beside)

    def draft(self, predicate: Predicate, parent: Place) -> Statement:
        """A statement of the coordinator's, signed and not appended: institutions may have to approve it first."""
        self.gate.expect_open()
        return sign(predicate, parent=Parent(parent.kind.value, parent.digest), key=self._key)

    def take(self, statement: Statement, beside: Beside | None = None) -> Place:
        """Append an institution's statement, as the very bytes that it signed.

        The key that counts is the one of the roster right below its own index, and the roster may have changed since the caller
        looked: under another key than that its signature does not count.
        """
        self.gate.expect_open()
        state = self.state
        if signer_key(state, statement) != statement.signer_key:
            return self._write(admit(state, statement.envelope), beside)
        return self._write(admit_verified(state, statement), beside)

    def take_back(self, taken: Sequence[TakenBack]) -> None:
        """Append entries that were in this ledger before, and that somebody else kept: after a restore, before all else.

        Args:
            taken: each follows on the one before; all become durable together.
        """
        self._write_all(taken)
        self._seals = self._database.seals()

    def _write(self, admission: Admission, beside: Beside | None) -> Place:
        self._write_all([TakenBack(admission, self._clock.now(), beside)])
        return admission.place

    def _write_all(self, entries: Sequence[TakenBack]) -> None:
        rows = [_row(entry) for entry in entries]
        tree, tiles = self._published[1].grown([envelope_hash(row.envelope) for row in rows])
        with self._database.transaction() as tx:
            tx.append(*rows)
            tx.keep_tiles(tiles)
            for entry in entries:
                if entry.beside is not None:
                    entry.beside(tx)
        self._appended_at |= {row.index: parse_rfc3339(row.appended_at) for row in rows}
        with self._grown:
            self._published = (entries[-1].admission.state, tree)
            for row in rows:
                self._remember(row)
            hurried = [each.admission.place.index for each in entries if each.admission.place.kind not in UNHURRIED]
            if hurried:
                self._hurried = max(self._hurried, *hurried)
                self._hurry.notify_all()
            self._grown.notify_all()

    def _remember(self, row: LedgerRow) -> None:
        self._tail.append(row)
        self._tail_bytes += len(row.envelope)
        while len(self._tail) > TAIL_ENTRIES or self._tail_bytes > TAIL_BYTES:
            self._tail_bytes -= len(self._tail.popleft().envelope)

    def wake(self) -> None:
        """Let waiting readers look again. Any thread, holding no lock that they could wait for."""
        with self._grown:
            self._grown.notify_all()
            self._hurry.notify_all()

    def _replay(self, genesis_envelope: bytes) -> tuple[LedgerState, LedgerTree]:
        """The fold of what is stored, and its tree, computed anew and compared with the stored one."""
        state = start(genesis_envelope).state
        rows = self._database.envelopes(0)
        if not rows:
            now = rfc3339(self._clock.now())
            row = LedgerRow(0, state.genesis_place.digest, "genesis", now, genesis_envelope)
            with self._database.transaction() as tx:
                tx.append(row)
            rows = [row]
        if rows[0].envelope != genesis_envelope:
            raise LedgerConflict("genesis.json is not the genesis of the state database beside it.")
        self._appended_at[0] = parse_rfc3339(rows[0].appended_at)
        tree, _ = LedgerTree().grown([envelope_hash(genesis_envelope)])
        while rows := self._database.envelopes(state.size):
            for row in rows:
                if row.index != state.size:
                    raise LedgerConflict(f"The ledger lacks index {state.size}; the next row has {row.index}.")
                state = admit(state, row.envelope).state
                self._appended_at[row.index] = parse_rfc3339(row.appended_at)
            tree, tiles = tree.grown([envelope_hash(row.envelope) for row in rows])
            self._tiles.expect(tiles)
        return state, tree


def _row(entry: TakenBack) -> LedgerRow:
    place = entry.admission.place
    return LedgerRow(place.index, place.digest, place.kind.value, rfc3339(entry.at), entry.admission.statement.envelope)
