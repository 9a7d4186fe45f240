"""A daemon ends on a signal, or when the process that started it is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from common import daemon
from common.daemon import bound_memory, stop_event

DAEMON = """
import sys
from common.daemon import stop_event
stopping = stop_event(int(sys.argv[1]) if len(sys.argv) > 1 else None)
print("ready", flush=True)
stopping.wait()
print("ended in order", flush=True)
"""


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def pipe() -> Iterator[tuple[int, list[int]]]:
    """The reading end, and the writing ends that are still open."""
    reading, writing = os.pipe()
    open_ends = [writing]
    yield reading, open_ends
    for end in open_ends:
        os.close(end)
    for thread in threading.enumerate():
        if thread.name == "lifeline":
            thread.join(10)
    os.close(reading)


class Glibc:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def mallopt(self, option: int, value: int) -> None:
        self.told.append((option, value))


def test_the_allocator_is_told_to_keep_two_arenas(monkeypatch: pytest.MonkeyPatch) -> None:
    libc = Glibc()
    monkeypatch.setattr(daemon.ctypes, "CDLL", lambda _name: libc)
    bound_memory()
    assert libc.told == [(-8, 2)]


def test_another_allocator_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon.ctypes, "CDLL", lambda _name: object())
    bound_memory()


def test_nothing_stops_it_before_its_time(pipe: tuple[int, list[int]]) -> None:
    assert not stop_event(pipe[0]).is_set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it(number: signal.Signals) -> None:
    stopping = stop_event()
    os.kill(os.getpid(), number)
    assert stopping.wait(10)


def test_the_end_of_the_lifeline_stops_it_and_bytes_on_it_do_not(pipe: tuple[int, list[int]]) -> None:
    reading, open_ends = pipe
    stopping = stop_event(reading)
    os.write(open_ends[0], b"still here")
    assert not stopping.is_set()
    os.close(open_ends.pop())
    assert stopping.wait(10)


def test_it_ends_when_its_parent_is_killed() -> None:
    """The parent holds the pipe's writing end and is killed: nobody says goodbye."""
    reading, writing = os.pipe()
    parent = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], pass_fds=[writing], stdin=subprocess.PIPE
    )
    os.close(writing)
    with subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(reading)], pass_fds=[reading], stdout=subprocess.PIPE
    ) as child:
        os.close(reading)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        parent.kill()
        assert child.stdout.readline() == b"ended in order\n"
        assert child.wait(10) == 0
    with parent:
        pass
