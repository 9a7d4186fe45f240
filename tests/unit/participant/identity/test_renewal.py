"""Certificates renew themselves and keys rotate: when, how often after a failure, and what a crash at any point leaves."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from common.clock import Clock
from common.errors import CertificateExpired, CoordinatorUnreachable, TooManyRequests
from common.identity.certificates import validity
from common.identity.keys import SigningKey, is_encrypted
from common.statements.envelope import Parent, parse, sign, signed_under
from common.statements.kinds import Answer
from participant.identity import renewal as renewal_module
from participant.memory.orders import Order
from tests.support.coordinators import Coordinator
from tests.support.participants import RUN
from tests.support.standing import Standing

DAY = 86_400
LIFE_DAYS = 366
"""Of a certificate for 365 days: it begins a day before it is made."""


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    made = Coordinator(tmp_path / "coordinator")
    yield made
    made.close()


@pytest.fixture
def north(tmp_path: Path, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Standing]:
    monkeypatch.setattr(renewal_module, "SEEN_SECONDS", 0.0)
    made = Standing(tmp_path / "north", coordinator)
    made.catch_up()
    yield made
    made.close()


class Skewed:
    """A participant's clock beside the coordinator's."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock, self._ahead = clock, timedelta(seconds=seconds)

    def now(self) -> datetime:
        return self._clock.now() + self._ahead

    def monotonic(self) -> float:
        return self._clock.monotonic()


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


# --- when ------------------------------------------------------------------------------------------------------------


def test_it_renews_when_less_than_a_third_is_left_and_not_before(north: Standing) -> None:
    before = north.tls.certificate_id()
    north.renewal.at_start()
    north.coordinator.clock.advance(seconds=(LIFE_DAYS * 2 / 3 - 2) * DAY)
    north.renewal.tick()
    assert north.requests == []
    north.coordinator.clock.advance(seconds=2 * DAY)
    north.renewal.tick()
    assert north.tls.certificate_id() != before
    assert north.is_sound()
    assert north.session.renewed == 1
    north.renewal.tick()
    assert len(north.requests) == 1
    (event,) = north.records.events()
    assert (event.event, event.fields["serial"]) == ("certificate renewed", north.tls.certificate_id().serial)


def test_it_renews_on_order_and_once(north: Standing) -> None:
    north.orders.give(Order("renew", {}, "2026-01-01T00:00:00.000Z"))
    north.renewal.tick()
    north.renewal.tick()
    assert len(north.requests) == 1
    assert north.orders.get("renew") is None


def test_it_renews_when_the_coordinator_says_that_the_certificate_has_expired(north: Standing) -> None:
    north.renewal.demand()
    north.renewal.tick()
    north.renewal.tick()
    assert len(north.requests) == 1


def test_what_fails_is_tried_again_later_each_time(north: Standing, caplog: pytest.LogCaptureFixture) -> None:
    clock = north.coordinator.clock
    clock.advance(seconds=300 * DAY)
    north.failures = [CoordinatorUnreachable("no answer"), TooManyRequests("busy"), CoordinatorUnreachable("no answer")]
    pauses, waited = [], 0
    while not north.requests:
        left = len(north.failures)
        north.renewal.tick()
        if len(north.failures) < left:
            pauses.append(waited)
            waited = 0
        clock.advance(seconds=1)
        waited += 1
    assert pauses == [0, 15, 30]
    assert waited == 61
    assert [record.message for record in caplog.records].count("renewal failed") == 3
    assert north.is_sound()


# --- at start --------------------------------------------------------------------------------------------------------


def test_an_expired_certificate_is_renewed_at_start(north: Standing) -> None:
    north.coordinator.clock.advance(seconds=400 * DAY)
    north.restart()
    north.renewal.at_start()
    assert validity(north.tls.read()[1])[1] > north.coordinator.clock.now() + timedelta(days=364)


def test_one_that_cannot_be_renewed_says_why(north: Standing) -> None:
    north.coordinator.clock.advance(seconds=400 * DAY)
    north.failures = [CoordinatorUnreachable("No answer from memory.", "Look at the cable.")]
    with pytest.raises(
        CertificateExpired, match=r"of north expired at 2027-01-01T.* could not be renewed: No answer"
    ) as caught:
        north.renewal.at_start()
    assert caught.value.fix == "Look at the cable."


@pytest.mark.parametrize("hours", [-23, -1, 1, 23])
def test_a_clock_that_is_off_by_less_than_a_day_renews_in_time_and_what_it_gets_is_valid_by_both_clocks(
    tmp_path: Path, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    monkeypatch.setattr(renewal_module, "SEEN_SECONDS", 0.0)
    ours = Skewed(coordinator.clock, hours * 3600)
    north = Standing(tmp_path / "skewed", coordinator, clock=ours)
    north.catch_up()
    north.renewal.at_start()
    north.renewal.tick()
    assert north.requests == []
    coordinator.clock.advance(seconds=(LIFE_DAYS * 2 / 3 + 1) * DAY)
    north.renewal.tick()
    assert len(north.requests) == 1
    first, last = validity(north.tls.read()[1])
    assert all(first < clock.now() < last for clock in (ours, coordinator.clock))
    north.restart()
    north.renewal.at_start()
    north.renewal.tick()
    assert len(north.requests) == 1
    assert north.is_sound()
    north.close()


def test_a_clock_before_its_time_is_told_and_not_renewed(north: Standing) -> None:
    north.coordinator.clock.advance(seconds=-3 * DAY)
    with pytest.raises(CertificateExpired, match=r"The certificate of north is not yet valid"):
        north.renewal.at_start()
    assert north.requests == []


# --- rotation --------------------------------------------------------------------------------------------------------


def test_a_rotated_key_signs_from_its_roster_on(north: Standing) -> None:
    old = north.keys.to_sign().public
    north.orders.give(Order("rotate", {}, "2026-01-01T00:00:00.000Z"))
    north.renewal.rotate()
    assert north.is_sound()
    assert north.keys.to_sign().public == north.member.signing_key != old
    assert north.orders.get("rotate") is None
    assert [event.event for event in north.records.events()] == [
        "signing key made",
        "certificate renewed",
        "signing key rotated",
    ]
    assert not list(north.layout.identity.glob("next.*"))


def test_nothing_is_signed_while_nobody_knows_which_key_counts(north: Standing) -> None:
    north.lags = True
    north.renewal.rotate()
    assert north.keys.pending is not None
    with pytest.raises(CoordinatorUnreachable, match="nothing is signed until then"):
        north.keys.to_sign()
    size = north.coordinator.state.size
    for _ in range(3):
        north.renewal.tick()
    assert north.coordinator.state.size == size  # it waits for its copy, and does not ask again
    north.catch_up()
    assert north.keys.to_sign().public == north.member.signing_key
    north.renewal.tick()
    assert north.is_sound()


def test_an_offer_that_did_not_arrive_is_made_again_with_the_same_key(north: Standing) -> None:
    north.failures = [CoordinatorUnreachable("no answer")]
    north.renewal.rotate()
    pending = north.keys.pending
    assert pending is not None
    north.restart()
    north.renewal.at_start()
    north.renewal.tick()
    assert north.is_sound()
    assert north.keys.to_sign().public == pending.public


def test_what_was_signed_before_and_not_sent_is_the_same_statement_under_the_new_key(north: Standing) -> None:
    north.coordinator.start_run()
    north.catch_up()
    run = north.mirror.state.runs[RUN]
    answer = Answer(institution="north", run=RUN, accept=True, nonce="ab" * 32)
    signed = sign(answer, parent=Parent("plan", run.place.digest), key=north.keys.to_sign())
    assert signed_under(signed.envelope, north.keys.to_sign()) == signed.envelope
    north.renewal.rotate()
    again = signed_under(signed.envelope, north.keys.to_sign())
    assert again != signed.envelope
    assert parse(again).digest == signed.digest
    north.session.submit(again)
    assert north.coordinator.run.answers["north"].place.digest == signed.digest


def test_encrypted_homes_stay_encrypted(
    tmp_path: Path, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal_module, "SEEN_SECONDS", 0.0)
    north = Standing(tmp_path / "encrypted", coordinator, passphrase=b"correct horse")
    north.catch_up()
    north.renewal.rotate()
    assert north.is_sound()
    assert is_encrypted(north.layout.signing_key)
    assert is_encrypted(north.layout.tls_key)
    north.close()


@pytest.mark.parametrize("lags", [False, True], ids=["copy is new", "copy is old"])
@pytest.mark.parametrize("kill_at", range(1, 26))
def test_a_crash_at_any_point_of_a_rotation_leaves_the_key_that_the_roster_names(
    north: Standing, monkeypatch: pytest.MonkeyPatch, kill_at: int, lags: bool
) -> None:
    """Killed at each call that changes the disk, and right after the coordinator took the request."""
    calls, north.lags = 0, lags

    def step() -> None:
        nonlocal calls
        calls += 1
        if calls == kill_at:
            raise Killed

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            step()
            return real(*arguments, **options)

        return call

    north.after_reply = step
    with monkeypatch.context() as patch:
        for name in ("replace", "open", "fsync"):
            patch.setattr(os, name, counted(getattr(os, name)))
        with contextlib.suppress(Killed):
            north.renewal.rotate()
    north.after_reply, north.lags = lambda: None, False
    north.restart()
    if not lags:
        north.catch_up()
    north.renewal.at_start()
    for _ in range(2):
        north.renewal.tick()
        north.catch_up()
    north.renewal.tick()
    assert north.is_sound()
    assert SigningKey.load(north.layout.signing_key).public == north.member.signing_key


# --- homes from a backup ---------------------------------------------------------------------------------------------


def test_a_home_restored_from_before_the_last_renewal_renews_from_what_its_roster_says(north: Standing) -> None:
    kept = {path: path.read_bytes() for path in (north.layout.tls_key, north.layout.tls_certificate)}
    north.renewal.demand()
    north.renewal.tick()
    for path, content in kept.items():
        path.write_bytes(content)
    north.restart()
    north.renewal.demand()
    north.renewal.tick()
    assert north.is_sound()
    assert len(north.requests) == 2
