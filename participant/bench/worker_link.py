"""The agent's side of its worker: starts the training process, speaks with it, and never leaves it behind.

    link = WorkerLink(WorkerSettings(job_root, log_path), on_message=queue.put, on_exit=tell_the_agent)
    hello = link.start()
    link.send(Prepare(...))                  # answers come through on_message, from the link's own thread
    link.stop()

The worker gets no keys and no network settings: its environment is an allow-list (worker_environment.py), its home and its
temporary files are the job folder. Three things end it: `stop`, the end of this process however it dies (an inherited
pipe closes), and a broken protocol. Imports no torch.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from pydantic import ValidationError

from common.errors import LLMasOSError, StorageFailure, WorkerFailed, WorkerKilled, all_errors
from participant.bench.isolation import Isolation
from participant.bench.worker_environment import worker_environment
from participant.bench.worker_protocol import (
    FROM_WORKER,
    WORKER_PROTOCOL,
    Evaluate,
    FromWorker,
    Hello,
    Prepare,
    Sharding,
    Stop,
    ToWorker,
    Train,
    WorkerError,
    encode,
)

log = logging.getLogger(__name__)

MAX_LINE_BYTES = 64 * 1024
_LOG_BYTES = 16 * 1024 * 1024
_ACCEPT_POLL_SECONDS = 0.1
_END_SECONDS = 5.0
FROM_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
"""Signals that say nothing of the worker itself: somebody wants it to end."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker is started.

    `worker_user` is another account to run it under, which needs root; `isolate_network` a network namespace of its own;
    `tensorboard` a folder for event files, where it may write.
    """

    job_root: Path
    log_path: Path
    threads: int = 1
    ranks: int | Literal["auto"] = 1
    sharding: Sharding = "none"
    snapshot_seconds: float = 300.0
    worker_user: str | None = None
    isolate_network: bool = False
    tensorboard: Path | None = None
    hello_seconds: float = 120.0
    command: tuple[str, ...] = (sys.executable, "-P", "-m", "participant.worker")


def error_from(message: WorkerError) -> LLMasOSError:
    """The worker's error as a member of the family; unknown codes become WorkerFailed."""
    return all_errors().get(message.code, WorkerFailed)(message.message, message.fix or None)


class WorkerLink:
    """One worker process. Methods are for one thread, but `send` for any.

    Args:
        on_message: called with everything the worker says after its hello, from the link's thread; must not block.
        on_exit: called once with the return code when the worker ended and nobody had asked for it.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        on_message: Callable[[FromWorker], None],
        on_exit: Callable[[int], None],
    ) -> None:
        self._settings = settings
        self._on_message = on_message
        self._on_exit = on_exit
        self._isolation = Isolation.of(
            settings.worker_user, isolate_network=settings.isolate_network, loopback=settings.ranks != 1
        )
        self._account = self._isolation.account
        self._job: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._connection: socket.socket | None = None
        self._sending = threading.Lock()
        self._settled = threading.Event()
        self._stopping = threading.Event()
        self._hello: Hello | None = None
        self._failure: LLMasOSError | None = None

    def start(self) -> Hello:
        """Start the worker and wait until it is ready.

        Raises:
            WorkerFailed: it ended, spoke another protocol version, or said nothing within `hello_seconds`.
            MissingExtra: torch and what belongs to it are not installed.
            StorageFailure: the job folder or the log cannot be made.
            InvalidConfiguration: this system does not let a worker be kept apart as configured.
        """
        if self._thread is not None:
            raise RuntimeError("a WorkerLink starts once; make a new one")
        self._isolation.check(self._settings.command[0])
        folder = self._socket_folder()
        try:
            listener = self._listen(folder)
            with listener:
                process, lifeline = self._spawn(folder)
                listener_copy = listener.dup()
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._process = process
        self._thread = threading.Thread(
            target=self._serve, args=(listener_copy, process, lifeline, folder), name="worker-link", daemon=True
        )
        self._thread.start()
        in_time = self._settled.wait(self._settings.hello_seconds)
        if self._hello is not None:
            return self._hello
        self.stop(timeout=0.0)
        if not in_time:
            raise self._failed(f"said nothing within {self._settings.hello_seconds:g} seconds")
        raise self._failure or self._failed("was stopped before it was ready")

    def send(self, message: ToWorker) -> None:
        """Hand the worker a message, and what lies in its job folder, where it runs under an account of its own.

        Raises:
            WorkerFailed: it is not there any more.
            StorageFailure: the job folder cannot be handed over.
        """
        if isinstance(message, Prepare):
            self._job = Path(message.job)
        if self._job is not None and isinstance(message, Prepare | Train | Evaluate):
            self._isolation.open_way(self._settings.job_root.parent, self._settings.job_root)
            self._isolation.hand_over(self._job)
        with self._sending:
            if self._connection is not None:
                try:
                    self._connection.sendall(encode(message))
                    return
                except OSError as err:
                    trouble = f"takes no messages ({err.strerror})"
            else:
                trouble = "is not running"
        raise self._gone() or self._failed(trouble)

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def stop(self, timeout: float = 10.0) -> None:
        """End the worker: politely within `timeout` seconds, then by force. Afterwards nothing of it is left."""
        if self._thread is None or self._process is None:
            return
        self._stopping.set()
        with contextlib.suppress(WorkerFailed):
            self.send(Stop())
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._kill(self._process)
            self._thread.join()

    # --- starting ------------------------------------------------------------------------------------------------------

    def _socket_folder(self) -> Path:
        """A short path that only the worker's account can enter: a socket's path has at most 107 bytes."""
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        usable = self._account is None and len(runtime) < 60 and os.access(runtime, os.W_OK)
        folder = Path(tempfile.mkdtemp(prefix="llmasos-", dir=runtime if usable else "/tmp"))
        self._share(folder)
        return folder

    def _listen(self, folder: Path) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = folder / "worker.sock"
        listener.bind(str(path))
        self._share(path)
        listener.listen(1)
        listener.settimeout(_ACCEPT_POLL_SECONDS)
        return listener

    def _spawn(self, folder: Path) -> tuple[subprocess.Popen[bytes], int]:
        """The process and our end of its lifeline."""
        settings = self._settings
        lifeline_read, lifeline_write = os.pipe()
        words = [*settings.command, "--socket", str(folder / "worker.sock"), "--lifeline-fd", str(lifeline_read)]
        words += ["--ranks", str(settings.ranks), "--sharding", settings.sharding, "--threads", str(settings.threads)]
        words += ["--snapshot-seconds", f"{settings.snapshot_seconds:g}", "--agent-uid", str(os.getuid())]
        words += [] if settings.tensorboard is None else ["--tensorboard", str(settings.tensorboard)]
        try:
            with self._open_log() as output:
                scratch = self._isolation.open_way(settings.job_root.parent, settings.job_root)
                process = subprocess.Popen(
                    self._isolation.command(words),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=settings.job_root,
                    env=worker_environment(scratch, settings.threads),
                    pass_fds=(lifeline_read,),
                    # A terminal's Ctrl-C is for the agent, which ends its worker in order.
                    start_new_session=True,
                )
        except OSError as err:
            os.close(lifeline_write)
            raise StorageFailure(f"The worker cannot be started in {settings.job_root}: {err}.") from err
        finally:
            os.close(lifeline_read)
        return process, lifeline_write

    def _share(self, path: Path) -> None:
        if self._account is not None:
            os.chown(path, self._account.uid, self._account.gid)

    def _open_log(self) -> contextlib.AbstractContextManager[int]:
        path = self._settings.log_path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._settings.job_root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > _LOG_BYTES:
            path.replace(path.with_name(path.name + ".1"))
        return _closing(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))

    # --- the link's thread -----------------------------------------------------------------------------------------------

    def _serve(self, listener: socket.socket, process: subprocess.Popen[bytes], lifeline: int, folder: Path) -> None:
        early = False
        try:
            with listener:
                connection = self._accept(listener, process)
            # A path that nobody needs any more is not left behind by an agent that is killed later.
            shutil.rmtree(folder, ignore_errors=True)
            if connection is not None:
                with connection:
                    self._converse(connection)
        except _EndedEarly:
            early = True
        except LLMasOSError as err:
            self._failure = err
        finally:
            with self._sending:
                self._connection = None
            os.close(lifeline)
            returncode = self._reap(process)
            shutil.rmtree(folder, ignore_errors=True)
            if early:
                self._failure = worker_ended(returncode, "before it was ready", f"Look at {self._settings.log_path}.")
            if self._failure is not None:
                log.error("worker broke off", extra={"code": self._failure.code, "reason": self._failure.message})
            self._settled.set()
        if self._hello is not None and not self._stopping.is_set():
            self._on_exit(returncode)

    def _accept(self, listener: socket.socket, process: subprocess.Popen[bytes]) -> socket.socket | None:
        while not self._stopping.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                if process.poll() is not None:
                    raise _EndedEarly from None
                continue
            connection.settimeout(None)
            if self._is_ours(connection):
                return connection
            connection.close()
        return None

    def _is_ours(self, connection: socket.socket) -> bool:
        """The folder keeps others out; where the system says who connected, root and all others are refused as well."""
        if not hasattr(socket, "SO_PEERCRED"):
            return True
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, uid, _ = struct.unpack("3i", credentials)
        expected = os.geteuid() if self._account is None else self._account.uid
        return bool(uid == expected)

    def _converse(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as lines:
            self._hello = self._expect_hello(self._line(lines))
            with self._sending:
                self._connection = connection
            self._settled.set()
            while line := self._line(lines):
                try:
                    message = FROM_WORKER.validate_json(line)
                except ValidationError:
                    # Without its cause, which quotes the line: a worker's words may be private text.
                    raise self._failed("said something that is no message") from None
                self._on_message(message)

    def _line(self, lines: IO[bytes]) -> bytes:
        """The next whole line; empty when the worker is gone."""
        try:
            line = lines.readline(MAX_LINE_BYTES + 1)
        except ConnectionError:
            return b""
        if len(line) > MAX_LINE_BYTES:
            raise self._failed(f"sent a line of more than {MAX_LINE_BYTES:,} bytes")
        return line if line.endswith(b"\n") else b""

    def _expect_hello(self, line: bytes) -> Hello:
        if not line:
            raise _EndedEarly
        try:
            message = FROM_WORKER.validate_json(line)
        except ValidationError:
            raise self._failed(_why_no_hello(line)) from None
        if isinstance(message, WorkerError):
            raise error_from(message)
        if not isinstance(message, Hello):
            raise self._failed(f"began with {message.type}, expected hello")
        return message

    def _reap(self, process: subprocess.Popen[bytes]) -> int:
        """The worker's return code; its connection or lifeline is closed, so it ends by itself or is made to."""
        try:
            return process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill(process)
            return process.wait()

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def _gone(self) -> WorkerFailed | None:
        """How it ended, where it has; None while it runs."""
        if self._process is None or self._stopping.is_set():
            return None
        try:
            code = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return None
        return worker_ended(code, "before it took a message", f"Look at {self._settings.log_path}.")

    def _failed(self, what: str) -> WorkerFailed:
        return WorkerFailed(f"The worker {what}.", f"Look at {self._settings.log_path}.")


class _EndedEarly(Exception):
    """The worker's process ended before it said hello; why, its code says once it is known."""


def worker_ended(code: int, when: str, fix: str | None = None) -> WorkerFailed:
    """What a worker's end by itself is.

    Args:
        code: the process's; minus a signal's number where one ended it.
        when: the rest of a sentence.
    """
    if -code in FROM_OUTSIDE:
        return WorkerKilled(f"The worker was ended by {signal.Signals(-code).name} {when}.")
    return WorkerFailed(f"The worker ended with code {code} {when}.", fix)


def _why_no_hello(line: bytes) -> str:
    with contextlib.suppress(ValueError):
        said = json.loads(line)
        if isinstance(said, dict) and said.get("type") == "hello" and said.get("protocol") != WORKER_PROTOCOL:
            spoken = str(said.get("protocol"))[:20]
            return f"speaks protocol version {spoken}, this agent {WORKER_PROTOCOL}: both must be of one release"
    return "began with something that is no message"


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)
