"""llmasos-participant: what it prints, for people and for programs, and its exit codes."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.clock import SystemClock
from common.homes import HomeLock
from common.identity.authority import Authority
from common.identity.keys import TlsKey
from common.logs import PACKAGES
from common.terminal import exit_code_of
from common.wire.messages import Enrolment, EnrolmentRequest
from coordinator.ports import EnrolmentOffer
from participant import joining
from participant.cli import app
from participant.config import HomeLayout
from participant.joining import Joining
from participant.memory.journal import Egress, Journal
from participant.status import StatusFile
from tests.support.coordinators import Coordinator

Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _process_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`start` sets signals and logging, which are the process's."""
    monkeypatch.delenv("LLMASOS_HOME", raising=False)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    root = logging.getLogger()
    loggers = {name: logging.getLogger(name).level for name in PACKAGES}
    level = root.level
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    for item in [handler for handler in root.handlers if handler.get_name() == "llmasos"]:
        root.removeHandler(item)
        item.close()
    root.setLevel(level)
    for name, own in loggers.items():
        logging.getLogger(name).setLevel(own)


@pytest.fixture
def coordinator(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> Coordinator:
    """Reached without network."""

    def enrol(address: str, *, consortium: str, ca_pem: bytes, request: EnrolmentRequest) -> Enrolment:
        enrolled = coordinator.desk.enrol(
            EnrolmentOffer(
                request.invitation_id,
                request.secret,
                request.csr_der,
                request.signing_key,
                request.proof,
                request.encryption_key,
            )
        )
        return Enrolment(enrolled.certificate_pem, enrolled.roster_index)

    monkeypatch.setattr(joining, "enrol", enrol)
    coordinator.clock.advance(seconds=(SystemClock().now() - coordinator.clock.now()).total_seconds())
    return coordinator


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.md").write_text("text")
    return tmp_path / "text"


@pytest.fixture
def home(coordinator: Coordinator, data: Path, tmp_path: Path) -> Path:
    joining.join(tmp_path / "west", coordinator.invite("west"), Joining(data), coordinator.clock)
    return tmp_path / "west"


def run(*argv: str | Path) -> int:
    return exit_code_of(app, [str(word) for word in argv])


def test_the_status_of_a_daemon_that_never_ran(home: Path, data: Path, capsys: Output) -> None:
    assert run("status", "--home", home) == 0
    shown = capsys.readouterr().out
    for line in (r"institution +west of hospitals", r"daemon +not running", r"left, ever +0 bytes in 0 contrib"):
        assert re.search(line, shown), shown
    assert str(data) in shown.replace("\n", "")
    assert run("status", "--home", home, "--format", "quiet") == 0
    assert capsys.readouterr().out == "stopped\n"


def test_the_status_of_a_running_daemon_with_what_left_the_house(
    home: Path, coordinator: Coordinator, capsys: Output
) -> None:
    layout = HomeLayout(home)
    status = StatusFile(layout.status, coordinator.clock)
    status.connection("connected")
    status.doing("train round", run="tiny-0a1b2c", round=2)
    journal = Journal(layout.journal)
    now = "2026-01-01T00:00:00.000Z"
    # The statement of round 1 was sent twice, since its receipt was lost: two lots of bytes, one contribution.
    for kind, size, digest in (("delta", 100, "d1"), ("contribution", 7, "c1"), ("contribution", 7, "c1")):
        journal.book(Egress(now, kind, size, digest, "127.0.0.1:7443"))
    journal.close()
    assert run("status", "--home", home, "--format", "json") == 0
    shown = json.loads(capsys.readouterr().out)
    expected = {
        "institution": "west",
        "running": True,
        "pid": os.getpid(),
        "connection": "connected",
        "activity": "train round",
        "run": "tiny-0a1b2c",
        "round": 2,
        "bytes_sent": 114,
        "contributions": 1,
    }
    assert expected.items() <= shown.items()


def test_a_home_without_a_participant_is_a_usage_error(tmp_path: Path, capsys: Output) -> None:
    for command in ("start", "status"):
        assert run(command, "--home", tmp_path / "none") == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.startswith(f"error [not-initialised]: {tmp_path / 'none'} holds no participant.")


def test_a_second_daemon_on_a_home_is_refused(home: Path, capsys: Output) -> None:
    with HomeLock(home):
        assert run("start", "--home", home) == 1
    assert f"error [home-locked]: {home} is in use by the process {os.getpid()}" in capsys.readouterr().err


def test_a_daemon_whose_certificate_expired_says_so_before_it_connects(
    home: Path, coordinator: Coordinator, capsys: Output
) -> None:
    layout = HomeLayout(home)
    authority, request = Authority.load(coordinator.layout.identity), TlsKey.load(layout.tls_key).csr("west")
    layout.tls_certificate.write_bytes(authority.issue_institution(request, "west", now=SystemClock().now(), days=0))
    assert run("start", "--home", home) == 3
    shown = capsys.readouterr().err
    assert re.search(
        r"error \[certificate-expired\]: The certificate of west expired at .* and could not be renewed: .*\n  fix: ",
        shown,
    )


def test_a_wrong_option_is_a_usage_error(capsys: Output) -> None:
    assert run("status", "--nonsense") == 2
    assert "error [usage]: No such option '--nonsense'" in capsys.readouterr().err
