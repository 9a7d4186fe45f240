"""The coordinator's own certificate: renewed in time, seen by connections made later, and no reason to end one that stands."""

from __future__ import annotations

import socket
import ssl
from datetime import timedelta
from pathlib import Path

import pytest

from common.clock import ManualClock, SystemClock
from common.errors import StorageFailure
from common.identity.authority import Authority
from common.identity.certificates import certificate_id, validity
from common.identity.keys import TlsKey
from common.identity.tls_pair import TlsPair
from coordinator.members.server_certificate import AGAIN_SECONDS, ServerCertificate, ServerCertificatePorts
from tests.support.api import REPORT, Consortium, listening

DAY = 86_400


def a_pair(folder: Path, authority: Authority, *, days: int, clock: ManualClock) -> TlsPair:
    """On disk: a certificate for `days`."""
    key, pair = TlsKey.generate(), TlsPair(folder / "tls.key.pem", folder / "tls.pem")
    key.save(pair.key)
    now = clock.now()
    pair.certificate.write_bytes(authority.issue_coordinator(key.csr("coordinator"), now=now, days=days))
    return pair


def serial(pem: bytes) -> str:
    return certificate_id(pem).serial


class World:
    """An authority, a pair of 30 days on disk, and a clock that a test moves."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.authority = Authority.create("hospitals", now=self.clock.now(), ca_days=300)
        self.pair = a_pair(folder, self.authority, days=30, clock=self.clock)

    def certificate(self) -> ServerCertificate:
        return ServerCertificate(ServerCertificatePorts(self.pair, self.authority, self.clock, days=30))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_it_stays_until_less_than_a_third_of_its_life_is_left(world: World) -> None:
    certificate = world.certificate()
    first = certificate.current()
    world.clock.advance(seconds=19 * DAY)  # of 31 days, one of them before it was made
    assert certificate.current() is first
    world.clock.advance(seconds=2 * DAY)
    second = certificate.current()
    assert serial(second.certificate_pem) != serial(first.certificate_pem)
    assert second.key_pem != first.key_pem
    assert validity(second.certificate_pem)[1] > world.clock.now() + timedelta(days=29)
    assert world.pair.read() == (second.key_pem, second.certificate_pem)
    assert certificate.current() is second


def test_an_expired_one_is_renewed_at_start(world: World) -> None:
    world.clock.advance(seconds=100 * DAY)
    assert validity(world.certificate().current().certificate_pem)[1] > world.clock.now()


def test_a_failing_disk_leaves_the_old_one_and_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, tried = world.certificate(), 0

    def fail(self: TlsPair, pem: bytes) -> None:
        nonlocal tried
        tried += 1
        raise StorageFailure("read-only")

    world.clock.advance(seconds=25 * DAY)
    before = world.pair.read()
    with monkeypatch.context() as patch:
        patch.setattr(TlsPair, "switch", fail)
        for _ in range(3):
            assert certificate.current().certificate_pem == before[1]
        assert tried == 1
    world.clock.advance(seconds=AGAIN_SECONDS)
    assert certificate.current().certificate_pem != before[1]


def test_an_authority_that_ends_soon_is_not_asked_at_each_handshake(world: World) -> None:
    certificate = world.certificate()
    world.clock.advance(seconds=299 * DAY)
    first = certificate.current()
    assert certificate.current() is first


def served(address: str) -> str:
    """Serial of the certificate that a new connection to the enrolment listener gets."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=10) as raw, context.wrap_socket(raw) as connection:
        der = connection.getpeercert(binary_form=True)
    assert der is not None
    return serial(ssl.DER_cert_to_PEM_cert(der).encode())


def test_a_later_channel_sees_the_new_certificate_while_an_old_one_goes_on(tmp_path: Path) -> None:
    half_a_day = DAY / 2
    consortium, clock = Consortium(tmp_path), ManualClock(SystemClock().now() - timedelta(seconds=half_a_day))
    consortium.enrolled("north")
    folder = tmp_path / "server"
    folder.mkdir()
    pair = a_pair(folder, consortium.authority, days=1, clock=clock)
    consortium.tls_source = ServerCertificate(ServerCertificatePorts(pair, consortium.authority, clock, days=1))
    with listening(consortium) as (_, addresses), consortium.session(addresses, "north") as old:
        assert old.report(REPORT) is True
        first = served(addresses.enrolment)
        clock.advance(seconds=half_a_day)
        second = served(addresses.enrolment)
        assert first != second == pair.certificate_id().serial
        assert old.report(REPORT) is True
        with consortium.session(addresses, "north") as new:
            assert new.report(REPORT) is True
