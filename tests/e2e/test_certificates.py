"""Certificates over real TLS: only the roster's get in, and an institution's is no server's."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from common.clock import SystemClock
from common.errors import CoordinatorUnreachable
from common.identity.authority import Authority
from common.identity.invitation import open_genesis
from common.identity.keys import TlsKey
from common.wire.channel import ServerTls, work_server_credentials
from common.wire.session import Session, TlsFiles
from participant.config import HomeLayout
from tests.support.federations import CONSORTIUM, Federation
from tests.support.mallory import credentials, work_address
from tests.support.wire_client import Credentials, Refused, WireClient, refusal


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    with Federation(tmp_path / "federation", ("clinic", "mallory")) as running:
        yield running


def test_only_certificates_of_the_roster_get_in(federation: Federation, tmp_path: Path) -> None:
    now, address, ours = SystemClock().now(), work_address(federation), credentials(federation)
    authority = Authority.load(federation.coordinator_home / "identity")
    other = Authority.create(CONSORTIUM, now=now)
    key = TlsKey.generate()
    request = key.csr("clinic")
    unavailable, unknown = Refused("", "UNAVAILABLE"), Refused("unknown-certificate", "UNAUTHENTICATED")
    certificates = {
        "of another authority": (other.issue_institution(request, "clinic", now=now, days=30), unavailable),
        "of the authority, in no roster": (authority.issue_institution(request, "clinic", now=now, days=30), unknown),
        "expired": (
            authority.issue_institution(request, "clinic", now=now - timedelta(hours=1), days=0),
            unavailable,
        ),
        "a coordinator's": (authority.issue_coordinator(request, now=now, days=30), unavailable),
        "none": (None, unavailable),
    }
    for name, (certificate, expected) in certificates.items():
        pem = key.private_pem if certificate else None
        with WireClient(address, Credentials(ours.authority, ours.server_name, pem, certificate)) as stranger:
            assert refusal(stranger.follow) == expected, name
    with WireClient(str(federation.addresses()["enrolment"]), Credentials(ours.authority, ours.server_name)) as outside:
        diagnoses = {name: outside.diagnose(pem) for name, (pem, _) in certificates.items() if pem}
    assert diagnoses == {
        "of another authority": "unknown-certificate",
        "of the authority, in no roster": "unknown-certificate",
        "expired": "certificate-expired",
        "a coordinator's": "unknown-certificate",
    }
    with WireClient(address, ours) as member:
        assert len(member.follow()) == len(federation.entries())


def test_an_institutions_certificate_is_no_servers(federation: Federation) -> None:
    layout = HomeLayout(federation.home("mallory"))
    ours = credentials(federation)
    assert ours.key is not None
    assert ours.certificate is not None
    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    tls = work_server_credentials(ServerTls(ours.key, ours.certificate, ours.authority))
    port = server.add_secure_port("127.0.0.1:0", tls)
    server.start()
    try:
        genesis = open_genesis(layout.genesis.read_bytes())[1]
        clinic = HomeLayout(federation.home("clinic"))
        files = TlsFiles(clinic.tls_key, clinic.tls_certificate)
        with Session(f"127.0.0.1:{port}", genesis, files) as session, pytest.raises(CoordinatorUnreachable):
            session.follow(from_index=0, wait_seconds=0)
    finally:
        server.stop(0).wait()


def test_an_institutions_certificate_accepts_no_connection_even_where_names_are_not_checked(
    federation: Federation,
) -> None:
    layout, ours = HomeLayout(federation.home("mallory")), credentials(federation)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(layout.tls_certificate, layout.tls_key)
    client = ssl.create_default_context(cadata=ours.authority.decode())
    client.check_hostname = False
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            connection, _ = listener.accept()
            with connection, pytest.raises(OSError, match=r".*"):
                server.wrap_socket(connection, server_side=True)

        thread = threading.Thread(target=accept)
        thread.start()
        with (
            socket.create_connection(listener.getsockname()) as connection,
            pytest.raises(ssl.SSLCertVerificationError, match=r"purpose"),
        ):
            client.wrap_socket(connection)
        thread.join()
