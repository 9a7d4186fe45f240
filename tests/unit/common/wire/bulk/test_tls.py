"""Who gets through the handshake, at both ends; and where the private key lies meanwhile."""

from __future__ import annotations

import ssl
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from common.identity.authority import Authority
from common.identity.certificates import coordinator_dns
from common.identity.keys import TlsKey
from common.wire.bulk.line import Line, LineBroken
from common.wire.bulk.tls import client_context, server_context
from tests.support.api import CONSORTIUM
from tests.support.bulk import NAME, Contexts, tcp_pair


def handshake(
    calling: ssl.SSLContext, listening: ssl.SSLContext, name: str = NAME
) -> tuple[Line | LineBroken, Line | LineBroken]:
    """What it comes to for the caller and for the listening end."""

    def line(*arguments: Any, **options: Any) -> Line | LineBroken:
        try:
            return Line(*arguments, **options)
        except LineBroken as broken:
            return broken

    ours, theirs = tcp_pair()
    with ThreadPoolExecutor(1) as threads, ours, theirs:
        accepted = threads.submit(line, theirs, listening, server_hostname=None, seconds=30)
        return line(ours, calling, server_hostname=name, seconds=30), accepted.result(timeout=30)


def caller(contexts: Contexts, authority: Authority | None = None) -> ssl.SSLContext:
    """A member's context, with a certificate of `authority`."""
    key, issued_by = TlsKey.generate(), authority or contexts.consortium.authority
    certificate = issued_by.issue_institution(key.csr("south"), "south", now=contexts.consortium.clock.now(), days=30)
    return client_context(
        ca_pem=contexts.consortium.authority.certificate_pem, key_pem=key.private_pem, cert_pem=certificate
    )


def foreign(contexts: Contexts) -> Authority:
    """Of the same name, and another."""
    return Authority.create(CONSORTIUM, now=contexts.consortium.clock.now())


def test_a_member_and_the_coordinator_agree(contexts: Contexts) -> None:
    ends = handshake(caller(contexts), contexts.listening)
    assert [end.protocol for end in ends if isinstance(end, Line)] == ["llmasos-bulk/1"] * 2


def older(contexts: Contexts) -> ssl.SSLContext:
    context = caller(contexts)
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2
    return context


def without_certificate(contexts: Contexts) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["llmasos-bulk/1"])
    context.load_verify_locations(cadata=contexts.consortium.authority.certificate_pem.decode())
    return context


REFUSED_CALLERS: dict[str, tuple[Callable[[Contexts], ssl.SSLContext], str]] = {
    "TLS 1.2": (older, "TLS: unsupported protocol"),
    "no certificate": (without_certificate, "TLS: peer did not return a certificate"),
    "a certificate of another authority": (
        lambda contexts: caller(contexts, foreign(contexts)),
        "TLS: certificate verify failed",
    ),
}


@pytest.mark.parametrize("what", REFUSED_CALLERS)
def test_a_caller_that_keeps_not_to_the_rules_gets_no_further_than_the_handshake(contexts: Contexts, what: str) -> None:
    context, message = REFUSED_CALLERS[what]
    _, listener = handshake(context(contexts), contexts.listening)
    assert isinstance(listener, LineBroken)
    assert message in str(listener)


@pytest.mark.parametrize("protocols", [["h2"], []])
def test_a_caller_that_speaks_something_else_is_known_by_it(contexts: Contexts, protocols: list[str]) -> None:
    context = caller(contexts)
    context.set_alpn_protocols(protocols)
    _, listener = handshake(context, contexts.listening)
    assert isinstance(listener, Line)
    assert listener.protocol is None


def test_a_coordinator_of_another_authority_is_refused(contexts: Contexts) -> None:
    key, authority = TlsKey.generate(), foreign(contexts)
    certificate = authority.issue_coordinator(key.csr("coordinator"), now=contexts.consortium.clock.now(), days=30)
    genuine = contexts.consortium.server_tls()
    posing = server_context(type(genuine)(key.private_pem, certificate, genuine.ca_pem))
    member, _ = handshake(contexts.calling, posing)
    assert "TLS: certificate verify failed" in str(member)


def test_a_member_that_poses_as_the_coordinator_is_refused(contexts: Contexts) -> None:
    genuine = contexts.consortium.server_tls()
    posing = server_context(type(genuine)(contexts.key_pem, contexts.cert_pem, genuine.ca_pem))
    member, _ = handshake(contexts.calling, posing)
    assert "TLS: certificate verify failed" in str(member)


def test_a_coordinator_of_another_name_is_refused(contexts: Contexts) -> None:
    member, _ = handshake(contexts.calling, contexts.listening, coordinator_dns("museums"))
    assert "TLS: certificate verify failed" in str(member)


def test_no_session_is_resumed(contexts: Contexts) -> None:
    """It would be judged by the certificate of then."""
    assert contexts.listening.num_tickets == 0


def test_a_private_key_lies_in_files_encrypted_only_and_for_a_moment(
    contexts: Contexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Path] = []
    real = ssl.SSLContext.load_cert_chain

    def looking(self: ssl.SSLContext, file: Path, *, password: bytes) -> None:
        found.append(file)
        content = file.read_bytes()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        assert [each.name for each in file.parent.iterdir()] == [file.name]
        assert b"BEGIN ENCRYPTED PRIVATE KEY" in content
        assert b"BEGIN PRIVATE KEY" not in content
        assert b"BEGIN EC PRIVATE KEY" not in content
        assert password not in content
        real(self, file, password=password)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", looking)
    server_context(contexts.consortium.server_tls())
    caller(contexts)
    assert len(found) == 2
    assert not any(file.parent.exists() for file in found)


def test_a_private_key_is_gone_from_files_also_where_it_does_not_fit_its_certificate(
    contexts: Contexts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ssl.SSLError, match="KEY_VALUES_MISMATCH"):
        client_context(
            ca_pem=contexts.consortium.authority.certificate_pem,
            key_pem=TlsKey.generate().private_pem,
            cert_pem=contexts.cert_pem,
        )
    assert list(tmp_path.iterdir()) == []
