"""benchmarks/peers: what is read from outside, the limits, and the table; no peer is installed here."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.peers import __main__ as command
from benchmarks.peers import environments, run_flower, run_nvflare, run_ours, workload
from benchmarks.peers.errors import PeerFailure
from benchmarks.peers.job import read_result, short, with_cause
from benchmarks.peers.observer import Limits, Observer, Usage
from benchmarks.peers.proc import Sample, available_mb, parse_stat, parse_status, read_sample
from benchmarks.peers.table import Measured, Row, System, measured, report, table, typical

LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
SYSTEM = System("flower", "1.41.0", "HTTP, server TLS", "defaults")
NO_LIMIT = Limits(seconds=30)


def all_server(argv: Sequence[str]) -> str | None:
    return "server"


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-c", code]


def alive(pid: int) -> bool:
    return read_sample(pid) is not None


# --- what /proc says --------------------------------------------------------------------------------------------------------


def test_a_process_name_with_brackets_and_spaces_shifts_no_field() -> None:
    fields = ["S", "7", *["0"] * 9, "250", "50", *["0"] * 6, "12345", "0"]
    ticks = os.sysconf("SC_CLK_TCK")
    assert parse_stat(f"42 (a) (b c)) {' '.join(fields)}\n") == Sample(42, 7, 12345, 300 / ticks)


def test_memory_lines_become_megabytes() -> None:
    text = "Name:\tx\nVmPeak:\t  9 kB\nVmHWM:\t  2000 kB\nVmRSS:\t 1000 kB\nRssAnon:\t  500 kB\n"
    assert parse_status(text) == {"VmHWM": 2.048, "VmRSS": 1.024, "RssAnon": 0.512}
    assert parse_status("Name:\tending\nState:\tZ\n") == {}


@LINUX
def test_this_machine_has_memory_and_this_process_a_parent() -> None:
    assert (available_mb() or 0) > 1
    sample = read_sample(os.getpid())
    assert sample is not None
    assert sample.parent == os.getppid()


def test_processor_time_between_two_moments() -> None:
    usage = Usage(moments=[(10.0, 1.0), (11.0, 1.5), (12.0, 4.0)])
    assert usage.cpu_between(10.0, 12.5) == 3.0
    assert usage.cpu_between(10.9, 11.9) == 0.5
    assert usage.cpu_between(5.0, 11.0) == 1.5


# --- the observer -----------------------------------------------------------------------------------------------------------


@LINUX
def test_memory_and_processor_time_of_a_process_are_seen(tmp_path: Path) -> None:
    code = "import time; data = bytearray(80_000_000); end = time.monotonic() + 0.6\nwhile time.monotonic() < end: pass"
    with Observer(all_server, NO_LIMIT) as observer:
        started = time.time()
        observer.run("worker", python(code), log=tmp_path / "log")
        assert 80 < observer.usage["server"].largest_mb < 300
        assert 80 < observer.usage["server"].together_mb < 300
        assert observer.usage["server"].cpu_between(started - 1, time.time()) > 0.1
        assert observer.usage["client"].largest_mb == 0


@LINUX
def test_a_process_that_detached_itself_is_ended_too(tmp_path: Path) -> None:
    sleeper = "import time; time.sleep(60)"
    code = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {sleeper!r}], start_new_session=True)\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))"
    )
    with Observer(all_server, NO_LIMIT) as observer:
        observer.run("daemon", python(code), log=tmp_path / "log")
        pid = int((tmp_path / "pid").read_text())
        assert alive(pid)
    assert not alive(pid)


@LINUX
def test_of_many_children_none_is_overlooked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample may see a child before it has become its command, when it does not carry the mark yet."""
    monkeypatch.setattr("benchmarks.peers.observer.SAMPLE_SECONDS", 0.001)
    with Observer(all_server, NO_LIMIT) as observer:
        started = [observer.start("many", ["sleep", "60"], log=tmp_path / "log") for _ in range(30)]
    assert [process.poll() for process in started] == [-signal.SIGTERM] * 30


@LINUX
def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.peers.observer.STOP_SECONDS", 0.2)
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    with Observer(all_server, NO_LIMIT) as observer:
        process = observer.start("deaf", python(code), log=tmp_path / "log")
        observer.wait_for(lambda: "deaf" in (tmp_path / "log").read_text())
    assert process.returncode == -signal.SIGKILL


@LINUX
def test_a_system_beyond_its_memory_is_ended_with_the_figures(tmp_path: Path) -> None:
    code = "import time; data = b'x' * 200_000_000; time.sleep(60)"
    with Observer(all_server, Limits(seconds=30, memory_mb=100)) as observer:
        process = observer.start("glutton", python(code), log=tmp_path / "log")
        with pytest.raises(PeerFailure, match=r"at the memory limit: its processes held \d\d\d MB, 100 are allowed"):
            observer.wait_for(lambda: False)
    assert process.poll() is not None


@LINUX
def test_a_system_beyond_its_time_is_ended(tmp_path: Path) -> None:
    with Observer(all_server, Limits(seconds=0.3)) as observer:
        process = observer.start("sleeper", python("import time; time.sleep(60)"), log=tmp_path / "log")
        with pytest.raises(PeerFailure, match="not done after 0 s"):
            observer.wait_for(lambda: False)
    assert process.poll() is not None


@LINUX
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise SystemExit(3)", "superlink ended with exit code 3"),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            "superlink ended by SIGKILL, as the kernel does when memory runs out",
        ),
    ],
)
def test_a_process_that_ends_too_early_is_named(code: str, message: str, tmp_path: Path) -> None:
    with Observer(all_server, NO_LIMIT) as observer:
        observer.start("superlink", python(code), log=tmp_path / "log")
        with pytest.raises(PeerFailure) as failure:
            observer.wait_for(lambda: False)
    assert str(failure.value) == message


# --- who is server, who is client -------------------------------------------------------------------------------------------


def test_processes_are_told_apart_by_their_command_lines() -> None:
    flower = {
        "/v/bin/python /v/bin/flower-superlink --insecure": "server",
        "/v/bin/python /v/bin/flwr-serverapp --token x": "server",
        "/v/bin/python /v/bin/flower-supernode --insecure": "client",
        "/v/bin/python /v/bin/flwr-clientapp --token x": "client",
        "/v/bin/python /v/bin/flwr run app bench": None,
    }
    nvflare = {
        "python3 -u -m nvflare.private.fed.app.server.server_train -m w": "server",
        "python3 -u -m nvflare.private.fed.app.server.runner_process -m w": "server",
        "python3 -u -m nvflare.private.fed.app.client.client_train -m w": "client",
        "python3 -u -m nvflare.private.fed.app.client.worker_process -m w": "client",
        "/v/bin/python job.py": None,
    }
    ours = {
        "/v/bin/python -P -m coordinator.cli start --home h": "server",
        "/v/bin/python -P -m coordinator.cli run start plan": None,
        "/v/bin/python -P -m coordinator.cli run watch x": None,
        "/v/bin/python -P -m participant.cli start --home h": "client",
        "/v/bin/python benchmarks/null_worker.py --socket s": "client",
        "/v/bin/python -P benchmarks/bare_grpc.py server": None,
    }
    for roles, lines in ((run_flower.roles, flower), (run_nvflare.roles, nvflare), (run_ours.roles, ours)):
        assert {line: roles(line.split()) for line in lines} == lines


def test_rounds_are_found_in_the_coordinators_log(tmp_path: Path) -> None:
    log = tmp_path / "round-cost-x" / "logs" / "coordinator.log"
    log.parent.mkdir(parents=True)
    lines = [
        "2026-01-01T00:00:00.000Z INFO    coordinator.rounds.engine: round opened  run=a-1 round=1 task=train cohort=2",
        "2026-01-01T00:00:01.000Z INFO    coordinator.rounds.engine: round sealed  run=a-1 round=1 reason=all-contributed",
        "2026-01-01T00:00:02.500Z INFO    coordinator.rounds.engine: round closed  run=a-1 round=1 outcome=committed",
        "2026-01-01T00:00:02.600Z INFO    coordinator.rounds.engine: round opened  run=a-1 round=2 task=train cohort=2",
    ]
    log.write_text("\n".join(lines))
    times = run_ours.RoundTimes(tmp_path)
    times.read()
    ((start, end),) = times.spans(1)
    assert end - start == 2.5
    assert start == 1767225600.0
    assert times.spans(2) == [], "the second round is still open"


# --- the work ---------------------------------------------------------------------------------------------------------------


def run_rounds(total: int, participants: int, rounds: int, *, silent: int | None = None) -> dict[str, np.ndarray]:
    """What a server holds after all rounds; `silent` sends the last round's model back as it came."""
    model = dict(workload.initial(total))
    for number in range(1, rounds + 1):
        replies = []
        for participant in range(participants):
            reply = {name: values.copy() for name, values in model.items()}
            for values in reply.values():
                if participant != silent:
                    workload.mark(values, participant, number)
            replies.append(reply)
        model = {name: np.mean([reply[name] for reply in replies], axis=0, dtype=np.float32) for name in model}
    return model


def test_the_model_has_the_size_that_was_asked_for() -> None:
    for total in (4, 20_000_000, 2 * workload.TENSOR_BYTES):
        sizes = [4 * int(np.prod(shape)) for shape in workload.shapes(total).values()]
        assert sum(sizes) == total
    assert [name for name, _ in workload.initial(9_000_000)] == list(workload.shapes(9_000_000))


def test_the_mean_of_all_replies_is_recognised() -> None:
    total = 5_000_000
    good = run_rounds(total, 3, 2)
    assert workload.fault(good, total, participants=3, rounds=2) is None
    assert "expected 2 in their order" in str(workload.fault({}, total, participants=3, rounds=2))


def test_a_reply_that_is_missing_is_noticed() -> None:
    total, drawn = 5_000_000, random.Random(7)
    participants = drawn.randint(2, 5)
    bad = run_rounds(total, participants, 2, silent=drawn.randrange(participants))
    assert "of the last model is off by" in str(workload.fault(bad, total, participants=participants, rounds=2))
    spoilt = run_rounds(total, 2, 1)
    spoilt["rest.weight"][drawn.randrange(100_000)] = np.nan
    assert "off by nan" in str(workload.fault(spoilt, total, participants=2, rounds=1))


def test_every_piece_of_every_reply_is_another() -> None:
    """Flower carries an object of the same content once only."""
    pieces = set()
    for participant in range(3):
        for number in range(1, 4):
            values = np.zeros(3 * workload.MARK_EVERY + 5, np.float32)
            workload.mark(values, participant, number)
            assert np.count_nonzero(values) == 4
            pieces.add(values[: workload.MARK_EVERY].tobytes())
    assert len(pieces) == 9


# --- results, failures, and the table ---------------------------------------------------------------------------------------


def test_what_a_peers_server_says_went_wrong_is_the_cause(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    workload.write_result(result, {"error": "RuntimeError: round 2: 3 of 4 participants replied"})
    with pytest.raises(PeerFailure, match="3 of 4 participants replied"):
        read_result(result)
    workload.write_result(result, {"rounds": [[1.0, 2.0]], "fault": "x of the last model is off by 0.100000"})
    with pytest.raises(PeerFailure, match=r"off by 0\.1"):
        read_result(result)
    workload.write_result(result, {"rounds": [[1.0, 2.0]], "fault": None})
    assert read_result(result)["rounds"] == [[1.0, 2.0]]
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_the_last_error_of_a_log_is_part_of_the_cause(tmp_path: Path) -> None:
    log = tmp_path / "superlink.log"
    log.write_text("ValueError: first\nINFO all is well\n  grpc.RpcError: the last   one\nstopping\n")
    failure = with_cause(PeerFailure("superlink ended"), [tmp_path / "absent.log", log])
    assert str(failure) == "superlink ended; its log: grpc.RpcError: the last one"
    assert str(with_cause(PeerFailure("slow"), [])) == "slow"
    assert len(short("x" * 1000)) == 160


def test_the_first_round_does_not_count_where_there_are_others() -> None:
    assert typical([9.0]) == 9.0
    assert typical([9.0, 1.0, 3.0]) == 2.0
    usage = {"server": Usage(5.0, 6.0, [(0.0, 0.0), (2.0, 1.0), (4.0, 5.0)]), "client": Usage(7.0, 8.0, [(0.0, 0.5)])}
    found = measured([(0.0, 2.0), (2.0, 4.0)], usage)
    assert (found.seconds, found.cpu_seconds) == (2.0, [1.0, 4.0])
    assert (found.server_largest_mb, found.server_together_mb, found.client_largest_mb) == (5.0, 6.0, 7.0)


def test_our_own_figures_come_from_round_cost() -> None:
    found = {"round_seconds": 2.0, "coordinator_peak_mb": 180.0, "agent_peak_mb": 90.0}
    usage = {"server": Usage(170.0, 175.0), "client": Usage(95.0, 300.0)}
    plain = run_ours.combined(found, [], usage)
    assert (list(plain.round_seconds), plain.cpu_seconds) == ([2.0], [])
    assert (plain.server_largest_mb, plain.server_together_mb, plain.client_largest_mb) == (180.0, 180.0, 95.0)
    each = run_ours.combined(found | {"each": {"round_seconds": [4.0, 2.0, 3.0]}}, [], usage)
    assert each.seconds == 2.5


def rows() -> list[Row]:
    ours = Measured([3.0, 2.5, 2.7], [], 183.2, 183.2, 94.4)
    flower = Measured([30.0, 25.5], [20.0, 41.26], 5300.0, 7400.0, 900.0)
    return [
        Row(System("ours", "0.1.0", "gRPC, mutual TLS", "a"), ours),
        Row(SYSTEM, flower),
        Row(System("nvflare", "–", "–", "not run"), failure="not installable: no such version"),
    ]


def test_the_table_has_a_line_for_each_system_and_says_why_one_failed() -> None:
    lines = table(report(rows(), 2.0, mb=400, participants=4, rounds=3)).splitlines()
    assert lines[0] == "400 MB, 4 participants, 3 rounds; bare gRPC: 2.00 s"
    assert lines[2:6] == [
        "system   version  s a round  CPU s  server MB  together  client MB  ratio  transport",
        "ours     0.1.0         2.60      –        183       183         94    1.3  gRPC, mutual TLS",
        "flower   1.41.0       25.50   41.3      5,300     7,400        900   12.8  HTTP, server TLS",
        "nvflare  –        failed: not installable: no such version",
    ]
    assert lines[7:] == ["ours: a", "flower: defaults", "nvflare: not run"]


def test_without_bare_grpc_there_is_no_ratio() -> None:
    found = report(rows()[1:2], None, mb=400, participants=4, rounds=2)
    assert found["systems"][0]["ratio"] is None
    assert found["systems"][0]["each"]["round_seconds"] == [30.0, 25.5]
    assert "bare gRPC: not measured" in table(found)


def test_a_system_that_cannot_be_installed_is_a_row_and_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = tmp_path / "requirements.txt"
    wanted.write_text("this is no requirement\n")
    monkeypatch.setattr(environments, "HERE", tmp_path)
    monkeypatch.setattr(
        run_flower.Flower, "_binaries", lambda _, job: environments.environment(job.cache / "v", wanted.name)
    )
    calls: list[list[str]] = []

    def pip(argv: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(argv)
        failing = "pip" in argv
        return subprocess.CompletedProcess(argv, int(failing))

    monkeypatch.setattr(environments, "subprocess", SimpleNamespace(run=pip, STDOUT=None, TimeoutExpired=TimeoutError))
    arguments = ["--systems", "flower", "--folder", str(tmp_path / "cache"), "--mb", "1", "--json", "-"]
    assert command.main(arguments) == 0
    (row,) = json.loads(capsys.readouterr().out)["systems"]
    assert row["failure"] == "not installable: pip said nothing"
    assert (row["name"], row["version"]) == ("flower", "–")
    assert row["load_before"] >= 0
    assert calls[-1][-2:] == ["--requirement", str(wanted)]
    assert list((tmp_path / "cache").iterdir()) == [], "nothing is left behind"


def test_an_unknown_system_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.parse_arguments(["--systems", "ours,openfl"])
    assert "'openfl' is none of ours, flower, nvflare, flower-insecure, nvflare-torch" in capsys.readouterr().err


def test_the_certificate_is_for_this_machine_and_the_key_is_private(tmp_path: Path) -> None:
    run_flower.write_certificate(tmp_path)
    assert (tmp_path / "key.pem").stat().st_mode & 0o077 == 0
    assert b"BEGIN CERTIFICATE" in (tmp_path / "cert.pem").read_bytes()
