"""A delta blob's numbers: checks see one chunk at a time, rules one window.

A window is a chunk's numbers or, where a chunk holds millions of them, an equal part of them: whole blocks, at most
`WINDOW_ELEMENTS`. So memory is bounded by numbers, whatever the codec. A chunk is read and hashed again for each of its
windows, which takes less than a tenth of what adding its numbers up takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from common import tensors
from common.blobs.reader import BlobStream, ChunkSource
from common.blobs.reference import CHUNK_BYTES
from common.codecs.base import PIECE_ELEMENTS, DeltaCodec, Fault, Float32s
from common.errors import WrongTensors

WINDOW_ELEMENTS = 4_200_000
"""The most numbers of a window; a chunk of `int8` holds 4.06 million."""


class DeltaWindow:
    """Reads chunk after chunk of blobs of the same tensors into one buffer, and decodes them in pieces into another."""

    def __init__(self, codec: DeltaCodec, tensors_header: bytes) -> None:
        """
        Args:
            codec: the plan's.
            tensors_header: which tensors, as `common.tensors` writes it; how many numbers there are comes from it alone.
        """
        self._codec = codec
        self._header = codec.header_over(tensors_header)
        self.all_elements = tensors.data_bytes(tensors_header) // tensors.ELEMENT_BYTES
        blocks = -(-self.all_elements // codec.block_elements)
        self._size = len(self._header) + blocks * codec.block_bytes
        self._buffer = memoryview(bytearray(min(self._size, CHUNK_BYTES)))
        # What is only looked at takes no room, and each piece costs a moment of Python's.
        at_once = CHUNK_BYTES // codec.block_bytes if codec.is_view else max(1, PIECE_ELEMENTS // codec.block_elements)
        self._piece_bytes = at_once * codec.block_bytes
        room = 0 if codec.is_view else min(at_once, blocks) * codec.block_elements
        self._piece: Float32s = np.empty(room, dtype=np.float32)
        self.chunks = -(-self._size // CHUNK_BYTES)
        chunk_blocks = CHUNK_BYTES // codec.block_bytes
        self._parts = -(-chunk_blocks * codec.block_elements // WINDOW_ELEMENTS)
        """Windows of a chunk."""
        self._window_blocks = -(-chunk_blocks // self._parts)
        in_last_chunk = blocks - self._blocks_before(self.chunks - 1)
        self.windows = (self.chunks - 1) * self._parts + max(1, -(-in_last_chunk // self._window_blocks))
        self.max_elements = min(self.all_elements, min(blocks, self._window_blocks) * codec.block_elements)
        """The most numbers that a window holds."""

    def numbers(self, read: Callable[[int, memoryview], None], first: int, end: int) -> Float32s:
        """The numbers from `first` to before `end`, or to the last, shape (N,), decoded into new memory.

        Args:
            read: fills a buffer from that byte of the blob on.
        """
        end = min(end, self.all_elements)
        start, beyond, before = self.span(first, end)
        encoded = memoryview(bytearray(beyond - start))
        read(start, encoded)
        decoded_N = self._codec.decode(encoded, np.empty(self._codec.elements(len(encoded)), np.float32))
        return decoded_N[before : before + end - first]

    def span(self, first: int, end: int) -> tuple[int, int, int]:
        """Where the numbers from `first` to before `end` are: the blob's bytes from and to before, and how many others lead."""
        block, beyond = first // self._codec.block_elements, -(-end // self._codec.block_elements)
        start = len(self._header) + block * self._codec.block_bytes
        size = (beyond - block) * self._codec.block_bytes
        return start, start + size, first - block * self._codec.block_elements

    def elements(self, index: int) -> int:
        """How many numbers chunk `index` holds; none where the header fills it."""
        return self.elements_before(index + 1) - self.elements_before(index)

    def elements_before(self, index: int) -> int:
        """How many numbers come before chunk `index`."""
        return min(self.all_elements, self._blocks_before(index) * self._codec.block_elements)

    def _blocks_before(self, index: int) -> int:
        return max(0, min(self._size, index * CHUNK_BYTES) - len(self._header)) // self._codec.block_bytes

    def check_size(self, source: ChunkSource) -> None:
        """
        Raises:
            WrongTensors: the blob's size is not the header's plus its data's; says which tensor differs, if its header does.
        """
        if source.ref.size != self._size:
            tensors.check_header(read_head(source), self._header)
            raise WrongTensors(
                f"Blob {source.ref} has {source.ref.size:,} bytes, expected {self._size:,} for its tensors."
            )

    def read(self, source: ChunkSource, index: int) -> memoryview:
        """The encoded numbers in chunk `index`; valid until the next call. The header's part of it is checked and left out.

        Raises:
            WrongTensors: the header is not the manifest's.
            CorruptChunk: the bytes changed on disk.
        """
        return self.read_whole(source, index)[max(0, len(self._header) - index * CHUNK_BYTES) :]

    def read_whole(self, source: ChunkSource, index: int) -> memoryview:
        """Chunk `index`, the header's part of it checked and left in; valid until the next call.

        Raises:
            WrongTensors, CorruptChunk: as `read`.
        """
        chunk = source.read_chunk(index, self._buffer)
        lead = self._header[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
        if lead and bytes(chunk[: len(lead)]) != lead:
            tensors.check_header(read_head(source), self._header)
        return chunk

    def fault(self, encoded: memoryview, index: int) -> Fault | None:
        """What the codec's layout does not allow in chunk `index`, which was just read; counted from the blob's first block."""
        found = self._codec.fault(encoded, self.elements(index))
        if found is None:
            return None
        before = self.elements_before(index)
        return Fault(
            found.block + before // self._codec.block_elements,
            None if found.element is None else found.element + before,
            found.found,
            found.expected,
            found.non_finite,
        )

    def pieces(self, encoded: memoryview, index: int) -> Iterator[Float32s]:
        """The numbers in chunk `index`, just read, a chunk, 65,536 or a block at a time; each piece is valid until the next."""
        yield from self._pieces(encoded, self.elements(index))

    def _pieces(self, encoded: memoryview, left: int) -> Iterator[Float32s]:
        for start in range(0, len(encoded), self._piece_bytes):
            piece_N = self._codec.decode(encoded[start : start + self._piece_bytes], self._piece)[:left]
            left -= len(piece_N)
            yield piece_N

    def values(self, source: ChunkSource, index: int) -> Iterator[Float32s]:
        """`read` and its `pieces`.

        Raises:
            WrongTensors, CorruptChunk: as `read`.
        """
        yield from self.pieces(self.read(source, index), index)

    # --- windows -------------------------------------------------------------------------------------------------------------

    def window_elements(self, window: int) -> int:
        """How many numbers that window holds; none where the header fills its part of a chunk."""
        first, beyond = self._window(window)
        return min(self.all_elements, beyond * self._codec.block_elements) - first * self._codec.block_elements

    def _window(self, window: int) -> tuple[int, int]:
        """Its first block, and the first one behind it."""
        chunk, part = window // self._parts, window % self._parts
        end = self._blocks_before(chunk + 1)
        first = min(end, self._blocks_before(chunk) + part * self._window_blocks)
        return first, min(end, first + self._window_blocks)

    def window_values(self, source: ChunkSource, window: int) -> Iterator[Float32s]:
        """Its numbers, a chunk, 65,536 or a block at a time; each piece is valid until the next.

        Raises:
            WrongTensors, CorruptChunk: as `read`.
        """
        chunk = window // self._parts
        encoded = self.read(source, chunk)
        first, beyond = (block - self._blocks_before(chunk) for block in self._window(window))
        block_bytes = self._codec.block_bytes
        yield from self._pieces(encoded[first * block_bytes : beyond * block_bytes], self.window_elements(window))


def read_head(source: ChunkSource) -> bytes:
    """A blob's header, as long as it says it is, or what there is of it.

    Raises:
        WrongTensors: it says too much, so nothing of that size is read.
    """
    stream = BlobStream(source)
    length = bytes(stream.take(8))
    head = bytearray(length)
    declared = tensors.declared_header_bytes(length)
    while len(head) < declared and (piece := stream.take(declared - len(head))):
        head += piece
    return bytes(head)
