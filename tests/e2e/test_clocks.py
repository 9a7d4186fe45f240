"""Clocks that are an hour off, and a certificate that ends in the middle of a round, with real daemons over real TLS."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from common.clock import SystemClock, rfc3339
from common.identity import authority as authority_module
from common.identity.authority import Authority
from common.identity.certificates import certificate_id, validity
from common.identity.invitation import parse_invitation
from common.identity.keys import TlsKey
from llmasos.simulation.processes import Child
from participant.config import HomeLayout
from participant.joining import Joining, join
from participant.memory.orders import Order, Orders
from tests.support import skewed_participant
from tests.support.federations import Federation, make_draft, until
from tests.support.skewed_participant import SkewedClock

HOUR = 3600.0
AHEAD = {"bank": HOUR, "clinic": -HOUR, "laboratory": 0.0}
LIFE_SECONDS = 60
"""Renewal is due in the last third."""


class SkewedFederation(Federation):
    """Each institution lives by its own clock."""

    def join_by_its_clock(self, name: str) -> None:
        """Into a home of its own, with an invitation for as long as the default; says what it gets is valid."""
        with self.operator() as session:
            invitation = session.invite(f"late-{name}", expires_hours=72, roles=("trainer",))
        home = self.folder / f"late-{name}"
        join(home, parse_invitation(str(invitation)), Joining(self.data(name)), SkewedClock(AHEAD[name]))
        first, last = validity(HomeLayout(home).tls_certificate.read_bytes())
        assert first < SkewedClock(AHEAD[name]).now() < last

    def start_participant(self, name: str) -> Child:
        script = (sys.executable, "-P", skewed_participant.__file__, str(AHEAD[name]))
        argv = (*script, "start", "--home", str(self.home(name)))
        self.participants[name] = self.processes.start(name, argv, log=self.log(name), lifeline=True)
        return self.participants[name]


def test_institutions_whose_clocks_are_an_hour_off_join_contribute_and_renew(tmp_path: Path) -> None:
    with SkewedFederation(tmp_path / "federation") as federation:
        federation.start_participants()
        run = federation.start_run(make_draft(tmp_path / "draft", rounds=2, deadline_seconds=600))
        for name in ("bank", "clinic"):
            orders = Orders(HomeLayout(federation.home(name)).journal)
            orders.give(Order("renew", {}, rfc3339(SystemClock().now())))
            orders.close()
        record = federation.wait_until_ended(run)
        assert [set(each.contributions) for each in record.committed()] == [set(AHEAD)] * 2
        for name in ("bank", "clinic"):
            federation.wait_for(
                lambda state, name=name: len(state.member(name).certificates) == 2, f"{name} renewed its certificate"
            )
        assert federation.state().refusal_list == ()
        for name in ("bank", "clinic"):
            federation.join_by_its_clock(name)


def test_a_certificate_that_ends_in_the_middle_of_a_round_is_renewed_and_the_round_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Federation(tmp_path / "federation") as federation:
        federation.start_participant("bank")
        federation.start_participant("laboratory")
        federation.hold("clinic")
        ends = _shorten(federation, "clinic", monkeypatch)
        federation.start_participant("clinic")
        run = federation.start_run(make_draft(tmp_path / "draft", rounds=1, deadline_seconds=600))
        worker = federation.wait_until_holding("clinic", run)
        clinic = federation.state().member("clinic")
        assert clinic is not None
        assert len(clinic.certificates) == 1, "the round is under way and nothing was due yet"
        until(lambda: SystemClock().now() > ends, "the certificate has ended", LIFE_SECONDS + 10)
        renewed = federation.state().member("clinic")
        assert renewed is not None
        assert len(renewed.certificates) == 2
        layout = HomeLayout(federation.home("clinic"))
        assert certificate_id(layout.tls_certificate.read_bytes()) == renewed.certificates[-1]
        assert federation.wait_until_holding("clinic", run) == worker, "it still trains"
        record = federation.state().runs[run].current
        assert record is not None
        assert record.number == 1
        assert record.closed is None
        federation.release("clinic")
        ended = federation.wait_until_ended(run)
        assert [set(each.contributions) for each in ended.committed()] == [{"bank", "clinic", "laboratory"}]
        assert federation.state().refusal_list == ()


def _shorten(federation: Federation, name: str, monkeypatch: pytest.MonkeyPatch) -> datetime:
    """Give an institution the certificate that it has, but of a short life that begins now; when it ends."""
    layout = HomeLayout(federation.home(name))
    authority = Authority.load(federation.coordinator_home / "identity")
    number = int(certificate_id(layout.tls_certificate.read_bytes()).serial, 16)
    request, now = TlsKey.load(layout.tls_key).csr(name), SystemClock().now()
    with monkeypatch.context() as patch:
        patch.setattr(authority_module, "_BACKDATED", timedelta(seconds=LIFE_SECONDS))
        until = now + timedelta(seconds=LIFE_SECONDS)
        layout.tls_certificate.write_bytes(authority.issue_institution(request, name, now=until, days=0, serial=number))
    return until
