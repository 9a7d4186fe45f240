"""The ledger's log: checkpoints, signed after what they name is durable, and proofs (docs/protocol.md#checkpoints).

    log = Log(ledger, key, HeadFile(home / "log.head"), cosignatures)
    log.newest()                # the head of all that is durable, under the log's signature
    log.head(17)                # the same with cosignatures, and the proof that the first 17 entries are its beginning
    log.receipt(12)             # the proof that entry 12 is in it

Nothing is signed until somebody asks, so an append costs no signature. A log must never sign two trees of which neither is the
beginning of the other. Within one database it cannot; for a database that was put back from a backup there is `HeadFile`.
"""

from __future__ import annotations

import threading
from hashlib import sha256
from pathlib import Path

from common.errors import (
    BadSignature,
    LLMasOSError,
    MalformedStatement,
    StorageFailure,
    TwoHistories,
    UnknownObject,
)
from common.homes import atomic_write
from common.identity.keys import SigningKey
from common.ledger.heads import log_key, receipt_of
from common.ledger.merkle import TreeHead, verify_consistency
from common.ledger.notes import Note, NoteKey, checkpoint_text, parse_note, read_checkpoint, sign_note
from common.ledger.tree import StoredTree
from common.ledger.witnesses import witnesses_of
from common.logs import get_logger
from common.newest import Newest
from common.statements.kinds import Genesis
from common.wire.messages import LogHead
from coordinator.cosignatures import Cosignatures
from coordinator.ledger import Ledger

log = get_logger(__name__)

NOTES_KEPT = 64
"""Signed notes in memory: witnesses cosign sizes that were the newest a moment ago."""


class HeadFile:
    """The largest checkpoint that was ever signed, beside the database."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def check(self, tree: StoredTree, key: NoteKey, *, recovers: bool = False) -> int:
        """How many entries that checkpoint has, when they are a beginning of `tree`; 0 where none is known.

        Args:
            recovers: the tree may be shorter: what it lacks is asked for before anything is signed.

        Raises:
            TwoHistories: entries of a checkpoint that was signed are missing, or are others.
        """
        signed = self._read(key)
        if signed is None:
            return 0
        if recovers and signed.size > tree.size:
            return signed.size
        if signed.size > tree.size:
            raise TwoHistories(
                f"The state database holds {tree.size} entries, but {self._path.name} shows that {signed.size} were "
                "signed for: it was restored from a backup that is too old.",
                _advice(signed.size),
            )
        own = tree.head(signed.size).root
        if own != signed.root:
            raise TwoHistories(
                f"The first {signed.size} entries have root {own.hex()}, but {self._path.name} shows that "
                f"{signed.root.hex()} was signed for: they are not the entries that institutions have seen.",
                _advice(signed.size),
            )
        return signed.size

    def write(self, note: Note) -> None:
        """Remember a checkpoint that is larger than all before.

        Not synced to disk, and need not be: the database was, before this, so after a loss of power the file can only be
        too old or unreadable. Then it guards less; it never accuses wrongly. What it is for is a database that a person
        puts back, and that does not happen in the seconds in which the system writes its files out.
        """
        atomic_write(self._path, note.encode(), durable=False)

    def beyond(self, size: int, key: NoteKey) -> Note | None:
        """That checkpoint, when it is of more than `size` entries: the database beside it is an older one."""
        head = self._read(key)
        return parse_note(self._path.read_bytes()) if head is not None and head.size > size else None

    def _read(self, key: NoteKey) -> TreeHead | None:
        try:
            return read_checkpoint(parse_note(self._path.read_bytes()), key)
        except FileNotFoundError:
            return None
        except (OSError, MalformedStatement, BadSignature) as err:
            reason = err.message if isinstance(err, LLMasOSError) else str(err.strerror or err)
            log.warning("log head unreadable", extra={"path": str(self._path), "error": reason})
            return None


class Log:
    """Any thread.

    Raises:
        TwoHistories: this log has signed a tree that the database is not the continuation of.
        StorageFailure: the key is not the one that genesis names.
    """

    def __init__(self, ledger: Ledger, key: SigningKey, file: HeadFile, cosignatures: Cosignatures) -> None:
        self._ledger, self._key, self._file, self._cosignatures = ledger, key, file, cosignatures
        self.key = expect_log_key(ledger.state.genesis, key)
        self._signing = threading.Lock()
        self._notes = Newest[int, Note](NOTES_KEPT)
        self._signed = file.check(ledger.tree(), self.key, recovers=ledger.gate.closed)

    def newest(self) -> Note:
        """The checkpoint of all that is durable, signed by the log alone."""
        head = self._ledger.head
        return self._notes.get(head.size) or self._sign(head)

    def note(self, size: int) -> Note:
        """The checkpoint of an earlier size, signed by the log alone.

        Raises:
            IndexError: there are not so many entries.
            LedgerConflict: stored tiles were altered since the start; nothing is signed that does not lead to the newest head.
        """
        known = self._notes.get(size)
        if known is not None:
            return known
        newest, tree = self._ledger.head, self._ledger.tree()
        head = tree.head(size)
        verify_consistency(sha256, head, newest, tree.consistency_proof(size, newest.size))
        return self._sign(head)

    def cosigned(self, size: int) -> Note:
        """The same, with the cosignatures on it that are known."""
        note = self.note(size)
        for cosigned in self._cosignatures.by(witnesses_of(self._ledger.state)).values():
            if cosigned.size == size:
                note = note.with_signature(cosigned.signature)
        return note

    def head(self, old_size: int, *, cosigned: bool = True) -> LogHead:
        """The newest checkpoint, with known cosignatures, and the proof that the tree of `old_size` entries is its beginning.

        Args:
            cosigned: False: the log's signature alone, as cosignatures bear institutions' names.

        Raises:
            UnknownObject: the tree never had so many.
        """
        tree = self._ledger.tree()
        if old_size > tree.size:
            raise UnknownObject(
                f"The log has {tree.size} entries, so no tree of {old_size} is its beginning.",
                "If this log has ever signed so many, it has gone back: see docs/operations.md#two-histories.",
            )
        return LogHead(self._note(tree.size, cosigned).encode(), tuple(tree.consistency_proof(old_size)))

    def receipt(self, index: int, *, cosigned: bool = True) -> bytes:
        """The proof that entry `index` is in the newest checkpoint's tree, as a C2SP tlog-proof.

        Args:
            cosigned: as for `head`.

        Raises:
            UnknownObject: there is no such entry yet.
        """
        tree = self._ledger.tree()
        if index >= tree.size:
            raise UnknownObject(
                f"The log has {tree.size} entries, so there is no entry {index}.", "Ask again when it is in the ledger."
            )
        return receipt_of(tree, index, self._note(tree.size, cosigned), tree.size).encode()

    def _note(self, size: int, cosigned: bool) -> Note:
        return self.cosigned(size) if cosigned else self.note(size)

    def _sign(self, head: TreeHead) -> Note:
        with self._signing:
            known = self._notes.get(head.size)
            if known is not None:  # another thread was asked for the same one
                return known
            self._ledger.gate.expect_open()
            note = sign_note(Note(checkpoint_text(self.key.name, head)), self.key.name, self._key)
            if head.size > self._signed:
                self._file.write(note)  # before anybody sees the note: what is not remembered was never signed
                self._signed = head.size
            self._notes[head.size] = note
            return note


def expect_log_key(genesis: Genesis, key: SigningKey) -> NoteKey:
    """The log's public key by genesis, when `key` is its private half.

    Raises:
        StorageFailure: it is another's.
    """
    named = log_key(genesis)
    if named.key != key.public:
        raise StorageFailure(
            f"identity/log.key.pem holds key {key.public.public[:16]}…, but genesis names {named.key.public[:16]}… for "
            f"{named.name}.",
            "Restore identity/ from a backup of this coordinator's home.",
        )
    return named


def _advice(size: int) -> str:
    return (
        f"Restore a backup whose ledger has at least {size} entries, or bring back the database that was here; do not remove "
        "log.head: institutions hold that checkpoint and would stop. See docs/operations.md#two-histories."
    )
