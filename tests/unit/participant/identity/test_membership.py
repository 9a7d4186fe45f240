"""Leaving as the institution does it: signed once for each roster, sent until it is in the ledger, and waited for."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import CoordinatorUnreachable, UnknownCertificate, UsageError
from common.evidence.read import read_bundle
from common.ledger.rules import admit, start
from common.statements.envelope import parse
from common.statements.kinds import Control
from participant.identity import membership as membership_module
from participant.memory.evidence import export_evidence
from participant.memory.journal import Egress, SignedSlot
from tests.support.coordinators import Coordinator
from tests.support.standing import Standing


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    made = Coordinator(tmp_path / "coordinator")
    yield made
    made.close()


@pytest.fixture
def north(tmp_path: Path, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Standing]:
    """Its coordinator's engine takes its turn at each submission."""
    monkeypatch.setattr(membership_module, "SEEN_SECONDS", 0.0)
    made = Standing(tmp_path / "north", coordinator)
    made.session.after_submit = coordinator.advance
    made.catch_up()
    yield made
    made.close()


def leave(north: Standing) -> bool:
    return north.membership.leave(threading.Event())


def test_it_leaves_and_keeps_the_proof(north: Standing) -> None:
    assert leave(north) is True
    departure = north.mirror.state.departures["north"]
    assert departure.erased is not None
    assert north.member.status == "left"
    (booked,) = north.journal.egress()
    assert (booked.kind, booked.bytes) == ("leave", len(north.session.submitted[0]))
    control = parse(north.session.submitted[0]).predicate
    assert isinstance(control, Control)
    assert (control.action, control.institution, control.run) == ("leave", "north", None)
    ledger = (north.layout.evidence / "ledger.jsonl").read_bytes().splitlines()
    assert hashlib.sha256(base64.b64decode(json.loads(ledger[-1])["payload"])).hexdigest() == departure.erased.digest


def test_evidence_is_there_before_anything_is_sent(north: Standing) -> None:
    north.failures = [CoordinatorUnreachable("no answer")]
    with pytest.raises(CoordinatorUnreachable):
        leave(north)
    assert (north.layout.evidence / "SHA256SUMS").exists()
    assert north.session.submitted == []


def test_after_a_crash_the_same_bytes_are_sent_again(north: Standing) -> None:
    north.failures = [CoordinatorUnreachable("no answer")]
    with pytest.raises(CoordinatorUnreachable):
        leave(north)
    (signed,) = north.journal.all_signed()
    north.restart()
    north.session.after_submit = north.coordinator.advance
    assert leave(north) is True
    assert north.session.submitted == [signed.envelope]


def test_a_lost_reply_is_no_obstacle(north: Standing) -> None:
    """The leave was taken, the roster says so, and its certificate is good for following alone."""

    def lost() -> None:
        north.coordinator.advance()
        raise CoordinatorUnreachable("the reply was lost")

    north.session.after_submit = lost
    with pytest.raises(CoordinatorUnreachable):
        leave(north)
    assert "north" not in north.mirror.state.departures
    real, tried = north.session.submit, []

    def submit(envelope: bytes) -> int:
        tried.append(envelope)
        north.catch_up()  # as the follower does meanwhile
        return int(real(envelope))

    north.session.submit = submit
    assert leave(north) is True
    assert len(tried) == 1


def test_a_certificate_that_is_refused_for_good_is_told(north: Standing) -> None:
    north.coordinator.desk.revoke("north", "operator")
    with pytest.raises(UnknownCertificate, match="any more: revoked"):
        leave(north)


def test_a_roster_that_changed_meanwhile_asks_for_another_leave(north: Standing) -> None:
    north.coordinator.enrol("west")
    real = north.mirror.wait_beyond

    def wait(size: int, timeout: float) -> object:
        north.catch_up()
        return real(size, timeout)

    north.mirror.wait_beyond = wait  # type: ignore[method-assign, assignment]
    assert leave(north) is True
    assert len(north.journal.all_signed()) == 2
    assert len(north.session.submitted) == 2


def test_it_waits_for_the_word_until_it_is_stopped(north: Standing) -> None:
    north.session.after_submit = lambda: None
    stopping = threading.Event()
    stopping.set()
    assert north.membership.leave(stopping) is False
    assert "north" in north.mirror.state.departures
    north.coordinator.advance()
    north.catch_up()
    assert leave(north) is True
    assert len(north.session.submitted) == 1


def test_a_follower_that_must_not_go_on_ends_the_wait(north: Standing) -> None:
    north.session.after_submit = lambda: None
    north.follower.failure = CoordinatorUnreachable("two histories")
    assert leave(north) is False


# --- evidence --------------------------------------------------------------------------------------------------------


def test_evidence_is_whole_and_can_be_checked_without_this_program(north: Standing, tmp_path: Path) -> None:
    north.journal.sign(
        SignedSlot("answer/ab", "ab" * 32, b'{"payload":"x"}', b"losses", b"salt", "2026-01-01T00:00:00.000Z")
    )
    north.journal.book(Egress("2026-01-01T00:00:00.000Z", "answer", 15, "ab" * 32, "127.0.0.1:7443"))
    files = export_evidence(north.layout, "north", tmp_path / "evidence")
    assert [path.name for path in files] == [
        "evidence.llmasos",
        "genesis.json",
        "ledger.jsonl",
        "signed.jsonl",
        "egress.csv",
        "SHA256SUMS",
    ]
    assert len((tmp_path / "evidence" / "SHA256SUMS").read_text().splitlines()) == len(files) - 1
    with read_bundle(tmp_path / "evidence" / "evidence.llmasos") as bundle:
        assert list(bundle.envelopes) == north.journal.ledger()
    for line in (tmp_path / "evidence" / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((tmp_path / "evidence" / name).read_bytes()).hexdigest() == digest
    state = start((tmp_path / "evidence" / "genesis.json").read_bytes()).state
    entries = (tmp_path / "evidence" / "ledger.jsonl").read_bytes().splitlines()
    for envelope in entries[1:]:
        state = admit(state, envelope).state
    assert state.size == north.mirror.state.size == len(entries)
    (signed,) = [json.loads(line) for line in (tmp_path / "evidence" / "signed.jsonl").read_text().splitlines()]
    assert (signed["envelope"], base64.b64decode(signed["metrics"])) == ('{"payload":"x"}', b"losses")
    with (tmp_path / "evidence" / "egress.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[1] == ["2026-01-01T00:00:00.000Z", "answer", "15", "ab" * 32, "127.0.0.1:7443"]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files)


def test_no_folder_is_overwritten_that_is_not_an_earlier_export(north: Standing, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    for replace in (False, True):
        with pytest.raises(UsageError, match=r"mine exists already\."):
            export_evidence(north.layout, "north", folder, replace=replace)
    assert (folder / "thesis.txt").exists()
    export_evidence(north.layout, "north", tmp_path / "evidence")
    with pytest.raises(UsageError, match="exists already"):
        export_evidence(north.layout, "north", tmp_path / "evidence")
    export_evidence(north.layout, "north", tmp_path / "evidence", replace=True)
