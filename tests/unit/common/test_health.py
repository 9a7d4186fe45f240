"""Alive or not, ready or not, and what a service manager hears of it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.clock import ManualClock
from common.health import STALE_SECONDS, Health, Heartbeat
from common.service_manager import ServiceManager


def test_what_is_dead_is_not_ready() -> None:
    health = Health([lambda: "It hangs."], [lambda: None, lambda: "The disk is full."])
    assert health.alive() == ("It hangs.",)
    assert health.ready() == ("It hangs.", "The disk is full.")
    assert Health().ready() == ()


def test_a_heart_that_stops_is_found() -> None:
    clock = ManualClock()
    heart = Heartbeat(clock, what="The engine")
    clock.advance(seconds=STALE_SECONDS)
    assert heart.fault() is None
    clock.advance(seconds=1)
    assert heart.fault() == f"The engine has not gone round for {STALE_SECONDS + 1:.0f} s."
    heart.beat()
    assert heart.fault() is None


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """systemd's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(30)
        yield listening


def told(manager: socket.socket, usec: int = 30_000, **more: str) -> dict[str, str]:
    """The environment that systemd gives."""
    return {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": str(usec), **more}


def test_the_manager_hears_that_the_daemon_is_ready_lives_and_ends(manager: socket.socket) -> None:
    daemon = ServiceManager(Health(), told(manager, WATCHDOG_PID=str(os.getpid())))
    daemon.ready()
    assert [manager.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
    daemon.stopping()
    while (word := manager.recv(100)) == b"WATCHDOG=1":
        pass
    assert word == b"STOPPING=1"


def test_a_daemon_that_hangs_is_silent_and_says_why_once(
    manager: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[int] = []

    def hangs() -> str:
        asked.append(1)
        return "It hangs."

    daemon = ServiceManager(Health([hangs]), told(manager))
    daemon.ready()
    while len(asked) < 4:
        pass
    daemon.stopping()
    assert [manager.recv(100), manager.recv(100)] == [b"READY=1", b"STOPPING=1"]
    assert caplog.messages.count("not alive") == 1


@pytest.mark.parametrize("environment", [{}, {"WATCHDOG_USEC": "30000"}, {"NOTIFY_SOCKET": ""}])
def test_without_a_manager_nothing_is_said(environment: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    daemon = ServiceManager(Health(), environment)
    daemon.ready()
    daemon.stopping()
    assert caplog.messages == []


def test_a_watchdog_for_another_process_is_not_ours(manager: socket.socket) -> None:
    daemon = ServiceManager(Health(), told(manager, WATCHDOG_PID="1"))
    daemon.ready()
    daemon.stopping()
    assert [manager.recv(100), manager.recv(100)] == [b"READY=1", b"STOPPING=1"]


def test_a_manager_that_is_gone_is_no_reason_to_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ServiceManager(Health(), {"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()
    assert caplog.messages == ["service manager not reached"]
