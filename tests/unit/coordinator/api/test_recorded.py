"""Which refused calls are told to whoever keeps refusals: what a member sent that counts, and that is no honest mishap."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest

from common.blobs.reference import BlobRef
from common.errors import (
    BlobTooLarge,
    RefusalError,
    RoundNotOpen,
    TooManyRequests,
    UnknownCertificate,
    WrongParent,
)
from common.wire import convert
from common.wire.messages import Piece
from coordinator.ports import UploadPurpose
from coordinator.refusals import RECORDED_OF_CALLS
from tests.support.api import ROUND, Scene
from tests.support.blobs import leaves_and_ref

LEAVES, REF = leaves_and_ref(b"content")
PURPOSE = UploadPurpose(round_opened="ab" * 32)


def begin(scene: Scene, ref: BlobRef = REF, leaves: bytes = LEAVES) -> None:
    scene.session("north").stubs().blobs.Begin(convert.begin_request_to_wire(ref, leaves, ROUND))


def put(*pieces: Piece) -> Callable[[Scene], None]:
    def call(scene: Scene) -> None:
        begin(scene)
        messages = [convert.put_header_to_wire(REF, ROUND), *map(convert.put_piece_to_wire, pieces)]
        scene.session("north").stubs().blobs.Put(iter(messages))

    return call


def refused_by(error: RefusalError) -> Callable[[Scene], None]:
    def call(scene: Scene) -> None:
        scene.ports.access.refusal = error
        begin(scene)

    return call


def submit(failure: RefusalError | None, content: bytes = b"{}") -> Callable[[Scene], None]:
    def call(scene: Scene) -> None:
        scene.ports.desk.failure = failure
        scene.session("north").stubs().work.Submit(convert.submit_request_to_wire(content, None))

    return call


NOTED: dict[str, tuple[Callable[[Scene], None], str, UploadPurpose | None]] = {
    "a corrupted chunk": (put(Piece(0, 0, b"CONTENT")), "corrupt-chunk", PURPOSE),
    "a chunk too long": (put(Piece(0, 0, b"content!")), "truncated-chunk", PURPOSE),
    "a chunk that the blob has not": (put(Piece(7, 0, b"content")), "malformed-message", PURPOSE),
    "a blob too large": (refused_by(BlobTooLarge("large")), "blob-too-large", PURPOSE),
    "too many blobs": (refused_by(TooManyRequests("many")), "too-many-requests", PURPOSE),
    "leaves that do not fit": (lambda scene: begin(scene, leaves=bytes(32)), "bad-blob-reference", PURPOSE),
    "a statement that is empty": (submit(None, b""), "malformed-message", None),
}


@pytest.mark.parametrize("what", NOTED)
def test_it_is_noted_once_with_what_it_was_for(scene: Scene, what: str) -> None:
    call, code, purpose = NOTED[what]
    with pytest.raises(grpc.RpcError):
        call(scene)
    assert scene.ports.refusals.noted == [("north", code, purpose)]


FORGIVEN: dict[str, Callable[[Scene], None]] = {
    "a stream that ends in a chunk": put(Piece(0, 0, b"con")),
    "what the desk refused and recorded": submit(WrongParent("elsewhere")),
}


@pytest.mark.parametrize("what", FORGIVEN)
def test_it_is_answered_and_not_noted(scene: Scene, what: str) -> None:
    with pytest.raises(grpc.RpcError):
        FORGIVEN[what](scene)
    assert scene.ports.refusals.noted == []


@pytest.mark.parametrize("error", [RoundNotOpen("over"), UnknownCertificate("gone")])
def test_the_book_keeps_nothing_that_comes_to_the_honest_too(error: RefusalError) -> None:
    assert not isinstance(error, RECORDED_OF_CALLS)
