"""Packed tokens on disk, and batches from them: any step's batch can be computed again after a restart.

    magic "LLMOStok" | version u32 | bytes a token u32 | vocabulary u64 | tokens u64 | uint16 or uint32 …    little-endian

Documents follow each other, each ended by `<|endoftext|>`. The file is owner-only, since it is the institution's text in
another alphabet. It is read with preadv: resident memory stays flat whatever its size, and a file cut short is an error where
a mapped one would kill the process.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from io import FileIO
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from common.errors import StorageFailure, TooLittleData
from llmasos.atomic import replacing
from llmasos.datasets.packed import PackedFile
from llmasos.datasets.text import Document
from llmasos.tokenizers import end_of_document_id, vocab_size_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAGIC = b"LLMOStok"
VERSION = 1
_HEADER = struct.Struct("<8sIIQQ")
_FIX = "Remove it; it is made again from the text."

PIECE_CHARACTERS = 2**18
"""Documents are encoded in pieces of about so many characters: encoding needs memory of some 100 times its text."""
PIECES_AT_ONCE = 16

_BATCH_CONTEXT = b"llmasos/v1/batch\0"

Tokens = NDArray[np.int64]


def write_tokens(documents: Iterable[Document], tokenizer: Tokenizer, path: Path) -> int:
    """Encode the documents into `path`, each followed by `<|endoftext|>`; returns the number of tokens.

    Raises:
        StorageFailure: the file cannot be written.
    """
    end, vocab_size = end_of_document_id(tokenizer), vocab_size_of(tokenizer)
    dtype = _dtype(vocab_size)
    count = 0
    with replacing(path) as file:
        file.write(_HEADER.pack(MAGIC, VERSION, dtype.itemsize, vocab_size, 0))
        for piece, is_last in encoded_pieces(documents, tokenizer):
            ids = np.asarray([*piece, end] if is_last else piece, dtype=dtype)
            file.write(ids.data)
            count += ids.size
        file.seek(0)
        file.write(_HEADER.pack(MAGIC, VERSION, dtype.itemsize, vocab_size, count))
    return count


def encoded_pieces(documents: Iterable[Document], tokenizer: Tokenizer) -> Iterator[tuple[list[int], bool]]:
    """The documents' tokens piece by piece, so that memory stays bounded; with each, whether it is its document's last."""
    for group in _groups(chain.from_iterable(pieces_of(document.text) for document in documents)):
        texts = [text for text, _ in group]
        encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
        for encoding, (_, is_last) in zip(encodings, group, strict=True):
            yield encoding.ids, is_last


@dataclass(slots=True)
class TokenFile(PackedFile):
    """An open token file. Reads are positional, so several threads may share it."""

    path: Path
    vocab_size: int
    count: int
    """Tokens in the file, ends of documents included."""
    _dtype: np.dtype[np.uint16] | np.dtype[np.uint32] = field(repr=False)
    _file: FileIO = field(repr=False)
    _fix: ClassVar[str] = _FIX

    @classmethod
    def _of(cls, path: Path, file: FileIO, size: int) -> TokenFile:
        return cls(path, *_check_header(path, file.read(_HEADER.size), size), file)

    def read(self, start: int, length: int) -> Tokens:
        """Tokens `start` to `start + length - 1`, int64, shape (length,).

        Raises:
            IndexError: the file has no such tokens.
            StorageFailure: it was cut short since it was opened.
        """
        if not 0 <= start <= start + length <= self.count:
            raise IndexError(f"tokens {start} to {start + length - 1} of {self.count}")
        packed = np.empty(length, dtype=self._dtype)
        self._fill(packed.data.cast("B"), _HEADER.size + start * self._dtype.itemsize)
        return packed.astype(np.int64)


def batches(token_file: TokenFile, *, seed: int, step: int, batch_size: int, sequence_length: int) -> Tokens:
    """The batch of one step, a pure function of the file, `seed` and `step`.

    Row b is the window of `sequence_length` + 1 tokens that starts at r_b mod (count − sequence_length), where r_b is the b-th
    integer of Philox-4x64 from counter 0 under the key that is the first 16 bytes, little-endian, of
    SHA-256("llmasos/v1/batch" ‖ 0x00 ‖ seed ‖ step), both 8 bytes, little-endian. NumPy keeps that stream across versions.

    Returns:
        int64, shape (batch_size, sequence_length + 1): inputs are [:, :-1], targets [:, 1:].

    Raises:
        TooLittleData: the file holds less than one window.
    """
    starts = token_file.count - sequence_length
    if starts < 1:
        raise TooLittleData(
            f"{token_file.path} holds {token_file.count:,} tokens, one sequence needs {sequence_length + 1:,}.",
            "Offer more text, or choose a plan with a smaller local.sequence_length.",
        )
    material = _BATCH_CONTEXT + seed.to_bytes(8, "little") + step.to_bytes(8, "little")
    stream = np.random.Philox(key=int.from_bytes(hashlib.sha256(material).digest()[:16], "little"))
    drawn = [int(value) % starts for value in stream.random_raw(batch_size)]
    return np.stack([token_file.read(start, sequence_length + 1) for start in drawn])


def held_out_windows(token_file: TokenFile, sequence_length: int, max_tokens: int) -> Iterator[Tokens]:
    """Windows to measure a model on: int64, shape (n + 1,) for n predicted tokens, n ≤ `sequence_length`; Σn ≤ `max_tokens`.

    Windows lie end to end, so that no token is predicted twice; all but the file's last have n = `sequence_length`. Where the
    file holds more than `max_tokens`, the windows taken are spread evenly over it.

    Raises:
        TooLittleData: fewer than two tokens.
    """
    if token_file.count < 2:
        raise TooLittleData(f"{token_file.path} holds {token_file.count} held-out tokens, at least 2 are needed.")
    length = min(sequence_length, max_tokens)
    available = -(-(token_file.count - 1) // length)
    taken = min(available, max_tokens // length)
    for number in range(taken):
        start = (number * available // taken) * length
        yield token_file.read(start, min(length + 1, token_file.count - start))


def _dtype(vocab_size: int) -> np.dtype[np.uint16] | np.dtype[np.uint32]:
    return np.dtype("<u2") if vocab_size <= 65535 else np.dtype("<u4")


def _check_header(path: Path, header: bytes, size: int) -> tuple[int, int, np.dtype[np.uint16] | np.dtype[np.uint32]]:
    if len(header) < _HEADER.size:
        raise StorageFailure(f"{path} has {size} bytes, too few for a token file.", _FIX)
    magic, version, itemsize, vocab_size, count = _HEADER.unpack(header)
    if magic != MAGIC:
        raise StorageFailure(f"{path} is not a token file.", _FIX)
    dtype = _dtype(vocab_size)
    if version != VERSION or itemsize != dtype.itemsize:
        raise StorageFailure(f"{path} is a token file of version {version}, expected {VERSION}.", _FIX)
    if size != _HEADER.size + count * itemsize:
        raise StorageFailure(
            f"{path} has {size:,} bytes, its header gives {_HEADER.size + count * itemsize:,}: it was cut short.", _FIX
        )
    return vocab_size, count, dtype


def pieces_of(text: str) -> Iterator[tuple[str, bool]]:
    """A document in pieces that end at a line's end where there is one; with each, whether it is the last."""
    start = 0
    while len(text) - start > PIECE_CHARACTERS:
        line_end = text.rfind("\n", start, start + PIECE_CHARACTERS) + 1
        stop = line_end if line_end > start else start + PIECE_CHARACTERS
        yield text[start:stop], False
        start = stop
    yield text[start:], True


def _groups(pieces: Iterator[tuple[str, bool]]) -> Iterator[list[tuple[str, bool]]]:
    """Pieces by the dozen, so that the tokenizer's threads have work and memory stays bounded."""
    group: list[tuple[str, bool]] = []
    for piece in pieces:
        group.append(piece)
        if len(group) == PIECES_AT_ONCE:
            yield group
            group = []
    if group:
        yield group
