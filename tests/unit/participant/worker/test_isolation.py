"""How far a worker is kept apart from its agent: claimed only where it is so."""

from __future__ import annotations

import os
import socket

import pytest

from participant.worker.isolation import is_isolated

LOOPBACK, NETWORK = [(1, "lo")], [(1, "lo"), (2, "eth0")]


@pytest.mark.parametrize(
    ("agent_uid", "interfaces", "expected"),
    [
        (os.getuid() + 1, LOOPBACK, True),
        (os.getuid(), LOOPBACK, False),
        (os.getuid() + 1, NETWORK, False),
        (os.getuid() + 1, [], True),
    ],
)
def test_isolated_is_another_user_without_a_network(
    monkeypatch: pytest.MonkeyPatch, agent_uid: int, interfaces: list[tuple[int, str]], expected: bool
) -> None:
    monkeypatch.setattr(socket, "if_nameindex", lambda: interfaces)
    assert is_isolated(agent_uid) is expected
