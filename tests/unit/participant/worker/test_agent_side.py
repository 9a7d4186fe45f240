"""The worker's end of the socket: order, flags, and an agent that speaks badly or goes away."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from participant.bench.worker_protocol import FROM_WORKER, Evaluate, Progress, Snapshot, Stop, encode
from participant.worker.agent_side import AgentSide


@pytest.fixture
def pair() -> Iterator[tuple[AgentSide, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        side = AgentSide(ours)
        yield side, theirs
        theirs.close()
        side.join()


def test_messages_come_in_order_and_wishes_as_flags(pair: tuple[AgentSide, socket.socket]) -> None:
    side, agent = pair
    agent.sendall(encode(Snapshot()) + encode(Evaluate(round=1, base="b")) + encode(Stop()))
    assert side.receive() == Evaluate(round=1, base="b")
    assert side.receive() == Stop()
    assert side.snapshot_wanted.is_set()
    assert side.stop_wanted.is_set()


def test_a_line_that_is_no_message_is_answered_and_passed_over(pair: tuple[AgentSide, socket.socket]) -> None:
    side, agent = pair
    agent.sendall(b'{"type": "dance"}\n' + encode(Evaluate(round=2, base="b")))
    assert side.receive() == Evaluate(round=2, base="b")
    answer = FROM_WORKER.validate_json(agent.makefile("rb").readline())
    assert (answer.type, answer.message) == ("error", "The agent's line is no message.")


def test_a_closed_connection_is_a_stop(pair: tuple[AgentSide, socket.socket]) -> None:
    side, agent = pair
    agent.close()
    assert side.receive() == Stop()


def test_telling_an_agent_that_is_gone_asks_the_worker_to_end(pair: tuple[AgentSide, socket.socket]) -> None:
    side, agent = pair
    agent.close()
    for _ in range(3):
        side.send(Progress(round=1, activity="training"))
    assert side.stop_wanted.is_set()
