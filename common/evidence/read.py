"""Reading a bundle strictly: first the digest of the whole, then record by record (docs/protocol.md#evidence).

What this takes, `write_bundle` makes again byte for byte. Whether it is true is asked afterwards: common.verify and checks.py.
"""

from __future__ import annotations

import hashlib
import os
import re
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from common.blobs import disk
from common.blobs.reference import MAX_BLOB_BYTES, BlobRef, DigestName
from common.blobs.writer import LeafCounter
from common.errors import MalformedStatement
from common.evidence.bundle import Bundle, BundledBlobs, Envelopes
from common.evidence.format import (
    HEADER,
    MAX_ENTRIES,
    MAX_METRICS_BYTES,
    MAX_NOTES_BYTES,
    Measured,
    claimed_head,
)
from common.evidence.source import Source
from common.evidence.subtrees import SparseNodes
from common.ledger.merkle import leaf_hash
from common.ledger.notes import MAX_NOTE_BYTES, parse_note
from common.statements.envelope import MAX_ENVELOPE_BYTES

_NUMBER, _HASH = "(0|[1-9][0-9]{0,15})", "([0-9a-f]{64})"
_LINES = {
    "checkpoint": re.compile(f"checkpoint {_NUMBER}"),
    "conflicting": re.compile(f"conflicting {_NUMBER}"),
    "entry": re.compile(f"entry {_NUMBER} {_NUMBER}"),
    "subtree": re.compile(f"subtree {_NUMBER} {_NUMBER} {_HASH}"),
    "metrics": re.compile(f"metrics {_HASH} {_HASH} {_NUMBER}"),
    "blob": re.compile(f"blob ({'|'.join(get_args(DigestName))}) {_NUMBER} {_HASH}"),
}
_STAGES = {"checkpoint": 0, "conflicting": 1, "entry": 2, "subtree": 2, "metrics": 3, "blob": 4}


def read_bundle(path: Path) -> Bundle:
    """Open a bundle and read it once; close it. Envelopes and blobs stay in the file.

    Raises:
        MalformedStatement: it is none, or not whole, or not in its one form; with the position.
        StorageFailure: it cannot be read.
    """
    path = path.resolve()
    with disk.storage("open", path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        source = Source(path, fd)
        digest = source.check_digest()
        return _Parser(source, path, fd).parse(digest)
    except BaseException:
        os.close(fd)
        raise


class _Parser:
    """Takes record after record; each method is one kind's, and refuses what has another spelling or place."""

    def __init__(self, source: Source, path: Path, fd: int) -> None:
        self._source = source
        self._fd = fd
        self._nodes = SparseNodes()
        self._envelopes = Envelopes(path, fd, self._nodes)
        self._blobs = BundledBlobs(path)
        self._notes: dict[str, list[bytes]] = {"checkpoint": [], "conflicting": []}
        self._note_bytes = 0
        self._last: dict[str, tuple[int | str, bytes]] = {}
        self._cuts: list[int] = []
        self._covered = 0
        self._metrics: dict[str, Measured] = {}
        self._began = 0
        self._take: dict[str, Callable[..., None]] = {
            "checkpoint": self._checkpoint,
            "conflicting": self._conflicting,
            "entry": self._entry,
            "subtree": self._subtree,
            "metrics": self._measured,
            "blob": self._blob,
        }

    def parse(self, digest: str) -> Bundle:
        source, stage = self._source, 0
        source.position = len(HEADER)
        while source.position < source.limit:
            self._began = source.position
            line = source.line()
            word = line.partition(" ")[0]
            match = _LINES[word].fullmatch(line) if word in _LINES else None
            if match is None:
                raise self._refuse("a line is none that a record begins with.")
            if _STAGES[word] < stage:
                raise self._refuse(f"a {word} stands after what it comes before.")
            stage = _STAGES[word]
            self._take[word](*match.groups())
        size = len(self._envelopes)
        if size < self._covered:
            raise self._refuse(f"there are {size} entries, the largest checkpoint has {self._covered}.", source.limit)
        if size == 0:
            raise self._refuse("it holds no entry, not even a genesis.", source.limit)
        return Bundle(
            fd=self._fd,
            digest=digest,
            checkpoints=tuple(self._notes["checkpoint"]),
            conflicting=tuple(self._notes["conflicting"]),
            envelopes=self._envelopes,
            nodes=self._nodes,
            metrics=self._metrics,
            blobs=self._blobs,
        )

    def _refuse(self, why: str, at: int | None = None) -> MalformedStatement:
        return self._source.refuse(why, self._began if at is None else at)

    def _checkpoint(self, length: str) -> None:
        self._covered = self._note("checkpoint", int(length))

    def _conflicting(self, length: str) -> None:
        self._note("conflicting", int(length))

    def _note(self, word: str, length: int) -> int:
        """The size that the note names."""
        data = self._source.take(length, MAX_NOTE_BYTES, f"a {word}")
        self._note_bytes += length
        if self._note_bytes > MAX_NOTES_BYTES:
            raise self._refuse(f"the notes have more than {MAX_NOTES_BYTES:,} bytes together.")
        try:
            size = claimed_head(parse_note(data)).size
        except MalformedStatement as err:
            raise self._refuse(f"a {word} is none: {err.message}") from err
        if size > MAX_ENTRIES:
            raise self._refuse(f"a {word} of {size:,} entries, at most {MAX_ENTRIES:,} allowed.")
        self._ascends(word, size, b"" if word == "checkpoint" else data)
        self._notes[word].append(data)
        if not self._is_cut(size):
            insort(self._cuts, size)
        return size

    def _is_cut(self, size: int) -> bool:
        at = bisect_left(self._cuts, size)
        return at < len(self._cuts) and self._cuts[at] == size

    def _entry(self, index: str, length: str) -> None:
        if int(index) != len(self._envelopes):
            raise self._refuse(f"entry {index} stands where {len(self._envelopes)} comes next.")
        if int(index) >= MAX_ENTRIES:
            raise self._refuse(f"there are more than {MAX_ENTRIES:,} entries.")
        offset = self._source.position
        data = self._source.take(int(length), MAX_ENVELOPE_BYTES, "an entry")
        self._nodes.add_leaf(leaf_hash(hashlib.sha256, data))
        self._envelopes.add(offset, len(data))

    def _subtree(self, level: str, position: str, root: str) -> None:
        """Only where a checkpoint binds it to the log, and never split but where a note's tree ends."""
        size, rank, place = len(self._envelopes), int(level), int(position)
        if size == 0:
            raise self._refuse("entry 0 is withheld: nothing can be judged without the genesis.")
        if rank >= MAX_ENTRIES.bit_length() or place << rank != size:
            raise self._refuse(f"subtree {level} {position} stands where entry {size} comes next.")
        end = size + (1 << rank)
        if end > self._covered:
            raise self._refuse(f"entries up to {end - 1} are withheld, the largest checkpoint has {self._covered}.")
        following = self._cuts[bisect_right(self._cuts, size)]
        if end > following:
            raise self._refuse(f"subtree {level} {position} goes over the end of a note's tree of {following} entries.")
        if place % 2 and self._nodes.stands(rank, place - 1) and not self._is_cut(size):
            raise self._refuse(f"subtree {level} {position} and the one before it are written as two, expected one.")
        self._nodes.add_subtree(rank, place, bytes.fromhex(root))

    def _measured(self, digest: str, salt: str, length: str) -> None:
        self._ascends("metrics", digest)
        content = self._source.take(int(length), MAX_METRICS_BYTES, "metrics")
        self._metrics[digest] = Measured(digest, bytes.fromhex(salt), content)

    def _blob(self, algorithm: DigestName, size: str, root: str) -> None:
        self._ascends("blob", root)
        if int(size) > MAX_BLOB_BYTES:
            raise self._refuse(f"a blob of {int(size):,} bytes, at most {MAX_BLOB_BYTES:,} allowed.")
        ref, offset = BlobRef(algorithm=algorithm, size=int(size), root=root), self._source.position
        counter = LeafCounter(algorithm)
        self._source.pipe(ref.size, MAX_BLOB_BYTES, "a blob", counter.update)
        found, leaves = counter.result()
        if found != ref:
            raise self._refuse(f"a blob is not the one that it is called: its root is {found.root}, expected {root}.")
        self._blobs.add(ref, offset, leaves)

    def _ascends(self, word: str, key: int | str, then: bytes = b"") -> None:
        """
        Raises:
            MalformedStatement: it stands twice, or before one that comes earlier.
        """
        before = self._last.get(word)
        if before is not None and (key, then) <= before:
            raise self._refuse(f"a {word} does not come after the one before it.")
        self._last[word] = (key, then)
