"""The other ranks of this worker: processes that rank 0 starts, gives the agent's work to, and never leaves behind.

    peers = Peers.start(4, ("--store", "…"), on_lost=tell_the_agent_and_end)
    peers.send(message)             # to all of them; then rank 0 does the same itself
    peers.settle()                  # all are done with it

Rank 0 is to them what the agent is to rank 0: the same program, the same messages, through a pair of sockets in place of one
with a path. They inherit its environment, account and network namespace. Each has a lifeline of its own, so that they end when
rank 0 does, however it dies; and where one of them ends or fails alone, the worker ends, since the others would wait for it in
the middle of a sum. Imports no torch: ranks import it at the same time.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from common.errors import LLMasOSError, WorkerFailed, WorkerKilled
from participant.bench.worker_link import FROM_OUTSIDE, error_from
from participant.bench.worker_protocol import (
    FROM_WORKER,
    FromWorker,
    Hello,
    Message,
    Prepared,
    Result,
    WorkerError,
    encode,
)

log = logging.getLogger(__name__)

SETTLE_SECONDS: Final = 5.0
"""What fails for all ranks fails for all of them within this time."""
_END_SECONDS = 5.0
_LOOPBACK = "lo" if sys.platform == "linux" else "lo0"
_COMMAND = (sys.executable, "-P", "-m", "participant.worker")

OnLost = Callable[[LLMasOSError | None], None]
"""Told at most once, from a thread: the worker can do no more. Must end this process; None: nobody waits for an answer."""


@dataclass(frozen=True, slots=True)
class _Peer:
    rank: int
    process: subprocess.Popen[bytes]
    connection: socket.socket
    lifeline: int


def keep_to_loopback() -> None:
    """Ranks speak TCP with each other: through no interface but loopback, in this process and those that it starts."""
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = _LOOPBACK


class Peers:
    """All ranks but 0. Methods are for rank 0's main thread."""

    def __init__(self, on_lost: OnLost) -> None:
        self._on_lost = on_lost
        self._peers: list[_Peer] = []
        self._changed = threading.Condition()
        self._answers: dict[int, FromWorker] = {}
        self._working, self._closing = True, False  # as if they had been asked for their hello
        self._timers: list[threading.Timer] = []

    @classmethod
    def start(cls, ranks: int, words: Sequence[str], *, on_lost: OnLost) -> Peers:
        """Start ranks 1 to `ranks` - 1, with these words of the command line besides; they wait for rank 0 at its store."""
        peers = cls(on_lost)
        for rank in range(1, ranks):
            peer = _start(rank, ["--ranks", str(ranks), *words])
            peers._peers.append(peer)
            threading.Thread(target=peers._read, args=(peer,), name=f"rank-{rank}", daemon=True).start()
        return peers

    def send(self, message: Message) -> None:
        """Give all of them the same work."""
        with self._changed:
            self._answers, self._working = {}, True
        for peer in self._peers:
            try:
                peer.connection.sendall(encode(message))
            except OSError:
                log.warning("rank %d takes no messages", peer.rank)  # it ended, which its reader tells

    def settle(self) -> None:
        """Wait until all are done with what was sent last, if anything was.

        Raises:
            LLMasOSError: one of them failed.
        """
        with self._changed:
            if not self._working:
                return
            self._changed.wait_for(lambda: len(self._answers) == len(self._peers))
        for answer in self._end_work().values():
            if isinstance(answer, WorkerError):
                raise error_from(answer)

    def settle_after_failure(self) -> bool:
        """Rank 0 failed; whether the others are done, too, and not in the middle of something that it will not join."""
        with self._changed:
            if not self._working:
                return True
            settled = self._changed.wait_for(lambda: len(self._answers) == len(self._peers), SETTLE_SECONDS)
        self._end_work()
        return settled

    def close(self) -> None:
        """End all of them."""
        with self._changed:
            self._closing = True
        for peer in self._peers:
            os.close(peer.lifeline)
        for peer in self._peers:
            try:
                peer.process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                peer.process.kill()
                peer.process.wait()

    def _end_work(self) -> dict[int, FromWorker]:
        with self._changed:
            self._working = False
            timers, self._timers = self._timers, []
        for timer in timers:
            timer.cancel()
        return self._answers

    def _read(self, peer: _Peer) -> None:
        """A peer's answers, then its end."""
        with peer.connection.makefile("rb") as lines:
            try:
                for line in lines:
                    self._take(peer.rank, FROM_WORKER.validate_json(line))
            except (ConnectionError, ValueError):
                log.exception("rank %d said something that is no message", peer.rank)
                peer.process.kill()
        code = peer.process.wait()
        if code != 0:
            self._lose(_ended(peer.rank, code))

    def _take(self, rank: int, message: FromWorker) -> None:
        if not isinstance(message, Hello | Prepared | Result | WorkerError):
            return
        with self._changed:
            self._answers[rank] = message
            self._changed.notify_all()
            if isinstance(message, WorkerError) and self._working:
                # What rank 0 does not share it may wait for without end: the others' part of a sum.
                timer = threading.Timer(SETTLE_SECONDS, self._lose, [error_from(message)])
                timer.daemon = True
                self._timers.append(timer)
                timer.start()

    def _lose(self, error: LLMasOSError) -> None:
        with self._changed:
            if self._closing:
                return
            self._closing = True
            told = error if self._working else None
        for peer in self._peers:
            peer.process.kill()
        self._on_lost(told)


def _start(rank: int, words: list[str]) -> _Peer:
    ours, theirs = socket.socketpair()
    lifeline_read, lifeline_write = os.pipe()
    try:
        process = subprocess.Popen(
            [*_COMMAND, "--rank", str(rank), *words, *_descriptors(theirs, lifeline_read)],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), lifeline_read),
        )
    finally:
        theirs.close()
        os.close(lifeline_read)
    return _Peer(rank, process, ours, lifeline_write)


def _descriptors(connection: socket.socket, lifeline: int) -> list[str]:
    return ["--connection-fd", str(connection.fileno()), "--lifeline-fd", str(lifeline)]


def _ended(rank: int, code: int) -> WorkerFailed:
    if -code in FROM_OUTSIDE:
        return WorkerKilled(f"Rank {rank} of the worker was ended by {signal.Signals(-code).name}.")
    return WorkerFailed(f"Rank {rank} of the worker ended with code {code}.", "The worker's log holds the details.")
