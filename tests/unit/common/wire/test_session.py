"""Sessions against a coordinator that listens."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from common.errors import (
    CoordinatorUnreachable,
    NotInitialised,
    UnknownCertificate,
)
from common.wire.session import TlsFiles
from coordinator.api.client import OperatorSession
from coordinator.api.server import Addresses
from tests.support.api import REPORT, Consortium, Scene


def test_no_coordinator_is_unreachable_by_address(consortium: Consortium) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        north = consortium.session(Addresses(address, address), "north")
        with (
            north,
            pytest.raises(CoordinatorUnreachable, match=rf"No answer from the coordinator at {address}, UNAVAIL"),
        ):
            north.report(REPORT)


def test_a_session_goes_on_after_its_channel_is_renewed(scene: Scene) -> None:
    north = scene.session("north")
    assert north.report(REPORT) is True
    north.renew()
    assert north.report(REPORT) is True


def test_a_renewed_session_speaks_with_the_new_certificate(scene: Scene) -> None:
    north, files = scene.session("north"), scene.consortium.tls("north")
    assert north.report(REPORT) is True
    for path in (files.key, files.certificate):
        path.unlink()
    scene.consortium.tls("north")
    assert north.report(REPORT) is True
    north.renew()
    with pytest.raises(UnknownCertificate):
        north.report(REPORT)


def test_a_closed_session_says_so(scene: Scene) -> None:
    north = scene.session("north")
    north.report(REPORT)
    north.close()
    with pytest.raises(CoordinatorUnreachable, match=r"The session was closed on this side\."):
        north.report(REPORT)


def test_a_missing_key_is_named(scene: Scene, tmp_path: Path) -> None:
    files = TlsFiles(tmp_path / "absent.key.pem", tmp_path / "absent.pem")
    session = OperatorSession(scene.addresses.work, scene.consortium.genesis, files)
    with session, pytest.raises(NotInitialised, match=r"absent\.key\.pem does not exist\."):
        session.report(REPORT)
