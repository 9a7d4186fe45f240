"""Who gets in, and who is put out: certificates, roster, roles, over real mutual TLS."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID

from common.blobs.reference import CHUNK_BYTES
from common.clock import ManualClock, SystemClock
from common.errors import (
    CertificateExpired,
    CoordinatorUnreachable,
    RoleMissing,
    UnknownCertificate,
)
from common.identity.authority import Authority
from common.identity.keys import TlsKey
from common.wire import convert
from common.wire.errors import rpc_errors
from coordinator.api.client import OperatorSession
from coordinator.api.enrolment import diagnose
from coordinator.ports import RunView
from tests.support.api import CONSORTIUM, REPORT, Consortium, Scene, listening


def test_a_certificate_that_the_roster_does_not_name_is_refused(scene: Scene) -> None:
    with pytest.raises(
        UnknownCertificate, match=r"No active member holds certificate [0-9a-f]+ as spiffe://hospitals/"
    ):
        scene.session("stranger").report(REPORT)


def test_a_certificate_of_another_authority_gets_no_answer(scene: Scene, tmp_path: Path) -> None:
    genuine, scene.consortium.authority = (
        scene.consortium.authority,
        Authority.create(CONSORTIUM, now=SystemClock().now()),
    )
    files = scene.consortium.tls("impostor")
    scene.consortium.authority = genuine
    impostor = OperatorSession(scene.addresses.work, scene.consortium.genesis, files)
    scene.sessions.append(impostor)
    with pytest.raises(CoordinatorUnreachable, match=r"No answer from the coordinator at 127\.0\.0\.1:"):
        impostor.report(REPORT)
    assert scene.ports.board.reports == []


def test_a_certificate_that_expired_under_an_open_connection_is_refused(tmp_path: Path) -> None:
    clock = ManualClock(SystemClock().now())
    consortium = Consortium(tmp_path, clock=clock)
    consortium.enrolled("north")
    with listening(consortium) as (_, addresses), consortium.session(addresses, "north") as north:
        assert north.report(REPORT) is True
        clock.advance(seconds=31 * 86_400)
        with pytest.raises(
            CertificateExpired, match=r"The certificate of spiffe://hospitals/institution/north has expired"
        ):
            north.report(REPORT)


def test_a_revoked_member_is_refused_at_its_next_call(scene: Scene) -> None:
    north = scene.session("north")
    assert north.report(REPORT) is True
    scene.ports.members.revoke("north")
    with pytest.raises(UnknownCertificate):
        north.report(REPORT)


def test_revoking_ends_an_open_download_at_its_next_message(scene: Scene) -> None:
    ref = scene.consortium.blob(bytes(3 * CHUNK_BYTES), "north")
    stream = scene.session("north").stubs().blobs.Get(convert.get_request_to_wire(ref, 0, 3))
    next(stream)
    scene.ports.members.revoke("north")
    with pytest.raises(UnknownCertificate), rpc_errors():
        list(stream)


def test_revoking_cancels_a_call_that_waits(scene: Scene) -> None:
    scene.ports.views.of_runs["tiny-000001"] = [RunView("tiny-000001", "tiny", "collecting", 1, 3)]
    scene.ports.views.gate = threading.Event()
    watching = scene.session("ops").watch("tiny-000001")
    next(watching)
    scene.ports.members.revoke("ops")
    scene.listeners.sweep()
    with pytest.raises(CoordinatorUnreachable, match="broke off, CANCELLED"):
        next(watching)
    scene.ports.views.gate.set()


@pytest.mark.parametrize(
    "call",
    [
        lambda session: session.institutions(),
        lambda session: session.runs(),
        lambda session: session.invite("south", expires_hours=72, roles=["trainer"]),
        lambda session: session.start_run(b"{}"),
        lambda session: list(session.watch("tiny")),
        lambda session: session.control("tiny", "abort", "no-reason"),
    ],
)
def test_operations_need_the_role_operator(scene: Scene, call: Any) -> None:
    needed = r"operator( or auditor or viewer)?"
    with pytest.raises(RoleMissing, match=rf"north has the roles trainer; \w+ needs the role {needed}\."):
        call(scene.session("north"))


def test_a_strangers_certificate_with_an_unreadable_name_is_diagnosed_and_no_bug(consortium: Consortium) -> None:
    """An X.400 address as alternative name: cryptography has an exception of its own for it."""
    key = TlsKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "north")])
    now = consortium.clock.now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.private_key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\x30\x02\xa3\x00"), False)
        .sign(key.private_key, hashes.SHA256())
    )
    found = diagnose(certificate.public_bytes(Encoding.PEM), consortium.ports.members, consortium.clock)
    assert (found.code, found.message) == (
        "unknown-certificate",
        "This certificate names nobody: it has no readable alternative name.",
    )
