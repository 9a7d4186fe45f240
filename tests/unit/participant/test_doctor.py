"""`doctor`: each fault by its own finding, with what to do, and none that ends the others."""

from __future__ import annotations

import os
import re
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from common.clock import rfc3339
from common.errors import CoordinatorUnreachable, LLMasOSError, NotInitialised, PortBlocked
from common.wire.messages import Diagnosis
from participant import joining
from participant.bench.worker_protocol import Hello
from participant.config import HomeLayout
from participant.doctor import Doctor, Finding, disk, network, worker
from participant.joining import Joining, join
from participant.memory.journal import Journal, KeptCheckpoint
from participant.status import StatusFile
from tests.support.coordinators import Coordinator
from tests.support.enrolling import Desk
from tests.support.participants import RUN


class FakeLink:
    """A worker that says hello; `hello` is what it says."""

    hello = Hello(
        pid=1, device="cuda", threads=2, capability="AVX2", versions={"torch": "2.4", "numpy": "2"}, isolated=True
    )
    settings: Any = None

    def __init__(self, settings: Any, **_: Any) -> None:
        FakeLink.settings = settings

    def start(self) -> Hello:
        return self.hello

    def stop(self) -> None:
        pass


class Practice:
    """A joined home, a coordinator that answers as it is told, and a worker that says hello."""

    def __init__(self, home: Path, coordinator: Coordinator) -> None:
        self.layout, self.coordinator = HomeLayout(home), coordinator
        self.clock = coordinator.clock
        self.faults: dict[str, LLMasOSError] = {}
        self.answer: Diagnosis | LLMasOSError = Diagnosis("ok", "good", "", rfc3339(self.clock.now()))

    def explain(self, address: str, genesis: object) -> LLMasOSError | None:
        return self.faults.get(address)

    def diagnose(self, address: str, **_: Any) -> Diagnosis:
        if isinstance(self.answer, LLMasOSError):
            raise self.answer
        return self.answer

    def examine(self) -> dict[str, Finding]:
        return {each.check: each for each in Doctor(self.layout.home, self.clock).examine()}

    def check(self, name: str, state: str, found: str, fix: str = "") -> None:
        """This check says so, and all others still said something."""
        findings = self.examine()
        assert set(findings) >= {"configuration", "data default", "disk space", "work port", "isolation"}
        finding = findings[name]
        assert finding.state == state, finding
        assert re.search(found, finding.found), finding
        assert re.search(fix, finding.fix), finding


@pytest.fixture
def practice(tmp_path: Path, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> Practice:
    monkeypatch.setattr(joining, "enrol", Desk(coordinator).enrol)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("private words")
    home = tmp_path / "west"
    join(home, coordinator.invite("west"), Joining(tmp_path / "text"), coordinator.clock)
    made = Practice(home, coordinator)
    monkeypatch.setattr(network, "explain", made.explain)
    monkeypatch.setattr(network, "diagnose", made.diagnose)
    monkeypatch.setattr(worker, "WorkerLink", FakeLink)
    return made


def test_a_sound_participant_has_no_failure_and_nothing_is_changed(practice: Practice) -> None:
    before = {path: path.stat().st_mtime_ns for path in practice.layout.home.rglob("*") if path.is_file()}
    status = StatusFile(practice.layout.status, practice.clock)
    status.connection("connected")
    status.doing("waiting for a plan or a round")
    findings = practice.examine()
    assert {name: each.state for name, each in findings.items() if each.state != "ok"} == {}
    assert findings["data default"].found.endswith("text: 1 .txt (13 bytes)")
    assert findings["work port"].found == "127.0.0.1:7443 answers directly, as the coordinator"
    assert findings["worker"].found == "trains on cuda, CPU threads: 2 (AVX2); torch 2.4"
    after = {path: path.stat().st_mtime_ns for path in practice.layout.home.rglob("*") if path.is_file()}
    assert {path: when for path, when in after.items() if path != practice.layout.status} == before


def test_a_home_without_a_participant_is_not_examined(tmp_path: Path, coordinator: Coordinator) -> None:
    with pytest.raises(NotInitialised):
        list(Doctor(tmp_path / "none", coordinator.clock).examine())


# --- home --------------------------------------------------------------------------------------------------------------------


def test_keys_that_others_may_read_are_named_with_the_command_that_closes_them(practice: Practice) -> None:
    practice.layout.signing_key.chmod(0o644)
    practice.layout.home.chmod(0o755)
    key, home = re.escape(str(practice.layout.signing_key)), re.escape(str(practice.layout.home))
    practice.check("permissions", "fail", rf"{home} has mode 0755, {key} has mode 0644", rf"chmod 600 {key}")


def test_a_workers_account_may_pass_through_the_home(practice: Practice) -> None:
    practice.layout.home.chmod(0o710)
    practice.check("permissions", "fail", r"has mode 0710", r"chmod 700")
    text = practice.layout.config.read_text()
    practice.layout.config.write_text(text.replace("worker:\n", "worker:\n  user: nobody\n"))
    practice.check("permissions", "ok", r"for their owner alone")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_home_of_another_account_is_warned_of(practice: Practice) -> None:
    os.chown(practice.layout.tls_key, 65534, 65534)
    practice.check("permissions", "warn", r"tls\.key\.pem belongs to another account \(uid 65534\)", r"one account")


def test_a_damaged_key_is_named_and_the_other_checks_go_on(practice: Practice) -> None:
    practice.layout.signing_key.write_bytes(b"")
    practice.check("keys", "fail", r"signing\.key\.pem \(0 bytes\) holds no Ed25519 private key", r"backup")


def test_a_missing_certificate_is_a_finding_of_each_check_that_needs_it(practice: Practice) -> None:
    practice.layout.tls_certificate.unlink()
    practice.check("certificate", "fail", r"tls\.pem: no such file")


@pytest.mark.parametrize(
    ("days", "state", "found"),
    [
        (0.04, "ok", "valid"),
        (-0.04, "ok", "valid"),
        (1, "ok", r"valid for \d+ days"),
        (350, "warn", r"ends in 15 days, .*renewal"),
        (370, "fail", r"expired 5"),
    ],
)
def test_the_life_of_the_certificate_is_told(practice: Practice, days: float, state: str, found: str) -> None:
    practice.clock.advance(seconds=days * 86400)
    practice.check("certificate", state, found, "" if state == "ok" else r"renews it by itself")


def test_a_clock_more_than_a_day_behind_is_told_by_the_certificate(practice: Practice) -> None:
    practice.clock.advance(seconds=-1.1 * 86400)
    practice.check(
        "certificate", "fail", r"is not yet valid: valid from .*, this clock says", "Check this machine's clock"
    )


def test_a_broken_policy_is_told_by_line(practice: Practice) -> None:
    text = practice.layout.policy.read_text()
    practice.layout.policy.write_text(text.replace("min_quorum: 3", "min_quorum: many"))
    practice.check("policy", "fail", r"policy\.yaml:\d+: .*min_quorum")


def test_data_that_went_away_is_told(practice: Practice, tmp_path: Path) -> None:
    (tmp_path / "text" / "a.txt").unlink()
    practice.check("data default", "fail", r"text holds no .*\.txt")


# --- disk --------------------------------------------------------------------------------------------------------------------


def test_room_is_judged_by_what_open_runs_need(
    practice: Practice, tmp_path: Path, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator.start_run()
    with closing(Journal(practice.layout.journal)) as journal:
        ledger = coordinator.ledger.slice(0, max_bytes=2**24, wait_seconds=0).envelopes
        journal.keep([(index, f"{index:064x}", envelope) for index, envelope in enumerate(ledger)])
    monkeypatch.setattr(disk, "disk_bytes", lambda statement: 3 * disk.GB)
    for free, state in ((2, "fail"), (5, "warn"), (7, "ok")):
        usage = lambda path, free=free: type("Usage", (), {"free": free * disk.GB})  # noqa: E731
        monkeypatch.setattr(disk.shutil, "disk_usage", usage)
        practice.check("disk space", state, rf"{free}\.0 GB free .*; {RUN} may need 3\.0 GB more")


def test_a_slow_disk_is_warned_of(practice: Practice, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(100))
    monkeypatch.setattr(disk.time, "perf_counter", lambda: float(next(ticks)))
    practice.check("disk writes", "warn", r"takes 1000 ms, expected at most 100", r"local disk")


# --- coordinator -------------------------------------------------------------------------------------------------------------


def test_a_port_that_is_not_reached_fails_with_why(practice: Practice) -> None:
    practice.faults["127.0.0.1:7443"] = PortBlocked("127.0.0.1:7443 refused the connection.")
    practice.check("work port", "fail", r"7443 refused", r"Ask the network's owner")
    assert practice.examine()["enrol port"].state == "ok"


def test_a_refused_certificate_fails_with_the_coordinators_words(practice: Practice) -> None:
    practice.answer = Diagnosis("unknown-certificate", "No active member.", "Join.", rfc3339(practice.clock.now()))
    practice.check("membership", "fail", r"refuses: No active member\. \(unknown-certificate\)", r"Join\.")


@pytest.mark.parametrize(
    ("seconds", "state", "found"),
    [
        (59, "ok", "within 59 s"),
        (61, "warn", "61 s ahead of the coord"),
        (-3600, "warn", "3,600 s behind the coord.*deadlines are the coordinator's"),
        (86_399, "warn", "86,399 s ahead"),
        (90_000, "fail", "90,000 s ahead of .*connections are refused"),
        (-90_000, "fail", "90,000 s behind .*connections are refused"),
    ],
)
def test_a_clock_that_differs_is_warned_of(practice: Practice, seconds: int, state: str, found: str) -> None:
    told = practice.clock.now() - timedelta(seconds=seconds)
    practice.answer = Diagnosis("ok", "good", "", rfc3339(told))
    practice.check("clock", state, found, "" if state == "ok" else "NTP")


def test_without_an_answer_membership_and_clock_are_not_known(practice: Practice) -> None:
    practice.answer = CoordinatorUnreachable("No answer.")
    practice.check("membership", "warn", r"not known, since the enrolment port does not answer")
    practice.check("clock", "warn", r"not known")


# --- daemon and worker -------------------------------------------------------------------------------------------------------


def test_a_daemon_that_does_not_reach_the_coordinator_is_told_with_why(practice: Practice) -> None:
    practice.check("daemon", "warn", r"not running \(never started\)", r"llmasos-participant start")
    StatusFile(practice.layout.status, practice.clock).connection("unreachable", "The name has no address.")
    practice.check("daemon", "warn", rf"runs \(process {os.getpid()}\), but .*: The name has no address")


def test_a_daemon_that_two_histories_stopped_is_told_so(practice: Practice) -> None:
    with closing(Journal(practice.layout.journal)) as journal:
        journal.keep_checkpoints("conflicting", [KeptCheckpoint(30, "ab", b"note", rfc3339(practice.clock.now()))])
    practice.check("daemon", "fail", r"does not start: two histories were shown", r"evidence export FILE")


def test_a_worker_that_is_not_kept_apart_is_told_what_to_set(
    practice: Practice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeLink, "hello", FakeLink.hello.model_copy(update={"isolated": False}))
    practice.check("isolation", "warn", r"accidents only", r"worker\.user.*worker\.isolate_network: true")
    text = practice.layout.config.read_text()
    practice.layout.config.write_text(text.replace("isolate_network: false", "isolate_network: true"))
    practice.check("isolation", "warn", r"accidents only", r"participant\.yaml worker\.user.*\)\.$")
    assert FakeLink.settings.isolate_network is True
    assert not FakeLink.settings.job_root.exists()


def test_a_gpu_that_is_not_used_is_pointed_out(
    practice: Practice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(worker, "NVIDIA_DEVICE", tmp_path / "nvidia0")
    monkeypatch.setattr(FakeLink, "hello", FakeLink.hello.model_copy(update={"device": "cpu: x86_64"}))
    practice.check("worker", "warn", r"trains on cpu.*has an NVIDIA GPU", r"torch with CUDA")
