from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

from common.clock import ManualClock
from common.errors import TooManyRequests, UnknownCertificate
from common.identity.keys import SigningKey
from common.statements.kinds import Member
from coordinator.api.calls import Call, Caller, OpenCalls

NORTH = Member(name="north", signing_key=SigningKey.generate().public, roles=("trainer",))


class Context:
    """grpc's, as far as a call looks at it."""

    def __init__(self) -> None:
        self.cancelled = False

    def is_active(self) -> bool:
        return not self.cancelled

    def cancel(self) -> None:
        self.cancelled = True


class Roster:
    """One member, until revoked."""

    def __init__(self) -> None:
        self.revoked = False

    def still_active(self) -> Member:
        if self.revoked:
            raise UnknownCertificate("north was revoked.")
        return NORTH


class Scene:
    def __init__(self) -> None:
        self.clock, self.context, self.roster = ManualClock(), Context(), Roster()
        self.call = Call(self.context, self.clock, Caller(NORTH, self.roster.still_active))
        self.open_calls = OpenCalls(idle_seconds=60)
        self.open_calls.add(self.call)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_stream_goes_on_while_its_caller_is_a_member(scene: Scene) -> None:
    assert list(scene.call.received(iter([b"1", b"2", b"3"]))) == [b"1", b"2", b"3"]
    assert list(scene.call.sent(iter([1, 2, 3]))) == [1, 2, 3]


@pytest.mark.parametrize("direction", ["received", "sent"])
def test_a_revoked_member_is_stopped_at_the_next_message(scene: Scene, direction: str) -> None:
    messages: Iterator[Any] = getattr(scene.call, direction)(iter([b"1", b"2"]))
    assert next(messages) == b"1"
    scene.roster.revoked = True
    with pytest.raises(UnknownCertificate, match=r"north was revoked\."):
        next(messages)


def test_the_sweep_ends_calls_of_the_revoked(scene: Scene) -> None:
    assert scene.open_calls.sweep() == 0
    scene.roster.revoked = True
    assert scene.open_calls.sweep() == 1
    assert scene.context.cancelled


def test_the_sweep_ends_a_call_whose_peer_sends_nothing(scene: Scene) -> None:
    ended: list[int] = []

    def messages() -> Iterator[bytes]:
        yield b"1"
        scene.clock.advance(seconds=60)
        ended.append(scene.open_calls.sweep())
        scene.clock.advance(seconds=1)
        ended.append(scene.open_calls.sweep())

    assert list(scene.call.received(messages())) == [b"1"]
    assert ended == [0, 1]


def test_the_sweep_ends_a_call_whose_peer_reads_nothing(scene: Scene) -> None:
    next(scene.call.sent(iter([1, 2])))
    scene.clock.advance(seconds=61)
    assert scene.open_calls.sweep() == 1


def dripping(scene: Scene, seconds: float, size: int, count: int) -> Iterator[bytes]:
    """A message of `size` bytes every so many seconds."""
    for _ in range(count):
        scene.clock.advance(seconds=seconds)
        yield bytes(size)


def test_a_stream_that_only_drips_is_ended_within_two_waits(scene: Scene) -> None:
    messages = scene.call.received(dripping(scene, 1, 1, 1000))
    assert sum(map(len, islice(messages, 60))) == 60
    with pytest.raises(TooManyRequests, match=r"The stream brought 61 bytes in 61 seconds of waiting") as err:
        next(messages)
    assert "Begin says which are missing" in err.value.fix


def test_a_slow_link_is_no_drip(scene: Scene) -> None:
    """256 KiB in 50 seconds is 5 KiB a second."""
    assert len(list(scene.call.received(dripping(scene, 50, 256 * 1024, 100)))) == 100


def test_the_time_that_we_take_for_a_message_does_not_count_against_its_sender(scene: Scene) -> None:
    for _ in scene.call.received(dripping(scene, 0.5, 1, 100)):
        scene.clock.advance(seconds=100)


def test_a_call_that_is_ended_early_is_logged_with_who_and_why(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.call.method = "/llmasos.v1.Blobs/Put"
    scene.roster.revoked = True
    scene.open_calls.sweep()
    logged = [(record.getMessage(), record.institution, record.method, record.reason) for record in caplog.records]  # type: ignore[attr-defined]
    assert logged == [("call ended early", "north", "/llmasos.v1.Blobs/Put", "revoked")]


def test_our_own_work_is_not_idleness(scene: Scene) -> None:
    next(scene.call.received(iter([b"1", b"2"])))
    scene.clock.advance(seconds=3600)
    assert scene.open_calls.sweep() == 0


def test_a_call_that_ended_is_not_swept(scene: Scene) -> None:
    scene.open_calls.remove(scene.call)
    scene.roster.revoked = True
    assert (scene.open_calls.sweep(), len(scene.open_calls), scene.context.cancelled) == (0, 0, False)


def test_nobody_is_known_on_the_enrolment_listener() -> None:
    call = Call(Context(), ManualClock(), None)
    call.check()
    with pytest.raises(RuntimeError, match="a call on the enrolment listener has no member"):
        _ = call.member
