"""A delta blob's numbers, one chunk at a time: the window through which rules and checks see it."""

from __future__ import annotations

from common import tensors
from common.blobs.reader import BlobStream, ChunkSource
from common.blobs.reference import CHUNK_BYTES
from common.codecs.base import DeltaCodec, Float32s
from common.errors import WrongTensors


class DeltaWindow:
    """Decodes chunk after chunk of blobs that share one header, into one reused buffer."""

    def __init__(self, codec: DeltaCodec, header: bytes) -> None:
        self._codec = codec
        self._header = header
        self._size = len(header) + tensors.data_bytes(header)
        self._buffer = memoryview(bytearray(min(self._size, CHUNK_BYTES)))
        self.chunks = -(-self._size // CHUNK_BYTES)
        self.max_elements = codec.elements(min(self._size - len(header), CHUNK_BYTES))

    def elements(self, index: int) -> int:
        """How many numbers chunk `index` holds; none where the header fills it."""
        end = min(self._size, (index + 1) * CHUNK_BYTES)
        begin = max(len(self._header), index * CHUNK_BYTES)
        return self._codec.elements(max(0, end - begin))

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

    def values(self, source: ChunkSource, index: int) -> Float32s:
        """The numbers in chunk `index`; valid until the next call. The header's part of it is checked and left out.

        Raises:
            WrongTensors: the header is not the manifest's.
            CorruptChunk: the bytes changed on disk.
        """
        chunk = source.read_chunk(index, self._buffer)
        lead = self._header[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
        if lead and bytes(chunk[: len(lead)]) != lead:
            tensors.check_header(read_head(source), self._header)
        return self._codec.decode(chunk[len(lead) :])


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
