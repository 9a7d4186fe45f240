"""A witness that is no member: asks for the ledger's signed head, checks that it only grew, cosigns it.

    DIR/key.pem            its own Ed25519 key, made at the first start, mode 0600
    DIR/vkey               its name and public key, as a C2SP verifier key
    DIR/seen               the largest checkpoint that it accepted: on disk before anything is signed, so it never goes back
    DIR/checkpoint         that checkpoint with its cosignature, for members: llmasos-participant checkpoint compare
    DIR/conflict-*.note    what showed two histories; while there is one, nothing is cosigned

It sees hashes, never a statement (docs/protocol.md#witnesses).

Source: c2sp.org/tlog-witness, c2sp.org/tlog-cosignature, c2sp.org/signed-note.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.clock import Clock
from common.errors import (
    CoordinatorUnreachable,
    LedgerConflict,
    LLMasOSError,
    MalformedStatement,
    StorageFailure,
    TooManyRequests,
    TwoHistories,
    UsageError,
)
from common.homes import atomic_write, private_folder
from common.identity.keys import SigningKey
from common.ledger.heads import log_key
from common.ledger.merkle import TreeHead, verify_consistency
from common.ledger.notes import COSIGNATURE, Note, NoteKey, NoteSignature, cosign, parse_note, read_checkpoint
from common.statements.kinds import Genesis, PublicKey
from common.wire.messages import LogHead

Ask = Callable[[int], LogHead]
"""The coordinator's newest head, and the proof that the tree of so many entries is its beginning."""
Seen = tuple[Note, TreeHead]
"""A checkpoint with the log's signature alone, and what it says."""
FIX = "Keep the folder, give the conflict notes to the members, and cosign nothing more: docs/operations.md#two-histories."


@dataclass(frozen=True, slots=True)
class WitnessFiles:
    """Where everything lies in a witness's folder."""

    home: Path

    @property
    def key(self) -> Path:
        return self.home / "key.pem"

    @property
    def vkey(self) -> Path:
        return self.home / "vkey"

    @property
    def seen(self) -> Path:
        return self.home / "seen"

    @property
    def checkpoint(self) -> Path:
        return self.home / "checkpoint"

    @property
    def conflicts(self) -> list[Path]:
        return sorted(self.home.glob("conflict-*.note"))

    def conflict(self, note: Note, head: TreeHead) -> Path:
        digest = hashlib.sha256(note.encode()).hexdigest()
        return self.home / f"conflict-{head.size}-{digest[:16]}.note"


def vkey(key: NoteKey) -> str:
    """A verifier key as C2SP writes it: name, key id, and type with public key in base64, joined by plus signs."""
    return f"{key.name}+{key.id.hex()}+{base64.b64encode(bytes([key.kind]) + bytes.fromhex(key.key.public)).decode()}"


class Witness:
    """One witness over one folder, whose lock is the caller's to hold.

    Args:
        name: of its key; None: the one that it had before, or one that is made of the key.

    Raises:
        UsageError: the name cannot be one, or is another one than before.
        TwoHistories: an earlier start found two histories.
        StorageFailure, RefusalError: what lies in the folder cannot be read, or is of another consortium.
    """

    def __init__(self, home: Path, genesis: Genesis, clock: Clock, name: str | None = None) -> None:
        self._files, self._clock = WitnessFiles(private_folder(home)), clock
        self._log = log_key(genesis)
        if self._files.conflicts:
            raise TwoHistories(f"Two histories were found before: {self._files.conflicts[0]} is one of the notes.", FIX)
        if not self._files.key.exists():
            SigningKey.generate().save(self._files.key)
        self._key = SigningKey.load(self._files.key)
        self.key = NoteKey(self._name(name), self._key.public, COSIGNATURE)
        atomic_write(self._files.vkey, vkey(self.key).encode() + b"\n", mode=0o644)
        self._seen = self._read_seen()

    @property
    def seen(self) -> TreeHead | None:
        """The largest tree that was accepted."""
        return self._seen[1] if self._seen else None

    def look(self, ask: Ask) -> Note | None:
        """Ask once; the newest checkpoint with the own cosignature, where it is new.

        Raises:
            TwoHistories: the tree that was seen before does not begin the one that is shown now. Both notes are kept.
            BadSignature, MalformedStatement: what came is not a checkpoint of this log.
            CoordinatorUnreachable, TooManyRequests: nobody answers now.
        """
        seen = self._seen
        head = ask(0) if seen is None else self._ask(ask, seen[1].size)
        note = self._bare(parse_note(head.checkpoint))
        found = read_checkpoint(note, self._log)
        if seen is not None:
            self._grew(seen, (note, found), head.consistency)
            if found == seen[1] and self._is_cosigned(note):
                return None
        atomic_write(
            self._files.seen, note.encode()
        )  # before the cosignature exists: it is never given to a smaller tree
        self._seen = note, found
        cosigned = cosign(note, self.key.name, self._key, seconds=int(self._clock.now().timestamp()))
        atomic_write(self._files.checkpoint, cosigned.encode(), mode=0o644)
        return cosigned

    # --- what was seen before ----------------------------------------------------------------------------------------

    def _ask(self, ask: Ask, old_size: int) -> LogHead:
        try:
            return ask(old_size)
        except (CoordinatorUnreachable, TooManyRequests):
            raise
        except LLMasOSError:
            # A log that went back knows no tree of that size. What it signs now shows it; any other refusal comes again.
            head = ask(0)
            if read_checkpoint(parse_note(head.checkpoint), self._log).size >= old_size:
                raise
            return head

    def _grew(self, before: Seen, now: Seen, proof: tuple[bytes, ...]) -> None:
        (_, seen), (_, found) = before, now
        try:
            verify_consistency(hashlib.sha256, seen, found, proof)
        except LedgerConflict as err:
            for note, head in (before, now):
                atomic_write(self._files.conflict(note, head), note.encode(), mode=0o644)
            raise TwoHistories(
                f"The coordinator signed {seen.size} entries with root {seen.root.hex()}, and now {found.size} with root "
                f"{found.root.hex()}, and does not show that the one begins the other: {err.message}",
                FIX,
            ) from err

    def _is_cosigned(self, note: Note) -> bool:
        """Whether its cosignature was written; not so after a crash in between, or where the file was removed or damaged."""
        try:
            written = parse_note(self._files.checkpoint.read_bytes())
        except (FileNotFoundError, MalformedStatement):
            return False
        mine = (self.key.name, self.key.id)
        return written.text == note.text and mine in {(each.name, each.key_id) for each in written.signatures}

    def _read_seen(self) -> Seen | None:
        if not self._files.seen.exists():
            return None
        try:
            note = parse_note(self._files.seen.read_bytes())
            return note, read_checkpoint(note, self._log)
        except LLMasOSError as err:
            raise StorageFailure(
                f"{self._files.seen} is no checkpoint of {self._log.name} under the genesis that was given: {err.message}",
                "Name the folder and the genesis that belong together; a witness has a folder for each ledger.",
            ) from err

    # --- keys and names ----------------------------------------------------------------------------------------------

    def _bare(self, note: Note) -> Note:
        """The note with the log's signature alone: what others signed is theirs to show."""
        log = (self._log.name, self._log.id)
        signatures: tuple[NoteSignature, ...] = tuple(
            each for each in note.signatures if (each.name, each.key_id) == log
        )
        return Note(note.text, signatures[:1])

    def _name(self, wanted: str | None) -> str:
        if self._files.vkey.exists():
            known = self._files.vkey.read_text().partition("+")[0]
            if wanted is not None and wanted != known:
                raise UsageError(
                    f"This witness is called {known!r}, not {wanted!r}.", "Leave --name out, or name another folder."
                )
            return known
        name = wanted or _made_of(self._key.public)
        if any(letter.isspace() or letter == "+" or not letter.isprintable() for letter in name) or len(name) > 200:
            raise UsageError(
                f"--name is {name!r}, expected at most 200 characters, no white space, no plus sign.",
                "Name it like a web address without its scheme: witness.example.org.",
            )
        return name


def _made_of(key: PublicKey) -> str:
    return f"witness-{hashlib.sha256(bytes.fromhex(key.public)).hexdigest()[:16]}"
