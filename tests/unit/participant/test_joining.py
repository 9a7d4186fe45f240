"""`join`: keys made at home, one request for ever, a home that is whole or goes on."""

from __future__ import annotations

import stat
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
    TooManyRequests,
    WrongFingerprint,
    WrongPassphrase,
)
from common.identity.certificates import certificate_id
from common.identity.invitation import Invitation
from common.identity.keys import EncryptionKey, SigningKey, TlsKey, is_encrypted
from common.resources import read_config
from participant import joining as module
from participant.config import HomeLayout, ParticipantConfig
from participant.datasets import data_sets
from participant.joining import Joined, Joining, join
from participant.policy import Policy, load_policy
from participant.policy.model import Answer
from tests.support.coordinators import CONSORTIUM, Coordinator
from tests.support.enrolling import Desk


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
    assert [(source.name, source.folder) for source in data_sets(layout)] == [("default", data)]
    assert load_yaml(layout.policy, Policy) == Policy()


def test_a_column_is_kept_as_it_was_named_whatever_it_would_mean_in_yaml(
    coordinator: Coordinator, desk: Desk, invitation: Invitation, data: Path, tmp_path: Path
) -> None:
    join(tmp_path / "west", invitation, Joining(data, text_column="true: it's #1"), coordinator.clock)
    (found,) = data_sets(HomeLayout(tmp_path / "west"))
    assert found.text_column == "true: it's #1"


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


# --- the consortium that is meant --------------------------------------------------------------------------------------------


def test_the_fingerprint_that_was_compared_must_be_the_invitations(
    coordinator: Coordinator, desk: Desk, invitation: Invitation, tmp_path: Path
) -> None:
    found = coordinator.state.genesis_place.digest
    with pytest.raises(WrongFingerprint, match=rf"fingerprint {found}, expected {'ab' * 32}\. Nothing was sent"):
        join(tmp_path / "west", invitation, Joining(fingerprint="ab" * 32), coordinator.clock)
    assert desk.requests == []
    assert not (tmp_path / "west").exists()
    assert join(tmp_path / "west", invitation, Joining(fingerprint=found), coordinator.clock).fingerprint == found


def test_a_coordinators_home_is_no_participants(
    coordinator: Coordinator, desk: Desk, invitation: Invitation, tmp_path: Path
) -> None:
    (tmp_path / "coordinator.yaml").write_text("consortium: hospitals\n")
    with pytest.raises(AlreadyInitialised, match=r"holds a coordinator"):
        join(tmp_path, invitation, Joining(), coordinator.clock)
    assert desk.requests == []


# --- nothing that hinders the same command later ---------------------------------------------------------------------------


def test_what_a_refused_try_made_is_taken_away(
    coordinator: Coordinator, desk: Desk, invitation: Invitation, tmp_path: Path
) -> None:
    home = tmp_path / "west"
    with pytest.raises(InvalidInvitation):
        join(home, replace(invitation, secret=b"\1" * 32), Joining(), coordinator.clock)
    assert not home.exists()


def test_what_an_unanswered_try_made_outlasts_a_later_refusal(
    coordinator: Coordinator, desk: Desk, invitation: Invitation, tmp_path: Path
) -> None:
    home = tmp_path / "west"
    for failure in (CoordinatorUnreachable("The reply was lost."), TooManyRequests("Too many.")):
        desk.failure = failure
        with pytest.raises(type(failure)):
            join(home, invitation, Joining(), coordinator.clock)
    key = HomeLayout(home).signing_key.read_bytes()
    with pytest.raises(InvalidInvitation):
        join(home, replace(invitation, secret=b"\1" * 32), Joining(), coordinator.clock)
    assert HomeLayout(home).signing_key.read_bytes() == key
    join(home, invitation, Joining(), coordinator.clock)


def test_a_key_file_that_a_killed_try_left_empty_is_made_again(
    coordinator: Coordinator, desk: Desk, invitation: Invitation, tmp_path: Path
) -> None:
    layout = HomeLayout(tmp_path / "west")
    layout.identity.mkdir(parents=True)
    layout.signing_key.touch(0o600)
    join(layout.home, invitation, Joining(), coordinator.clock)
    SigningKey.load(layout.signing_key)


def test_a_try_that_ended_after_its_data_set_goes_on_with_another_folder(
    coordinator: Coordinator, desk: Desk, invitation: Invitation, data: Path, tmp_path: Path
) -> None:
    layout = HomeLayout(tmp_path / "west")
    join(layout.home, invitation, Joining(data), coordinator.clock)
    layout.config.unlink()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "b.txt").write_text("text")
    join(layout.home, invitation, Joining(tmp_path / "other"), coordinator.clock)
    assert [each.folder for each in data_sets(layout)] == [tmp_path / "other"]


# --- answer and passphrase --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["accept", "refuse", "ask"])
def test_the_answer_that_was_asked_for_stands_in_the_policy(
    coordinator: Coordinator, desk: Desk, invitation: Invitation, tmp_path: Path, answer: Answer
) -> None:
    layout = HomeLayout(tmp_path / "west")
    join(layout.home, invitation, Joining(answer=answer), coordinator.clock)
    assert load_policy(layout.policy).policy == Policy(answer=answer)
    shipped = read_config("policy.yaml").splitlines()
    written = layout.policy.read_text().splitlines()
    assert [now for before, now in zip(shipped, written, strict=True) if before != now] == (
        [] if answer == "ask" else [next(line for line in written if line.startswith(f"answer: {answer} "))]
    )


@pytest.fixture
def passphrase_file(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_text("correct horse\n")
    path.chmod(0o600)
    return path


def test_keys_stand_under_the_passphrase_and_the_configuration_names_its_file(
    coordinator: Coordinator, desk: Desk, invitation: Invitation, tmp_path: Path, passphrase_file: Path
) -> None:
    layout = HomeLayout(tmp_path / "west")
    join(layout.home, invitation, Joining(passphrase_file=passphrase_file), coordinator.clock)
    assert load_yaml(layout.config, ParticipantConfig).identity.passphrase_file == passphrase_file
    for kind, path in (
        (SigningKey, layout.signing_key),
        (EncryptionKey, layout.encryption_key),
        (TlsKey, layout.tls_key),
    ):
        with pytest.raises(WrongPassphrase):
            kind.load(path)
        kind.load(path, b"correct horse")


def test_keys_of_an_earlier_try_without_a_passphrase_are_encrypted_by_the_next(
    coordinator: Coordinator, desk: Desk, invitation: Invitation, tmp_path: Path, passphrase_file: Path
) -> None:
    layout = HomeLayout(tmp_path / "west")
    desk.failure = CoordinatorUnreachable("The reply was lost.")
    with pytest.raises(CoordinatorUnreachable):
        join(layout.home, invitation, Joining(), coordinator.clock)
    join(layout.home, invitation, Joining(passphrase_file=passphrase_file), coordinator.clock)
    first, second = desk.requests
    assert first == second
    assert all(is_encrypted(path) for path in (layout.signing_key, layout.encryption_key, layout.tls_key))
    layout.config.unlink()
    with pytest.raises(WrongPassphrase, match=r"is encrypted, and no passphrase was named"):
        join(layout.home, invitation, Joining(), coordinator.clock)
