"""A new signing key that institutions have to approve: the one in use counts until then, and nothing is given up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.identity.certificates import validity
from participant.identity import renewal as renewal_module
from participant.identity.renewal import APPROVAL_PAUSE_SECONDS
from tests.support.coordinators import Coordinator
from tests.support.standing import Standing

DAY = 86_400


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    made = Coordinator(tmp_path / "coordinator", approvals={"roster": 2})
    yield made
    made.close()


@pytest.fixture
def north(tmp_path: Path, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Standing]:
    monkeypatch.setattr(renewal_module, "SEEN_SECONDS", 0.0)
    made = Standing(tmp_path / "north", coordinator)
    made.catch_up()
    yield made
    made.close()


def wait_a_turn(north: Standing) -> None:
    north.coordinator.clock.advance(seconds=APPROVAL_PAUSE_SECONDS)
    north.renewal.tick()


def test_the_present_key_signs_while_the_new_one_waits(north: Standing, caplog: pytest.LogCaptureFixture) -> None:
    before = north.keys.to_sign().public
    with caplog.at_level("INFO"):
        north.renewal.rotate()
        for _ in range(5):
            wait_a_turn(north)
    assert north.keys.pending is not None
    assert north.keys.to_sign().public == before == north.member.signing_key
    assert [record.message for record in caplog.records].count("rotation awaits approval") == 1
    assert [event.event for event in north.records.events()] == ["signing key made", "signing key awaits approval"]
    assert len(north.requests) == 6
    assert north.coordinator.desk.open_proposals == 1


def test_it_does_not_ask_at_each_tick(north: Standing) -> None:
    north.renewal.rotate()
    for _ in range(10):
        north.renewal.tick()
    assert len(north.requests) == 1


def test_once_approved_it_takes_over_at_the_next_tick_with_its_certificate(north: Standing) -> None:
    north.renewal.rotate()
    pending = north.keys.pending
    assert pending is not None
    north.coordinator.approve_all()
    north.catch_up()
    assert north.keys.to_sign().public == pending.public  # as soon as the own copy names it
    north.renewal.tick()
    assert north.is_sound()
    assert north.tls.certificate_id() == north.member.certificates[-1]
    assert not list(north.layout.identity.glob("next.*"))
    assert [event.event for event in north.records.events()][-1] == "signing key rotated"


def test_approved_before_the_copy_knows_it_waits_for_its_copy(north: Standing) -> None:
    north.renewal.rotate()
    north.coordinator.approve_all()
    north.lags = True
    wait_a_turn(north)  # the reply comes before the roster does
    assert north.keys.pending is not None
    north.lags = False
    north.catch_up()
    wait_a_turn(north)
    assert north.is_sound()


@pytest.mark.parametrize("approved", [False, True], ids=["waiting", "approved meanwhile"])
def test_a_restart_goes_on(north: Standing, approved: bool) -> None:
    north.renewal.rotate()
    pending = north.keys.pending
    assert pending is not None
    if approved:
        north.coordinator.approve_all()
        north.catch_up()
    north.restart()
    north.renewal.at_start()
    north.renewal.tick()
    if not approved:
        assert north.keys.to_sign().public == north.member.signing_key != pending.public
        assert len(north.coordinator.desk.proposals()) == 1
        north.coordinator.approve_all()
        north.catch_up()
        north.renewal.tick()
    assert north.is_sound()
    assert north.keys.to_sign().public == pending.public


def test_a_certificate_is_renewed_while_a_key_waits_and_the_key_is_offered_again(north: Standing) -> None:
    north.renewal.rotate()
    pending = north.keys.pending
    assert pending is not None
    north.coordinator.clock.advance(seconds=300 * DAY)
    north.renewal.tick()
    assert validity(north.tls.read()[1])[1] > north.coordinator.clock.now()
    assert north.tls.certificate_id() == north.member.certificates[-1]
    assert north.member.signing_key != pending.public
    north.renewal.tick()
    assert len(north.coordinator.desk.proposals()) == 1
    north.coordinator.approve_all()
    north.catch_up()
    north.renewal.tick()
    assert north.is_sound()
    assert north.keys.to_sign().public == pending.public


def test_an_expired_certificate_is_renewed_at_start_while_a_key_waits(north: Standing) -> None:
    north.renewal.rotate()
    north.coordinator.clock.advance(seconds=400 * DAY)
    north.restart()
    north.renewal.at_start()
    assert validity(north.tls.read()[1])[1] > north.coordinator.clock.now()
    assert north.keys.pending is not None
    assert north.tls.certificate_id() in north.member.certificates
