"""The agent's side of a worker, against small programs that behave well or badly."""

from __future__ import annotations

import os
import queue
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from common.errors import InvalidConfiguration, MissingExtra, TooLittleData, WorkerFailed, WorkerKilled
from participant.bench.worker_environment import worker_environment
from participant.bench.worker_link import MAX_LINE_BYTES, WorkerLink, WorkerSettings, error_from, worker_ended
from participant.bench.worker_protocol import Evaluate, Progress, Snapshot, WorkerError

PRELUDE = """
import json, os, socket, sys, time
at = dict(zip(sys.argv[1::2], sys.argv[2::2]))
folder_mode = oct(os.stat(os.path.dirname(at["--socket"])).st_mode & 0o777)
agent = socket.socket(socket.AF_UNIX)
agent.connect(at["--socket"])
lines = agent.makefile("rb")
def say(**message):
    agent.sendall(json.dumps(message).encode() + b"\\n")
def hello(**changes):
    fields = dict(type="hello", protocol=1, pid=os.getpid(), device="cpu", threads=int(at["--threads"]),
                  capability="AVX2", versions={}, isolated=False)
    say(**{**fields, **changes})
"""
POLITE = """
hello()
for line in lines:
    asked = json.loads(line)["type"]
    if asked == "stop":
        break
    say(type="progress", round=len(asked), activity="training")
"""

Start = Callable[..., "Started"]


class Started:
    """A link with what it was told."""

    def __init__(self, root: Path, program: str, **settings: Any) -> None:
        self.messages: queue.Queue[Any] = queue.Queue()
        self.exits: queue.Queue[int] = queue.Queue()
        fields: dict[str, Any] = {
            "job_root": root / "job",
            "log_path": root / "logs" / "worker.log",
            "hello_seconds": 60.0,
        }
        command = (sys.executable, "-c", PRELUDE + program)
        self.settings = WorkerSettings(**(fields | settings), command=command)
        self.link = WorkerLink(self.settings, on_message=self.messages.put, on_exit=self.exits.put)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    made: list[Started] = []

    def make(program: str, **settings: Any) -> Started:
        made.append(Started(tmp_path, program, **settings))
        return made[-1]

    yield make
    for one in made:
        one.link.stop(timeout=10)


def test_a_worker_says_hello_answers_and_stops(start: Start) -> None:
    one = start(POLITE, threads=3)
    hello = one.link.start()
    assert hello.threads == 3
    assert one.link.alive()
    one.link.send(Snapshot())
    assert one.messages.get(timeout=60) == Progress(round=len("snapshot"), activity="training")
    one.link.stop()
    assert not one.link.alive()
    assert one.exits.empty()


def test_stopping_twice_or_before_the_start_does_nothing(start: Start) -> None:
    one = start(POLITE)
    one.link.stop()
    one.link.start()
    one.link.stop()
    one.link.stop()
    with pytest.raises(WorkerFailed, match=r"The worker is not running"):
        one.link.send(Snapshot())


def test_the_socket_lies_in_a_private_folder_that_goes_away(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    with TemporaryDirectory(dir="/tmp") as runtime:  # pytest's own folders are too long for a socket
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        one = start("hello(capability=at['--socket'], device=folder_mode)\nlines.readline()")
        hello = one.link.start()
        assert Path(hello.capability).parent.parent == Path(runtime)
        assert hello.device == "0o700"
        one.link.stop()
        assert list(Path(runtime).iterdir()) == []


def test_a_worker_that_ends_by_itself_is_reported_once(start: Start) -> None:
    one = start("hello()\nlines.readline()\nos._exit(7)")
    one.link.start()
    one.link.send(Snapshot())
    assert one.exits.get(timeout=60) == 7
    one.link.stop()
    assert one.exits.empty()


def test_a_killed_worker_is_reported(start: Start) -> None:
    one = start(POLITE)
    os.kill(one.link.start().pid, signal.SIGKILL)
    assert one.exits.get(timeout=60) == -signal.SIGKILL


def test_a_worker_that_is_killed_before_it_is_ready_was_killed(start: Start) -> None:
    one = start("import signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(WorkerKilled, match=r"The worker was ended by SIGKILL before it was ready\."):
        one.link.start()


def test_a_killed_worker_takes_no_message(start: Start) -> None:
    one = start(POLITE)
    os.kill(one.link.start().pid, signal.SIGKILL)
    one.exits.get(timeout=60)
    with pytest.raises(WorkerKilled, match=r"The worker was ended by SIGKILL before it took a message\."):
        one.link.send(Snapshot())


@pytest.mark.parametrize(
    ("code", "kind"), [(-9, WorkerKilled), (-15, WorkerKilled), (-11, WorkerFailed), (1, WorkerFailed)]
)
def test_only_a_signal_that_ends_processes_is_from_outside(code: int, kind: type[WorkerFailed]) -> None:
    assert type(worker_ended(code, "in the middle of its work")) is kind


def test_a_worker_that_does_not_listen_is_killed(start: Start) -> None:
    one = start("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nhello()\nwhile True: time.sleep(60)")
    pid = one.link.start().pid
    one.link.stop(timeout=0.05)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


FAILURES = {
    "a_worker_that_ends_at_once": ("os._exit(3)", r"The worker ended with code 3 before it was ready"),
    "another_protocol": ("hello(protocol=2)\nlines.readline()", r"speaks protocol version 2, this agent 1"),
    "no_hello_first": ("say(type='progress', round=1, activity='training')\nlines.readline()", r"began with progress"),
    "nonsense": ("agent.sendall(b'hi\\n')\nlines.readline()", r"began with something that is no message"),
    "an_endless_line": (
        f"agent.sendall(b'x' * {MAX_LINE_BYTES + 2})\nlines.readline()",
        r"a line of more than 65,536 bytes",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_start_that_fails_says_why_and_names_the_log(start: Start, name: str) -> None:
    program, message = FAILURES[name]
    one = start(program)
    with pytest.raises(WorkerFailed, match=message) as caught:
        one.link.start()
    assert str(one.settings.log_path) in caught.value.fix
    assert not one.link.alive()
    assert one.exits.empty()


def test_a_silent_worker_is_given_up(start: Start) -> None:
    one = start("time.sleep(60)", hello_seconds=0.3)
    with pytest.raises(WorkerFailed, match=r"The worker said nothing within 0.3 seconds"):
        one.link.start()
    assert not one.link.alive()


def test_a_program_that_never_connects_is_noticed(start: Start, tmp_path: Path) -> None:
    settings = WorkerSettings(tmp_path / "job", tmp_path / "worker.log", command=(sys.executable, "-c", "exit(4)"))
    link = WorkerLink(settings, on_message=print, on_exit=print)
    with pytest.raises(WorkerFailed, match=r"The worker ended with code 4 before it was ready"):
        link.start()


def test_a_missing_extra_reaches_the_person(start: Start) -> None:
    one = start("say(type='error', code='missing-extra', message='torch is absent.', fix='')")
    with pytest.raises(MissingExtra, match=r"torch is absent. \[missing-extra\] Install them: pip install"):
        one.link.start()


def test_nonsense_after_hello_ends_the_worker(start: Start) -> None:
    one = start("hello()\nagent.sendall(b'{}\\n')\nlines.readline()\nos._exit(5)")
    one.link.start()
    assert one.exits.get(timeout=60) == 5


def test_errors_come_back_as_members_of_the_family() -> None:
    error = error_from(WorkerError(code="too-little-data", message="x holds nothing.", fix="More."))
    assert isinstance(error, TooLittleData)
    assert (error.message, error.fix) == ("x holds nothing.", "More.")
    assert type(error_from(WorkerError(code="not-known", message="x"))) is WorkerFailed


def test_what_a_worker_prints_goes_to_its_log_alone(start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    one = start("print('out', flush=True)\nprint('err', file=sys.stderr, flush=True)" + POLITE)
    one.link.start()
    one.link.stop()
    assert one.settings.log_path.read_text() == "out\nerr\n"
    assert stat.S_IMODE(one.settings.log_path.stat().st_mode) == 0o600
    assert capfd.readouterr() == ("", "")


def test_the_environment_is_an_allow_list(tmp_path: Path) -> None:
    own = {
        "PATH": "/bin", "HOME": "/root", "https_proxy": "http://x", "WANDB_API_KEY": "k", "HF_TOKEN": "t",
        "AWS_SECRET_ACCESS_KEY": "s", "LLMASOS_HOME": "/keys", "LLMASOS_DEBUG": "1", "CUDA_VISIBLE_DEVICES": "0",
    }  # fmt: skip
    given = worker_environment(tmp_path, 4, own)
    assert set(given) & set(own) == {"PATH", "HOME", "LLMASOS_DEBUG", "CUDA_VISIBLE_DEVICES"}
    assert given["HOME"] == given["TMPDIR"] == str(tmp_path)
    assert given["OMP_NUM_THREADS"] == given["LLMASOS_WORKER_THREADS"] == "4"
    assert given["HF_HUB_OFFLINE"] == "1"
    assert given["TOKENIZERS_PARALLELISM"] == "false"


def test_a_worker_gets_that_environment_and_no_files_of_the_agent(start: Start, tmp_path: Path) -> None:
    with (tmp_path / "key").open("w"):
        one = start(
            "hello(versions=dict(os.environ), capability=os.getcwd(), device=' '.join(os.listdir('/proc/self/fd')))"
            "\nlines.readline()"
        )
        hello = one.link.start()
    assert set(hello.versions) <= set(worker_environment(tmp_path / "job", 1)) | {"LC_CTYPE", "PWD"}
    assert hello.capability == str(tmp_path / "job")
    assert len(hello.device.split()) == 6  # three standard streams, lifeline, socket, and the listing itself


def test_an_unknown_account_is_refused(tmp_path: Path) -> None:
    settings = WorkerSettings(tmp_path, tmp_path / "log", worker_user="no-such-account")
    with pytest.raises(InvalidConfiguration, match=r"this machine has no account 'no-such-account'"):
        WorkerLink(settings, on_message=print, on_exit=print)


def test_only_root_starts_a_worker_as_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(InvalidConfiguration, match=r"only root can start a worker as 'nobody'"):
        WorkerLink(WorkerSettings(tmp_path, tmp_path / "log", worker_user="nobody"), on_message=print, on_exit=print)


def test_messages_of_several_threads_do_not_mix(start: Start) -> None:
    from threading import Thread

    one = start(POLITE)
    one.link.start()
    threads = [Thread(target=one.link.send, args=(Evaluate(round=number, base="b" * 5000),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.messages.get(timeout=60).round for _ in threads] == [len("evaluate")] * 8


def test_the_link_imports_neither_torch_nor_the_sdk() -> None:
    program = "import sys, participant.bench.worker_link; print([m for m in ('torch', 'llmasos', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
