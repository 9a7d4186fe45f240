"""What names a blob and what comes of it: references as JSON, leaf lists, and a stream of pieces. 1 byte chooses which."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from common import strict_json
from common.blobs import digest
from common.blobs.incoming import IncomingChunk
from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.wire.chunks import ChunkReceiver
from common.wire.convert import put_header_to_wire
from common.wire.framing import frame_put, unframe_put
from common.wire.messages import Piece, Purpose
from coordinator.api.convert import put_from_wire
from tests.fuzz.harness import Target

LEAVES = b"".join(digest.leaf("sha256", part) for part in (b"one", b"two", b"three"))
REF = BlobRef(
    algorithm="sha256",
    size=2 * CHUNK_BYTES + 5,
    root=digest.root_of("sha256", list(digest.split_leaves(LEAVES))).hex(),
)
SMALL = BlobRef(algorithm="blake3", size=11, root="a1" * 32)


def entry(data: bytes) -> None:
    match data[:1]:
        case b"r":
            reference(data[1:])
        case b"l":
            digest.check_leaves(REF, data[1:])
            assert data[1:] == LEAVES
        case b"p":
            pieces(data[1:])


def reference(content: bytes) -> None:
    value = strict_json.loads(content, max_bytes=1_000)
    ref = strict_json.validate(BlobRef, value)
    assert ref.chunk_size(ref.chunks - 1) > 0 if ref.size else ref.chunks == 0
    assert strict_json.dumps(ref.model_dump(mode="json")) == strict_json.dumps(value)


def pieces(content: bytes) -> None:
    """Messages of a stream, each after its length as 2 bytes."""
    messages = []
    while content:
        end = 2 + int.from_bytes(content[:2], "big")
        try:
            messages.append(unframe_put(content[2:end]))
        except DecodeError:  # gRPC answers these itself
            return
        content = content[end:]
    request, parts = put_from_wire(iter(messages))
    with ChunkReceiver(Blob(request.ref)) as receiver:
        for piece in parts:
            finished = receiver.add(piece)
            assert finished is None or finished == request.ref.chunk_size(piece.chunk)
        receiver.finish()


class Blob:
    """A blob on its way in that is stored nowhere; no leaf is known, so every whole chunk is corrupt."""

    def __init__(self, ref: BlobRef) -> None:
        self.ref = ref

    def incoming(self, chunk: int) -> IncomingChunk:
        return IncomingChunk(self.ref, b"", chunk, None)


def seeds() -> list[bytes]:
    purpose = Purpose(round_opened="b2" * 32)
    sent = [put_header_to_wire(SMALL, purpose), *(Piece(0, at, b"piece"[: 11 - at]) for at in (0, 5, 10))]
    stream = b"".join(len(each).to_bytes(2, "big") + each for each in map(frame_put, sent))
    return [b"r" + strict_json.dumps(REF.model_dump(mode="json")), b"l" + LEAVES, b"p" + stream]


TARGET = Target(entry, seeds(), max_bytes=4_096, is_json=True)
