"""The participant's memory: its copy of the ledger, what it signed, and every byte that left (SQLite, synchronous=FULL).

What is signed is written here before it is sent, one row a slot, so that no crash makes this institution sign a slot twice:
after a restart the very same bytes are sent again. What people ordered stands in orders.py, what was measured in records.py:
other tables of the same file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from common.errors import RefusalError, SlotTaken, StorageFailure
from common.statements.envelope import parse
from participant.memory.database import DAMAGED_FIX, JournalFile

_SCHEMA = """
CREATE TABLE IF NOT EXISTS ledger (position INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, envelope BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS signed (
    slot TEXT PRIMARY KEY, digest TEXT NOT NULL, envelope BLOB NOT NULL, metrics BLOB NOT NULL, salt BLOB NOT NULL,
    signed_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS egress (
    id INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, bytes INTEGER NOT NULL, digest TEXT NOT NULL,
    receiver TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS checkpoints (
    size INTEGER NOT NULL, root TEXT NOT NULL, note BLOB NOT NULL, kind TEXT NOT NULL, seen_at TEXT NOT NULL,
    PRIMARY KEY (kind, note)
);
CREATE TABLE IF NOT EXISTS lineages (
    digest TEXT PRIMARY KEY, position INTEGER NOT NULL, envelope BLOB NOT NULL, offered_at TEXT NOT NULL,
    accepted_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS given_up (
    lineage TEXT NOT NULL, position INTEGER NOT NULL, digest TEXT NOT NULL, envelope BLOB NOT NULL,
    PRIMARY KEY (lineage, position)
);
"""

CheckpointKind = Literal["newest", "ahead", "covering", "cosigned", "conflicting", "acknowledged"]
"""newest        the largest one that this copy bears out; one, replaced by the next
ahead         of more entries than this copy has: to be compared
covering      those that show which entries a majority of the witnesses cosigned; replaced together
cosigned      those that this institution acted upon; for ever
conflicting   what shows two histories: while there is any, the daemon does nothing
acknowledged  the same, once a person has seen it; for ever"""


@dataclass(frozen=True, slots=True)
class SignedSlot:
    """A statement of this institution, with what travels beside it."""

    slot: str
    digest: str
    envelope: bytes
    metrics: bytes
    salt: bytes
    signed_at: str


@dataclass(frozen=True, slots=True)
class Egress:
    """Bytes that left this institution."""

    at: str
    kind: str
    bytes: int
    digest: str
    receiver: str


@dataclass(frozen=True, slots=True)
class KeptCheckpoint:
    """A note that the log signed, and when it was first seen; `root` in hexadecimal digits."""

    size: int
    root: str
    note: bytes
    seen_at: str


@dataclass(frozen=True, slots=True)
class OfferedLineage:
    """A statement that began a new lineage, verified; `accepted_at` is empty while nobody has decided."""

    digest: str
    position: int
    envelope: bytes
    offered_at: str
    accepted_at: str = ""


class Journal:
    """Thread-safe; each write is durable when it returns, bookings at the latest with the next other write.

    Raises:
        StorageFailure: the file cannot be opened, read or written.
    """

    def __init__(self, path: Path) -> None:
        self._file = JournalFile(path, _SCHEMA)
        self._books = JournalFile(path, _SCHEMA, synced=False)

    def check(self) -> None:
        """For start-up: that what was signed is what was signed, and that no page was damaged since.

        Raises:
            StorageFailure: otherwise; a slot whose row is damaged could be signed twice.
        """
        self._file.check()
        for each in self.all_signed():
            try:
                found = parse(each.envelope).digest
            except (RefusalError, TypeError):
                found = None
            if found != each.digest:
                raise StorageFailure(
                    f"The journal is damaged: what it holds as signed for slot {each.slot} is not what was signed.",
                    DAMAGED_FIX,
                )

    def close(self) -> None:
        self._books.close()
        self._file.close()

    # --- the ledger's copy -------------------------------------------------------------------------------------------

    def ledger(self) -> list[bytes]:
        """Every envelope seen, in order."""
        return [row[0] for row in self._file.read("SELECT envelope FROM ledger ORDER BY position")]

    def envelope(self, position: int) -> bytes:
        """The entry of that index; there must be one."""
        return bytes(self._file.read("SELECT envelope FROM ledger WHERE position = ?", (position,))[0][0])

    def entries(self, first: int, end: int, *, most: int, max_bytes: int) -> list[bytes]:
        """Entries from `first` to `end` - 1: one, then as many as fit."""
        query = "SELECT envelope FROM ledger WHERE position >= ? AND position < ? ORDER BY position LIMIT ?"
        found = [bytes(row[0]) for row in self._file.read(query, (first, end, most))]
        fitting = sum(total <= max_bytes for total in accumulate(map(len, found)))
        return found[: max(1, fitting)]

    def rows(self, table: Literal["ledger", "signed", "checkpoints"]) -> list[tuple[Any, ...]]:
        """Every row as it stands there, whatever a hand wrote into it: for whoever checks them."""
        return self._file.read(f"SELECT * FROM {table} ORDER BY rowid")

    def keep(self, entries: list[tuple[int, str, bytes]]) -> None:
        """Index, digest and envelope of entries that were verified, together."""
        with self._file.transaction() as connection:
            connection.executemany("INSERT INTO ledger VALUES (?, ?, ?)", entries)

    # --- lineages ------------------------------------------------------------------------------------------------------

    def lineages(self) -> list[OfferedLineage]:
        """Every statement that began a new lineage and was shown here, in the order in which that was."""
        query = "SELECT digest, position, envelope, offered_at, accepted_at FROM lineages ORDER BY rowid"
        return [OfferedLineage(*row) for row in self._file.read(query)]

    def offer(self, lineage: OfferedLineage) -> None:
        """Remember a new lineage until a person decides; one that is known stays as it is."""
        self._file.write(
            "INSERT OR IGNORE INTO lineages VALUES (?, ?, ?, ?, ?)",
            (lineage.digest, lineage.position, lineage.envelope, lineage.offered_at, lineage.accepted_at),
        )

    def accept_lineage(self, digest: str, at: str) -> int:
        """Follow that lineage from here on; how many entries of the copy it gives up. They stay, with the log's word for them.

        What was signed stays, too: no slot is signed again in any lineage.
        """
        with self._file.transaction() as connection:
            row = connection.execute("SELECT position FROM lineages WHERE digest = ?", (digest,)).fetchone()
            position = int(row[0])
            connection.execute("UPDATE lineages SET accepted_at = ? WHERE digest = ?", (at, digest))
            copied = "INSERT INTO given_up SELECT ?, position, digest, envelope FROM ledger WHERE position >= ?"
            connection.execute(copied, (digest, position))
            given_up = int(connection.execute("SELECT changes()").fetchone()[0])
            connection.execute("DELETE FROM ledger WHERE position >= ?", (position,))
            connection.execute(
                "UPDATE OR REPLACE checkpoints SET kind = 'acknowledged' WHERE size > ? AND kind != 'conflicting'",
                (position,),
            )
            return given_up

    # --- checkpoints -------------------------------------------------------------------------------------------------

    def checkpoints(self) -> list[bytes]:
        """Notes of this copy's own history, ascending by size: the newest, and those with witnesses' cosignatures."""
        query = (
            "SELECT note FROM checkpoints WHERE kind IN ('newest', 'covering', 'cosigned') "
            "GROUP BY note ORDER BY size, root, note"
        )
        return [row[0] for row in self._file.read(query)]

    def conflicting(self) -> list[bytes]:
        """Notes that show two histories, acknowledged or not, in the order in which they were seen."""
        kept = [*self.checkpoints_of("acknowledged"), *self.checkpoints_of("conflicting")]
        return list(dict.fromkeys(each.note for each in kept))

    def acknowledge(self) -> int:
        """A person has seen what shows two histories: it no longer holds the daemon. How many notes that were."""
        with self._file.transaction() as connection:
            connection.execute("UPDATE OR REPLACE checkpoints SET kind = 'acknowledged' WHERE kind = 'conflicting'")
            return int(connection.execute("SELECT changes()").fetchone()[0])

    def checkpoints_of(self, kind: CheckpointKind) -> list[KeptCheckpoint]:
        """Those of one kind, in the order in which they were kept."""
        query = "SELECT size, root, note, seen_at FROM checkpoints WHERE kind = ? ORDER BY rowid"
        return [KeptCheckpoint(*row) for row in self._file.read(query, (kind,))]

    def keep_checkpoints(self, kind: CheckpointKind, entries: Sequence[KeptCheckpoint]) -> None:
        """Keep notes of one kind."""
        self.keep_kinds({kind: entries})

    def keep_kinds(self, kept: Mapping[CheckpointKind, Sequence[KeptCheckpoint]]) -> None:
        """Keep notes, all together. Those of `newest`, `ahead` and `covering` take the place of all that were kept as such."""
        with self._file.transaction() as connection:
            for kind, entries in kept.items():
                if kind in ("newest", "ahead", "covering"):
                    connection.execute("DELETE FROM checkpoints WHERE kind = ?", (kind,))
                connection.executemany(
                    "INSERT OR IGNORE INTO checkpoints (size, root, note, kind, seen_at) VALUES (?, ?, ?, ?, ?)",
                    [(each.size, each.root, each.note, kind, each.seen_at) for each in entries],
                )

    # --- what was signed ---------------------------------------------------------------------------------------------

    def signed(self, slot: str) -> SignedSlot | None:
        """What this institution signed for a slot."""
        rows = self._file.read("SELECT * FROM signed WHERE slot = ?", (slot,))
        return SignedSlot(*rows[0]) if rows else None

    def signed_as(self, digest: str) -> SignedSlot | None:
        """The statement of that digest, if this institution signed it."""
        rows = self._file.read("SELECT * FROM signed WHERE digest = ?", (digest,))
        return SignedSlot(*rows[0]) if rows else None

    def all_signed(self) -> list[SignedSlot]:
        """Everything that this institution signed, oldest first: its evidence."""
        return [SignedSlot(*row) for row in self._file.read("SELECT * FROM signed ORDER BY signed_at, slot")]

    def sign(self, entry: SignedSlot) -> None:
        """Remember a signed statement before it is sent.

        Raises:
            SlotTaken: the slot holds another one.
        """
        with self._file.transaction() as connection:
            before = connection.execute("SELECT digest FROM signed WHERE slot = ?", (entry.slot,)).fetchone()
            if before is not None and before[0] != entry.digest:
                raise SlotTaken(f"Slot {entry.slot} was signed before, as {before[0][:16]}….")
            connection.execute(
                "INSERT OR IGNORE INTO signed VALUES (?, ?, ?, ?, ?, ?)",
                (entry.slot, entry.digest, entry.envelope, entry.metrics, entry.salt, entry.signed_at),
            )

    # --- what left ---------------------------------------------------------------------------------------------------

    def book(self, entry: Egress) -> None:
        """Book bytes that left."""
        self._books.write(
            "INSERT INTO egress (at, kind, bytes, digest, receiver) VALUES (?, ?, ?, ?, ?)",
            (entry.at, entry.kind, entry.bytes, entry.digest, entry.receiver),
        )

    def booked_after(self, position: int) -> list[tuple[int, int, str]]:
        """Position, bytes and digest of what was booked after that position, ascending; positions begin at 1."""
        return self._file.read("SELECT id, bytes, digest FROM egress WHERE id > ? ORDER BY id", (position,))

    def egress(self, since: str = "") -> list[Egress]:
        """All that left from `since` (RFC 3339 UTC) on, oldest first."""
        query = "SELECT at, kind, bytes, digest, receiver FROM egress WHERE at >= ? ORDER BY id"
        return [Egress(*row) for row in self._file.read(query, (since,))]
