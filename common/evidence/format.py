"""An evidence bundle's records, each with one spelling, in one order; writing them (docs/protocol.md#evidence).

    llmasos.org/evidence@v1
    checkpoint LENGTH                   ascending by size, one of each
    <note>
    conflicting LENGTH                  notes that contradict this history, ascending by size, then by their bytes
    <note>
    entry INDEX LENGTH                  from 0 to the end of the tree, without a gap:
    <envelope>                          either an entry
    subtree LEVEL POSITION ROOT         or what stands for withheld ones; entry 0 is never withheld
    metrics DIGEST SALT LENGTH          own measurements, ascending by the contribution's digest
    <content>
    blob ALGORITHM SIZE ROOT            ascending by root
    <bytes>
    end SHA256                          of every byte before this line

Numbers are decimal without leading zeros, hashes lower-case hexadecimal, one space between, one newline after each line and
after raw bytes. The largest checkpoint's tree ends where the entries end, or before; only what it holds may be withheld,
since nothing else binds a hash to the log.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from common.blobs.reader import chunk_buffer
from common.blobs.reference import BlobRef
from common.evidence.subtrees import withheld_subtrees
from common.ledger.merkle import TreeHead
from common.ledger.notes import Note, named_head, parse_note
from common.ledger.tree import Nodes
from common.verify.material import Blobs

HEADER = b"llmasos.org/evidence@v1\n"
END_BYTES = len(b"end ") + 64 + 1
MAX_ENTRIES = 2**24
MAX_NOTES_BYTES = 16 * 1024 * 1024
"""All notes together; each has its own bound."""
MAX_METRICS_BYTES = 64 * 1024
MAX_LINE_BYTES = 256
SALT_BYTES = 32


@dataclass(frozen=True, slots=True)
class Measured:
    """What travelled beside a contribution: the ledger holds only the SHA-256 of salt and content."""

    contribution: str
    """The contribution's digest."""
    salt: bytes
    content: bytes


@dataclass(frozen=True, slots=True)
class Contents:
    """What a bundle says; everything in the order in which it is written.

    `nodes` knows the subtrees that stand for envelopes that are None; `source` holds the blobs.
    """

    checkpoints: Sequence[bytes]
    conflicting: Sequence[bytes]
    envelopes: Sequence[bytes | None]
    nodes: Nodes
    metrics: Sequence[Measured] = ()
    blobs: Sequence[BlobRef] = ()
    source: Blobs | None = None


def claimed_head(note: Note) -> TreeHead:
    """The tree that a checkpoint's text names, whoever signed it.

    Raises:
        MalformedStatement: the text is no checkpoint's, or of an empty tree.
    """
    return named_head(note, least=1)


def cuts_of(notes: Sequence[bytes]) -> list[int]:
    """Sizes of the trees that notes name, ascending, each once: where what is withheld is cut."""
    return sorted({claimed_head(parse_note(note)).size for note in notes})


def write_bundle(contents: Contents, stream: BinaryIO) -> str:
    """Write a bundle; the SHA-256 that it ends in, hexadecimal.

    Raises:
        BlobError: a blob is gone or damaged.
        StorageFailure: the disk cannot be read.
    """
    out = _Writer(stream)
    out.write(HEADER)
    for word, notes in (("checkpoint", contents.checkpoints), ("conflicting", contents.conflicting)):
        for note in notes:
            out.record(f"{word} {len(note)}", note)
    _write_entries(out, contents)
    for each in contents.metrics:
        out.record(f"metrics {each.contribution} {each.salt.hex()} {len(each.content)}", each.content)
    for ref in contents.blobs:
        _write_blob(out, ref, contents.source)
    return out.end()


def _write_entries(out: _Writer, contents: Contents) -> None:
    cuts = cuts_of((*contents.checkpoints, *contents.conflicting))
    hidden = withheld_subtrees(contents.envelopes, cuts)
    index = 0
    while index < len(contents.envelopes):
        envelope = contents.envelopes[index]
        if envelope is not None:
            out.record(f"entry {index} {len(envelope)}", envelope)
            index += 1
            continue
        level, position = next(hidden)
        out.write(f"subtree {level} {position} {contents.nodes.get(level, position).hex()}\n".encode())
        index += 1 << level


def _write_blob(out: _Writer, ref: BlobRef, source: Blobs | None) -> None:
    if source is None:
        raise ValueError(f"blob {ref} is to be written, and nothing holds it")
    out.write(f"blob {ref.algorithm} {ref.size} {ref.root}\n".encode())
    buffer = chunk_buffer(ref)
    with source.open(ref) as reader:
        for chunk in range(ref.chunks):
            out.write(reader.read_chunk(chunk, buffer))
    out.write(b"\n")


class _Writer:
    """Writes on, and hashes what it writes."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._hasher = hashlib.sha256()

    def write(self, data: bytes | memoryview) -> None:
        self._hasher.update(data)
        self._stream.write(data)

    def record(self, line: str, raw: bytes) -> None:
        self.write(line.encode() + b"\n")
        self.write(raw)
        self.write(b"\n")

    def end(self) -> str:
        digest = self._hasher.hexdigest()
        self._stream.write(f"end {digest}\n".encode())
        return digest
