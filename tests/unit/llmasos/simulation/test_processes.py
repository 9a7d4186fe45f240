"""Children end with their parent, however it ends."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import OperationError
from llmasos.simulation.processes import Lines, Processes, child_environment, failed

SLEEPER = [sys.executable, "-c", "import signal; signal.pause()"]
DEAF = [
    sys.executable,
    "-c",
    "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()",
]
LIFELINE_ONLY = """
import select, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
select.select([int(sys.argv[2])], [], [])
"""
PARENT = """
import signal, sys
from pathlib import Path
from llmasos.simulation.processes import Processes
log = Path(sys.argv[1])
with Processes() as processes:
    plain = processes.start("plain", [sys.executable, "-c", "import signal; signal.pause()"], log=log)
    daemon = processes.start("daemon", [sys.executable, "-c", sys.argv[2]], log=log, lifeline=True)
    print(plain.pid, daemon.pid, flush=True)
    signal.pause()
"""
LINUX = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfd_open (Linux)")


def ended(pidfd: int, *, seconds: float = 20.0) -> bool:
    return bool(select.select([pidfd], [], [], seconds)[0])


@LINUX
def test_kill_9_of_the_parent_leaves_no_child(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "log"), LIFELINE_ONLY], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pidfds = [os.pidfd_open(int(pid)) for pid in parent.stdout.readline().split()]
        parent.kill()
        try:
            assert [ended(pidfd) for pidfd in pidfds] == [True, True]
        finally:
            for pidfd in pidfds:
                os.close(pidfd)


@LINUX
def test_leaving_the_block_ends_every_child(tmp_path: Path) -> None:
    with Processes() as processes:
        pidfds = [os.pidfd_open(processes.start("one", SLEEPER, log=tmp_path / "log").pid) for _ in range(2)]
    try:
        assert [ended(pidfd, seconds=0) for pidfd in pidfds] == [True, True]
    finally:
        for pidfd in pidfds:
            os.close(pidfd)


def test_a_child_that_ignores_sigterm_is_killed_after_a_bounded_time(tmp_path: Path) -> None:
    with Processes() as processes:
        child = processes.start("deaf", DEAF, log=tmp_path / "log", capture=True)
        assert child.stdout.readline() == b"deaf\n"
        processes.stop([child], seconds=0.2)
        assert child.exit_code == -signal.SIGKILL


def test_the_process_id_is_the_commands_own(tmp_path: Path) -> None:
    with Processes() as processes:
        child = processes.start(
            "me", [sys.executable, "-c", "import os; print(os.getpid())"], log=tmp_path / "l", capture=True
        )
        assert int(child.stdout.readline()) == child.pid


def test_ctrl_c_on_the_terminal_does_not_reach_children_at_once(tmp_path: Path) -> None:
    with Processes() as processes:
        child = processes.start("one", SLEEPER, log=tmp_path / "log")
        assert os.getpgid(child.pid) != os.getpgid(0)


def test_a_failed_command_says_how_it_ended_and_where_its_log_is(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "operator.log"
    with Processes() as processes, pytest.raises(OperationError) as caught:
        processes.run("llmasos-coordinator init", [sys.executable, "-c", "raise SystemExit('error: no room')"], log=log)
    assert "llmasos-coordinator init ended with exit code 1" in str(caught.value)
    assert "error: no room" in str(caught.value)
    assert str(log) in caught.value.fix


def test_a_command_that_takes_too_long_is_ended_and_named(tmp_path: Path) -> None:
    with Processes() as processes, pytest.raises(OperationError, match=r"slow took longer than 0 s\."):
        processes.run("slow", SLEEPER, log=tmp_path / "log", seconds=0.1)


def test_a_signal_is_named_as_what_ended_a_child(tmp_path: Path) -> None:
    with Processes() as processes:
        child = processes.start("one", SLEEPER, log=tmp_path / "log")
        child.kill()
        child.close()
        assert "one was ended by signal 9" in failed(child).message
        assert "(it wrote nothing)" in failed(child).message


def test_settings_of_the_users_environment_do_not_reach_children() -> None:
    environment = child_environment({"LLMASOS_HOME": "/elsewhere", "PATH": "/bin"})
    assert "LLMASOS_HOME" not in environment
    assert environment["PATH"] == "/bin"


def test_lines_come_whole_and_the_last_one_without_its_end(tmp_path: Path) -> None:
    program = "import sys; sys.stdout.write('one\\n\\ntwo\\nthr'); sys.stdout.flush(); sys.stdout.write('ee')"
    found = []
    with Processes() as processes:
        child = processes.start("writer", [sys.executable, "-c", program], log=tmp_path / "log", capture=True)
        lines = Lines()
        lines.add(child)
        while lines.open:
            found += [line for _, line in lines.wait(20.0)]
        lines.close()
    assert found == [b"one", b"two", b"three"]
