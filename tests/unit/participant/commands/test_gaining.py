"""gain fetches its models under the same keys as the daemon, encrypted or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.clock import SystemClock
from common.errors import WrongPassphrase
from common.identity.authority import Authority
from common.identity.keys import TlsKey
from participant.commands.connection import member_session
from participant.config import CoordinatorAddresses, HomeLayout, Identity, ParticipantConfig
from tests.support.coordinators import Coordinator


def config(passphrase_file: Path | None) -> ParticipantConfig:
    return ParticipantConfig(
        institution="north",
        consortium="hospitals",
        coordinator=CoordinatorAddresses(work="127.0.0.1:1", enrolment="127.0.0.1:2"),
        identity=Identity(passphrase_file=passphrase_file),
    )


def test_gain_opens_encrypted_keys_with_the_configured_passphrase(coordinator: Coordinator, tmp_path: Path) -> None:
    layout, secret = HomeLayout(tmp_path / "home"), tmp_path / "passphrase"
    layout.identity.mkdir(parents=True, mode=0o700)
    secret.write_text("correct horse battery staple\n")
    secret.chmod(0o600)
    key, now = TlsKey.generate(), SystemClock().now()
    key.save(layout.tls_key, b"correct horse battery staple")
    authority = Authority.load(coordinator.layout.identity)
    layout.tls_certificate.write_bytes(authority.issue_institution(key.csr("north"), "north", now=now, days=30))
    with member_session(layout, config(secret), coordinator.state.genesis) as session:
        assert session.stubs().channel is not None
    with member_session(layout, config(None), coordinator.state.genesis) as session, pytest.raises(WrongPassphrase):
        session.stubs()
