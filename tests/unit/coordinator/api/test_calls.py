from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from common.clock import ManualClock
from common.errors import UnknownCertificate
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
    assert list(scene.call.received(iter([1, 2, 3]))) == [1, 2, 3]
    assert list(scene.call.sent(iter([1, 2, 3]))) == [1, 2, 3]


@pytest.mark.parametrize("direction", ["received", "sent"])
def test_a_revoked_member_is_stopped_at_the_next_message(scene: Scene, direction: str) -> None:
    messages: Iterator[Any] = getattr(scene.call, direction)(iter([1, 2]))
    assert next(messages) == 1
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

    def messages() -> Iterator[int]:
        yield 1
        scene.clock.advance(seconds=60)
        ended.append(scene.open_calls.sweep())
        scene.clock.advance(seconds=1)
        ended.append(scene.open_calls.sweep())

    assert list(scene.call.received(messages())) == [1]
    assert ended == [0, 1]


def test_the_sweep_ends_a_call_whose_peer_reads_nothing(scene: Scene) -> None:
    next(scene.call.sent(iter([1, 2])))
    scene.clock.advance(seconds=61)
    assert scene.open_calls.sweep() == 1


def test_our_own_work_is_not_idleness(scene: Scene) -> None:
    next(scene.call.received(iter([1, 2])))
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
