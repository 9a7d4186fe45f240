"""How far a worker is kept apart from its agent: claimed only where it is so, and so where it is configured."""

from __future__ import annotations

import os
import pwd
import queue
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from common.errors import InvalidConfiguration
from participant.bench.isolation import Isolation
from participant.bench.worker_environment import Account
from participant.bench.worker_link import WorkerLink, WorkerSettings
from participant.bench.worker_protocol import DataSource, Prepare, Prepared, Progress, Result, Train
from participant.worker import isolation, launch
from participant.worker.isolation import is_isolated

LOOPBACK, NETWORK = [(1, "lo")], [(1, "lo"), (2, "eth0")]
REPOSITORY = Path(__file__).resolve().parents[4]
LOOK = """
import os, socket, sys
from participant.worker.isolation import is_isolated
sys.stdout.write(f"{os.getuid()} {os.getgid()} {os.getgroups()} {is_isolated(int(sys.argv[1]))}")
"""

SPEAK = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
try:
    socket.create_connection(listener.getsockname()).close()
    print("spoken")
except OSError:
    print("unreachable")
"""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root starts a process under another account")


@pytest.mark.parametrize(
    ("user", "agent_uid", "interfaces", "up", "capabilities", "expected"),
    [
        (1001, 1000, LOOPBACK, True, 0, True),
        (1000, 1000, LOOPBACK, True, 0, False),
        (1001, 1000, NETWORK, True, 0, False),
        (1001, 1000, NETWORK, False, 0, True),
        (1001, 1000, [], True, 0, True),
        (1001, 1000, LOOPBACK, True, 1 << 21, False),
        (0, 1000, LOOPBACK, True, 0, False),
    ],
)
def test_isolated_is_another_user_without_rights_and_without_a_network(
    monkeypatch: pytest.MonkeyPatch,
    user: int,
    agent_uid: int,
    interfaces: list[tuple[int, str]],
    up: bool,
    capabilities: int,
    expected: bool,
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: user)
    monkeypatch.setattr(socket, "if_nameindex", lambda: interfaces)
    monkeypatch.setattr(isolation, "_is_up", lambda interface: up)
    monkeypatch.setattr(isolation, "_capabilities", lambda: capabilities)
    assert is_isolated(agent_uid) is expected


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_an_interface_that_is_unknown_counts_as_up() -> None:
    assert isolation._is_up("no-such-if")


def test_nothing_is_put_before_a_command_that_nobody_wants_apart() -> None:
    none = Isolation.of(None, isolate_network=False)
    none.check("/no/such/program")
    assert none.command(["worker", "--x"]) == ("worker", "--x")


def test_the_launcher_stands_before_a_command_that_is_kept_apart() -> None:
    words = Isolation(Account(12, 34), network=True).command(["worker", "--x"])
    assert words[1:] == (
        *("-P", "-m", "participant.worker.launch", "--no-network", "--uid", "12", "--gid", "34"),
        *("--", "worker", "--x"),
    )


def test_a_system_without_namespaces_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(words: Any, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(words, launch.EXIT_REFUSED, "", "operation not permitted\n")

    monkeypatch.setattr(subprocess, "run", refuse)
    with pytest.raises(InvalidConfiguration, match=r"worker\.isolate_network: .*operation not permitted") as caught:
        Isolation(network=True).check()
    assert "user.max_user_namespaces" in caught.value.fix


def test_the_launcher_reports_what_it_could_not_do(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def refuse(flags: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(launch, "_unshare", refuse)
    monkeypatch.setattr(launch, "_prctl", lambda option, value: None)
    assert launch.main(["--no-network", "--", "worker"]) == launch.EXIT_REFUSED
    assert capsys.readouterr().err == "operation not permitted\n"


def test_an_agent_without_rights_takes_the_network_from_its_worker() -> None:
    """By root's right, or through a user namespace where the system has them for everybody."""
    apart = Isolation(network=True)
    try:
        apart.check()
    except InvalidConfiguration as err:
        pytest.skip(err.message)
    look = "import socket; print([n for _, n in socket.if_nameindex()])"
    words = apart.command((sys.executable, "-c", look))
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout == "['lo']\n", done.stderr


@pytest.mark.parametrize(("loopback", "expected"), [(True, "spoken\n"), (False, "unreachable\n")])
def test_ranks_speak_through_a_loopback_of_their_own(loopback: bool, expected: str) -> None:
    apart = Isolation(network=True, loopback=loopback)
    try:
        apart.check()
    except InvalidConfiguration as err:
        pytest.skip(err.message)
    words = apart.command((sys.executable, "-c", SPEAK))
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout == expected, done.stderr


# --- as root ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> tuple[Isolation, str]:
    """The account `nobody` without a network, and a Python of this version that it can run."""
    apart = Isolation.of("nobody", isolate_network=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), *filter(None, sys.path)]))
    for python in filter(None, (sys.executable, shutil.which(version, path="/usr/bin:/usr/local/bin"))):
        words = apart.command((python, "-P", "-c", "import numpy, participant.worker.isolation"))
        if subprocess.run(words, capture_output=True, cwd="/", check=False).returncode == 0:
            return apart, python
    pytest.skip("nobody can read no Python of this version, this repository and its packages")


@pytest.fixture
def home() -> Iterator[Path]:
    """A home folder that another account can come near to: pytest's own are private."""
    with TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        inner = Path(folder) / "home"
        inner.mkdir(mode=0o700)
        yield inner


@needs_root
def test_the_account_and_the_network_are_really_gone(stranger: tuple[Isolation, str]) -> None:
    apart, python = stranger
    nobody = pwd.getpwnam("nobody")
    words = apart.command((python, "-P", "-c", LOOK, str(os.getuid())))
    done = subprocess.run(words, capture_output=True, text=True, cwd="/", check=False)
    assert done.stdout == f"{nobody.pw_uid} {nobody.pw_gid} [] True", done.stderr
    inside = subprocess.run(
        apart.command((python, "-P", "-c", LOOK, str(nobody.pw_uid))),
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )
    assert inside.stdout.endswith("[] False"), "an agent of the same user"


@needs_root
def test_the_worker_owns_its_job_reads_what_the_agent_placed_and_nothing_else(home: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    apart = Isolation(Account(nobody.pw_uid, nobody.pw_gid))
    jobs, job, blob, key = home / "jobs", home / "jobs" / "run", home / "blob", home / "identity"
    jobs.mkdir(mode=0o700)
    job.mkdir(mode=0o700)
    key.mkdir(mode=0o700)
    for path in (blob, key / "key.pem", home / "journal.sqlite"):
        path.write_bytes(b"x")
        path.chmod(0o600)
    os.link(blob, job / "base.safetensors")
    (job / "trap").symlink_to(key / "key.pem")
    scratch = apart.open_way(home, jobs)
    apart.hand_over(job)

    def may(path: Path, flag: str) -> bool:
        words = apart.command(("/bin/sh", "-c", f'[ -{flag} "$1" ]', "sh", str(path)))
        return subprocess.run(words, check=False).returncode == 0

    assert [may(job / "base.safetensors", flag) for flag in "rw"] == [True, False]
    assert all(may(path, "w") for path in (job, scratch))
    assert not any(may(path, "r") for path in (home, jobs, key, home / "journal.sqlite"))
    assert not any(may(path, "w") for path in (home, jobs))
    assert stat.S_IMODE((key / "key.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE(blob.stat().st_mode) == 0o640


@needs_root
@pytest.mark.torch
def test_a_real_worker_under_another_account_without_network_completes_a_round(
    stranger: tuple[Isolation, str], home: Path
) -> None:
    pytest.importorskip("torch")
    from tests.support.jobs import a_training_plan, make_job

    _, python = stranger
    (home / "jobs").mkdir(mode=0o700)
    made, data = make_job(home.parent / "made", a_training_plan())
    (home.parent / "made").chmod(0o711)
    for path in (home.parent / "made" / "data", *(home.parent / "made" / "data").rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    job = made.rename(home / "jobs" / "run")
    job.chmod(0o700)
    messages: queue.Queue[Any] = queue.Queue()
    settings = WorkerSettings(
        home / "jobs",
        home / "logs" / "worker.log",
        worker_user="nobody",
        isolate_network=True,
        command=(python, "-P", "-m", "participant.worker"),
    )
    link = WorkerLink(settings, on_message=messages.put, on_exit=messages.put)

    def ask(message: Any) -> Any:
        link.send(message)
        while isinstance(answer := messages.get(timeout=120), Progress):
            continue
        return answer

    try:
        hello = link.start()
        assert hello.isolated
        source = DataSource(name="notes", folder=str(data))
        assert isinstance(ask(Prepare(job=str(job), data=(source,))), Prepared)
        asked = Train(round=1, trained_rounds=0, seed=5, base="base.safetensors", delta="delta.safetensors")
        result = ask(asked)
        assert isinstance(result, Result), settings.log_path.read_text()
        delta = job / "delta.safetensors"
        assert delta.stat().st_uid == pwd.getpwnam("nobody").pw_uid
        assert len(delta.read_bytes()) > 1000
    finally:
        link.stop()
