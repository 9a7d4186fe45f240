"""`join`: keys made at home, one request for ever, a home that is whole or goes on."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from common.clock import ManualClock, rfc3339
from common.config import load_yaml
from common.errors import (
    AlreadyInitialised,
    CoordinatorUnreachable,
    InvalidInvitation,
    InvitationExpired,
    InvitationUsed,
    TooLittleData,
)
from common.identity.certificates import certificate_id
from common.identity.invitation import Invitation
from common.identity.keys import SigningKey, TlsKey
from common.wire.messages import Enrolment, EnrolmentRequest
from coordinator.ports import EnrolmentOffer
from participant import joining as module
from participant.config import HomeLayout, ParticipantConfig
from participant.joining import Joined, Joining, join
from participant.policy import Policy
from tests.support.coordinators import CONSORTIUM, Coordinator


class Desk:
    """The enrolment listener without its network; `failure` is raised after the coordinator did its part, once."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self.requests: list[EnrolmentRequest] = []
        self.failure: Exception | None = None
        self.certificate: Callable[[str], str] = lambda pem: pem

    def enrol(self, address: str, *, consortium: str, ca_pem: bytes, request: EnrolmentRequest) -> Enrolment:
        assert (address, consortium) == ("127.0.0.1:7444", CONSORTIUM)
        assert ca_pem == self._coordinator.state.genesis.ca_certificate.encode()
        self.requests.append(request)
        enrolled = self._coordinator.desk.enrol(
            EnrolmentOffer(
                request.invitation_id,
                request.secret,
                request.csr_der,
                request.signing_key,
                request.proof,
                request.encryption_key,
            )
        )
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        return Enrolment(self.certificate(enrolled.certificate_pem), enrolled.roster_index)


@pytest.fixture
def desk(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> Desk:
    made = Desk(coordinator)
    monkeypatch.setattr(module, "enrol", made.enrol)
    return made


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "it's text"
    folder.mkdir()
    (folder / "a.txt").write_text("text")
    return folder


@pytest.fixture
def invitation(coordinator: Coordinator) -> Invitation:
    return coordinator.invite("west")


def test_joining_makes_keys_a_member_and_a_home(
    coordinator: Coordinator, desk: Desk, invitation: Invitation, data: Path, tmp_path: Path
) -> None:
    home = tmp_path / "west"
    joined = join(home, invitation, Joining(data, threads=4), coordinator.clock)
    member = coordinator.state.member("west")
    assert member is not None
    genesis = coordinator.state.genesis_place.digest
    assert joined == Joined("west", CONSORTIUM, genesis, coordinator.state.roster_place.index)  # type: ignore[union-attr]
    layout = HomeLayout(home)
    assert member.signing_key == SigningKey.load(layout.signing_key).public
    assert member.encryption_key is not None
    assert member.certificates == (certificate_id(layout.tls_certificate.read_bytes()),)
    assert layout.genesis.read_bytes() == coordinator.genesis
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (home, *home.rglob("*"))}
    assert set(modes.values()) == {0o600, 0o700}
    config = load_yaml(layout.config, ParticipantConfig)
    assert (config.institution, config.consortium, config.worker.threads) == ("west", CONSORTIUM, 4)
    assert (config.coordinator.work, config.coordinator.enrolment) == ("127.0.0.1:7443", "127.0.0.1:7444")
    assert [source.folder for source in config.data] == [data]
    assert load_yaml(layout.policy, Policy) == Policy()


def test_a_column_is_kept_as_it_was_named_whatever_it_would_mean_in_yaml(
    coordinator: Coordinator, desk: Desk, invitation: Invitation, data: Path, tmp_path: Path
) -> None:
    join(tmp_path / "west", invitation, Joining(data, text_column="true: it's #1"), coordinator.clock)
    config = load_yaml(tmp_path / "west" / "participant.yaml", ParticipantConfig)
    assert config.data[0].text_column == "true: it's #1"


def test_after_a_lost_reply_the_same_request_gets_the_same_certificate(
    coordinator: Coordinator, desk: Desk, invitation: Invitation, data: Path, tmp_path: Path
) -> None:
    desk.failure = CoordinatorUnreachable("The reply was lost.")
    with pytest.raises(CoordinatorUnreachable, match=r"The reply was lost"):
        join(tmp_path / "west", invitation, Joining(data), coordinator.clock)
    assert not HomeLayout(tmp_path / "west").config.exists()
    size = coordinator.state.size
    join(tmp_path / "west", invitation, Joining(data), coordinator.clock)
    assert coordinator.state.size == size
    first, second = desk.requests
    assert first == second


def test_a_home_that_has_a_participant_stays_as_it_is(
    coordinator: Coordinator, desk: Desk, invitation: Invitation, data: Path, tmp_path: Path
) -> None:
    join(tmp_path / "west", invitation, Joining(data), coordinator.clock)
    before = {path: path.read_bytes() for path in (tmp_path / "west").rglob("*") if path.is_file()}
    with pytest.raises(AlreadyInitialised, match=r"west holds a participant already"):
        join(tmp_path / "west", coordinator.invite("far-west"), Joining(data), coordinator.clock)
    assert {path: path.read_bytes() for path in (tmp_path / "west").rglob("*") if path.is_file()} == before
    with pytest.raises(InvitationUsed, match=r"invitation of west was redeemed with other keys"):
        join(tmp_path / "other", invitation, Joining(data), coordinator.clock)


def test_an_expired_invitation_sends_nothing_and_names_both_times(
    coordinator: Coordinator, desk: Desk, invitation: Invitation, data: Path, tmp_path: Path
) -> None:
    late = ManualClock(coordinator.clock.now())
    late.advance(seconds=72 * 3600)
    with pytest.raises(InvitationExpired, match=rf"west expired at {rfc3339(late.now())}; it is {rfc3339(late.now())}"):
        join(tmp_path / "west", invitation, Joining(data), late)
    assert desk.requests == []
    assert not (tmp_path / "west").exists()


@pytest.mark.parametrize("content", [None, "empty", "pictures"])
def test_a_folder_without_text_is_refused_before_anything_is_made(
    coordinator: Coordinator, desk: Desk, invitation: Invitation, tmp_path: Path, content: str | None
) -> None:
    folder = tmp_path / "data"
    if content is not None:
        folder.mkdir()
    if content == "pictures":
        (folder / "scan.png").write_bytes(b"\x89PNG")
    message = r"data is not a folder" if content is None else r"data holds no \.csv, \.jsonl, \.md, \.py, \.txt file"
    with pytest.raises(TooLittleData, match=message):
        join(tmp_path / "west", invitation, Joining(folder), coordinator.clock)
    assert desk.requests == []
    assert not (tmp_path / "west").exists()


def test_a_certificate_for_another_key_is_not_kept(
    coordinator: Coordinator, desk: Desk, invitation: Invitation, data: Path, tmp_path: Path
) -> None:
    other = coordinator.enrolment._authority.issue_institution(
        TlsKey.generate().csr("west"), "west", now=coordinator.clock.now(), days=30
    )
    desk.certificate = lambda _pem: other.decode()
    with pytest.raises(InvalidInvitation, match=r"issued a certificate for another key"):
        join(tmp_path / "west", invitation, Joining(data), coordinator.clock)
    assert not HomeLayout(tmp_path / "west").tls_certificate.exists()


def test_an_invitation_with_a_wrong_secret_opens_nothing(
    coordinator: Coordinator, desk: Desk, invitation: Invitation, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInvitation, match=r"not known here, or its secret is wrong"):
        join(tmp_path / "west", replace(invitation, secret=b"\1" * 32), Joining(data), coordinator.clock)
    assert coordinator.state.member("west") is None
    join(tmp_path / "west", invitation, Joining(data), coordinator.clock)
