"""A revoked member gets and sends no byte a second later: in the middle of an upload, on an idle stream, on a long poll.

Real listeners and real time, in one process; the roster is a fake that a test changes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc

from common.blobs.reference import CHUNK_BYTES
from common.wire import convert
from common.wire.messages import Piece
from tests.support.api import ROUND, Held, Scene, until


def ended_within(started: float) -> float:
    return time.monotonic() - started


def test_a_member_revoked_in_the_middle_of_an_upload_sends_nothing_a_second_later(scene: Scene) -> None:
    """It sends on and on; the coordinator cancels the call, and no chunk is taken after that."""
    content = bytes(64 * CHUNK_BYTES)
    ref = scene.consortium.blob(content)
    store, taken = scene.consortium.store, scene.ports.moved
    leaves = store.leaves(ref)
    store.delete(ref)
    north = scene.session("north")
    north.stubs().blobs.Begin(convert.begin_request_to_wire(ref, leaves, ROUND))
    over = threading.Event()

    def messages() -> Iterator[Any]:
        yield convert.put_header_to_wire(ref, ROUND)
        for chunk in range(64):
            for offset in range(0, CHUNK_BYTES, 65_536):
                if over.wait(0.002):
                    return
                yield convert.put_piece_to_wire(Piece(chunk, offset, bytes(65_536)))

    call = north.stubs().blobs.Put.future(messages())
    until(lambda: taken.up.get("north", 0) > 0)
    scene.ports.members.revoke("north")
    started = time.monotonic()
    until(call.done)
    assert ended_within(started) < 1.0
    assert call.code() in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.CANCELLED}
    moved = taken.up["north"]
    until(lambda: ended_within(started) > 1.2)
    assert taken.up["north"] == moved
    over.set()


def test_a_member_revoked_on_an_idle_stream_is_cut_off_within_a_second(scene: Scene) -> None:
    ref = scene.consortium.blob(bytes(3 * CHUNK_BYTES), "north")
    held = Held(scene, scene.session("north"), ref, count=3)
    scene.ports.members.revoke("north")
    started = time.monotonic()
    until(lambda: all(call.done() for call in held.calls))
    assert ended_within(started) < 1.0
    held.end.set()


def test_a_member_revoked_while_it_waits_for_the_ledger_gets_no_entry_any_more(scene: Scene) -> None:
    north, got = scene.session("north"), []

    def follow() -> None:
        try:
            got.append(north.follow(from_index=0, wait_seconds=30).envelopes)
        except Exception as error:  # noqa: BLE001  told to the test's thread
            got.append(error)

    waiting = threading.Thread(target=follow)
    waiting.start()
    until(lambda: scene.listeners.open_calls == 1)
    scene.ports.members.revoke("north")
    started = time.monotonic()
    waiting.join(10)
    assert ended_within(started) < 1.2
    assert isinstance(got[0], Exception)
