"""The worker's end of the socket: messages in through a thread, messages out from any.

Two wishes of the agent must be seen while training goes on: `snapshot` and `stop`. They stand as flags that the training loop
looks at between steps; everything else waits in a queue.
"""

from __future__ import annotations

import socket
import threading
from queue import Queue
from typing import IO

from pydantic import ValidationError

from common.errors import MalformedMessage
from participant.bench.worker_protocol import TO_WORKER, Message, Snapshot, Stop, ToWorker, WorkerError, encode

MAX_LINE_BYTES = 1024 * 1024


class StopRequested(BaseException):
    """The agent wants the worker to end; raised at a step boundary."""


class AgentSide:
    """A connection to the agent. `snapshot_wanted` and `stop_wanted` may be set at any time."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._queue: Queue[ToWorker] = Queue()
        self.snapshot_wanted = threading.Event()
        self.stop_wanted = threading.Event()
        self._reader = threading.Thread(target=self._read, name="agent", daemon=True)
        self._reader.start()

    def send(self, message: Message) -> None:
        """Tell the agent; when it is gone, the lifeline ends this process, so that is no error here."""
        with self._sending:
            try:
                self._connection.sendall(encode(message))
            except OSError:
                self.stop_wanted.set()

    def receive(self) -> ToWorker:
        """The next message, in order; a closed connection is a Stop."""
        return self._queue.get()

    def join(self) -> None:
        """Wait until the agent has closed its end and all that it said is in the queue."""
        self._reader.join()

    def _read(self) -> None:
        with self._connection.makefile("rb") as lines:
            while line := self._line(lines):
                try:
                    self._take(TO_WORKER.validate_json(line))
                except ValidationError:
                    self.send(WorkerError(code=MalformedMessage.code, message="The agent's line is no message."))
        self._take(Stop())

    def _line(self, lines: IO[bytes]) -> bytes:
        """The next whole line; empty when the agent is gone."""
        try:
            line = lines.readline(MAX_LINE_BYTES)
        except ConnectionError:
            return b""
        return line if line.endswith(b"\n") else b""

    def _take(self, message: ToWorker) -> None:
        if isinstance(message, Snapshot):
            self.snapshot_wanted.set()
            return
        if isinstance(message, Stop):
            self.stop_wanted.set()
        self._queue.put(message)
