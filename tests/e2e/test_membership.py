"""Renewal, rotation, revocation and leaving with real daemons: rounds go on, and what was promised is in the ledger."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from common.clock import SystemClock, rfc3339
from common.identity.authority import Authority
from common.identity.certificates import certificate_id, validity
from common.identity.keys import SigningKey, TlsKey
from common.ledger.state import LedgerState
from common.statements.kinds import Member
from participant.config import HomeLayout
from participant.memory.orders import Order, OrderKind, Orders
from tests.support.federations import CONSORTIUM, NAMES, Federation, make_draft, until


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    with Federation(tmp_path / "federation", min_quorum=2) as running:
        yield running


def order(federation: Federation, name: str, kind: OrderKind, **payload: bool) -> None:
    """What the command writes."""
    orders = Orders(HomeLayout(federation.home(name)).journal)
    orders.give(Order(kind, dict(payload), rfc3339(SystemClock().now())))
    orders.close()


def member(state: LedgerState, name: str) -> Member:
    found = state.member(name)
    assert found is not None
    return found


def test_certificates_and_keys_change_while_a_run_goes_on(federation: Federation, tmp_path: Path) -> None:
    """bank renews, clinic rotates, both in the middle of a run; every contribution is verified under the key of its time."""
    federation.start_participants()
    before = {name: member(federation.state(), name) for name in NAMES}
    run = federation.start_run(make_draft(tmp_path / "draft", rounds=4))
    federation.wait_until_open(run, 1)
    order(federation, "bank", "renew")
    order(federation, "clinic", "rotate")
    record = federation.wait_until_ended(run)
    assert record.ended is not None
    assert record.ended.reason == "rounds-done"

    def changed(state: LedgerState) -> bool:
        return len(member(state, "bank").certificates) == 2 and len(member(state, "clinic").certificates) == 2

    federation.wait_for(changed, "bank and clinic have a second certificate")
    assert member(federation.state(), "bank").signing_key == before["bank"].signing_key
    assert member(federation.state(), "clinic").signing_key != before["clinic"].signing_key
    second = federation.start_run(make_draft(tmp_path / "again", run="tiny-000002", rounds=1))
    assert all(
        len(each.contributions) == 3 for each in (*record.committed(), *federation.wait_until_ended(second).committed())
    )
    layout = HomeLayout(federation.home("clinic"))
    key = until(
        lambda: not list(layout.identity.glob("next.*")) and SigningKey.load(layout.signing_key), "clinic's new key"
    )
    assert key.public == member(federation.state(), "clinic").signing_key
    assert certificate_id(layout.tls_certificate.read_bytes()) == member(federation.state(), "clinic").certificates[-1]
    assert federation.state().refusal_list == ()


def test_a_daemon_whose_certificate_expired_while_it_was_off_renews_it_at_start(federation: Federation) -> None:
    layout = HomeLayout(federation.home("bank"))
    authority = Authority.load(federation.coordinator_home / "identity")
    number = int(certificate_id(layout.tls_certificate.read_bytes()).serial, 16)
    request = TlsKey.load(layout.tls_key).csr("bank")
    ago = SystemClock().now() - timedelta(hours=1)
    layout.tls_certificate.write_bytes(authority.issue_institution(request, "bank", now=ago, days=0, serial=number))
    assert validity(layout.tls_certificate.read_bytes())[1] < SystemClock().now()
    federation.start_participant("bank")
    federation.wait_for(lambda state: len(member(state, "bank").certificates) == 2, "bank renewed its certificate")
    until(lambda: "certificate renewed" in federation.log("bank").read_text(), "bank's log says so")
    assert validity(layout.tls_certificate.read_bytes())[1] > SystemClock().now()


def test_who_leaves_in_the_middle_of_a_round_is_let_go_and_the_others_finish(
    federation: Federation, tmp_path: Path
) -> None:
    federation.hold("clinic")
    federation.start_participants()
    run = federation.start_run(make_draft(tmp_path / "draft", rounds=2, quorum=2))
    federation.wait_until_holding("clinic", run)
    leaving = federation.participants.pop("clinic")
    argv = (sys.executable, "-m", "participant", "leave", "--now", "--yes", "--home", str(federation.home("clinic")))
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    record = federation.wait_until_ended(run)
    state = federation.wait_for(
        lambda state: state if state.departures["clinic"].erased else None, "clinic's deltas are deleted"
    )
    assert member(state, "clinic").status == "left"
    assert [sorted(each.contributions) for each in record.committed()] == [["bank", "laboratory"]] * 2
    until(lambda: leaving.exit_code is not None, "clinic's daemon ends by itself")
    assert leaving.exit_code == 0
    evidence = federation.home("clinic") / "evidence"
    assert (evidence / "SHA256SUMS").exists()
    assert len((evidence / "ledger.jsonl").read_bytes().splitlines()) == state.departures["clinic"].erased.index + 1


def test_what_left_with_an_institution_is_gone_from_the_coordinators_disk(
    federation: Federation, tmp_path: Path
) -> None:
    federation.start_participants()
    run = federation.start_run(make_draft(tmp_path / "draft", rounds=1))
    record = federation.wait_until_ended(run)
    deltas = {name: entry.contribution.blobs["delta"] for name, entry in record.rounds[0].contributions.items()}
    assert all(federation.blob_path(ref).exists() for ref in deltas.values())
    leaving = federation.participants.pop("bank")
    order(federation, "bank", "leave", after_round=True)
    federation.wait_for(
        lambda state: "bank" in state.departures and state.departures["bank"].erased, "bank's deltas are deleted"
    )
    assert not federation.blob_path(deltas["bank"]).exists()
    assert federation.blob_path(deltas["clinic"]).exists()
    assert federation.blob_path(record.model).exists()
    until(lambda: leaving.exit_code is not None, "bank's daemon ends by itself")


def test_a_coordinator_killed_after_the_leave_keeps_the_promise_at_its_next_start(
    federation: Federation, tmp_path: Path
) -> None:
    federation.hold("laboratory")
    federation.start_participants()
    run = federation.start_run(make_draft(tmp_path / "draft", rounds=1, quorum=2))
    federation.wait_until_holding("laboratory", run)
    federation.wait_for(lambda state: "bank" in state.runs[run].rounds[0].contributions, "bank contributed")
    leaving = federation.participants.pop("bank")
    order(federation, "bank", "leave", after_round=False)
    federation.wait_for(lambda state: "bank" in state.departures, "bank said that it leaves")
    federation.kill_coordinator()
    assert federation.state().departures["bank"].erased is None  # its round is open still
    federation.start_coordinator()
    federation.release("laboratory")
    record = federation.wait_until_ended(run)
    assert "bank" in record.rounds[0].contributions
    federation.wait_for(lambda state: state.departures["bank"].erased, "bank's deltas are deleted")
    assert not federation.blob_path(record.rounds[0].contributions["bank"].contribution.blobs["delta"]).exists()
    until(lambda: leaving.exit_code is not None, "bank's daemon ends by itself")


def test_a_revoked_institution_is_out_of_the_round_and_its_daemon_says_why(
    federation: Federation, tmp_path: Path
) -> None:
    federation.hold("clinic")
    federation.start_participants()
    run = federation.start_run(make_draft(tmp_path / "draft", rounds=2, quorum=2))
    federation.wait_until_holding("clinic", run)
    revoked = federation.participants.pop("clinic")
    with federation.operator() as session:
        session.revoke("clinic", "key-lost")
    record = federation.wait_until_ended(run)
    assert [sorted(each.contributions) for each in record.committed()] == [["bank", "laboratory"]] * 2
    until(lambda: revoked.exit_code is not None, "clinic's daemon ends by itself")
    assert revoked.exit_code == 3
    log = federation.log("clinic").read_text()
    assert f"clinic is no active member of {CONSORTIUM} any more: revoked." in log
