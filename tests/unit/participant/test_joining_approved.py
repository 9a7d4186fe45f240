"""`join` where institutions have to approve a new member: it waits, it may be interrupted, and it loses nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.errors import (
    ApprovalPending,
    CoordinatorUnreachable,
    InvalidInvitation,
    InvitationExpired,
    TooManyRequests,
)
from common.identity.invitation import Invitation
from common.terminal import exit_code_of
from participant import joining as module
from participant.cli import app
from participant.config import HomeLayout
from participant.joining import ASK_SECONDS, Joining, Patience, join
from tests.support.coordinators import Coordinator
from tests.support.enrolling import Desk

WAITS = r"The admission of west awaits approval: 0 of 2 institutions have approved\."


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    made = Coordinator(tmp_path / "coordinator", approvals={"roster": 2})
    yield made
    made.close()


@pytest.fixture
def desk(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> Desk:
    made = Desk(coordinator)
    monkeypatch.setattr(module, "enrol", made.enrol)
    return made


@pytest.fixture
def invitation(coordinator: Coordinator) -> Invitation:
    return coordinator.invite("west")


def patience(coordinator: Coordinator, *events: Callable[[], object], seconds: float = 3600.0) -> Patience:
    """Time that passes at each pause, with what happens meanwhile; after the last event, nothing."""
    coming = iter(events)

    def pause(seconds: float) -> None:
        assert seconds == ASK_SECONDS
        coordinator.clock.advance(seconds=seconds)
        next(coming, lambda: None)()

    return Patience(seconds, pause=pause)


def identity(home: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in HomeLayout(home).identity.iterdir()}


def test_without_patience_it_says_so_at_once_and_keeps_everything(
    coordinator: Coordinator, desk: Desk, invitation: Invitation, tmp_path: Path
) -> None:
    home = tmp_path / "west"
    with pytest.raises(ApprovalPending, match=WAITS):
        join(home, invitation, Joining(), coordinator.clock)
    kept = identity(home)
    assert set(kept) == {"signing.key.pem", "encryption.key.pem", "tls.key.pem", "request.der"}
    assert not HomeLayout(home).config.exists()
    coordinator.approve_all()
    joined = join(home, invitation, Joining(), coordinator.clock)
    assert joined.roster_index == coordinator.state.size - 1
    assert kept.items() <= identity(home).items()
    assert len(set(map(repr, desk.requests))) == 1  # the very same request


def test_it_waits_as_long_as_it_is_told_to(
    coordinator: Coordinator, desk: Desk, invitation: Invitation, tmp_path: Path
) -> None:
    with pytest.raises(ApprovalPending, match=WAITS):
        join(tmp_path / "west", invitation, Joining(), coordinator.clock, patience(coordinator, seconds=60))
    assert len(desk.requests) == 1 + 60 / ASK_SECONDS
    assert len(identity(tmp_path / "west")) == 4


def test_what_passes_while_it_waits_is_waited_for(
    coordinator: Coordinator, desk: Desk, invitation: Invitation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = iter((CoordinatorUnreachable("no answer"), TooManyRequests("busy")))

    def once() -> None:
        """The next request is lost on the way."""
        error = next(failing)

        def lost(*_: object, **__: object) -> None:
            monkeypatch.setattr(module, "enrol", desk.enrol)
            raise error

        monkeypatch.setattr(module, "enrol", lost)

    waiting = patience(coordinator, once, once, coordinator.approve_all)
    assert join(tmp_path / "west", invitation, Joining(), coordinator.clock, waiting).institution == "west"


def test_before_it_waits_an_unreachable_coordinator_ends_it(
    coordinator: Coordinator, desk: Desk, invitation: Invitation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise CoordinatorUnreachable("no answer")

    monkeypatch.setattr(module, "enrol", unreachable)
    with pytest.raises(CoordinatorUnreachable, match="no answer"):
        join(tmp_path / "west", invitation, Joining(), coordinator.clock, patience(coordinator))


def test_an_invitation_that_is_withdrawn_meanwhile_ends_it_and_leaves_nothing(
    coordinator: Coordinator, desk: Desk, invitation: Invitation, tmp_path: Path
) -> None:
    waiting = patience(coordinator, lambda: coordinator.desk.revoke("west", "operator"))
    with pytest.raises(InvalidInvitation, match="not known here"):
        join(tmp_path / "west", invitation, Joining(), coordinator.clock, waiting)
    assert not (tmp_path / "west").exists()


def test_a_request_that_was_made_in_time_may_be_answered_after_it(
    coordinator: Coordinator, desk: Desk, invitation: Invitation, tmp_path: Path
) -> None:
    with pytest.raises(ApprovalPending):
        join(tmp_path / "west", invitation, Joining(), coordinator.clock)
    coordinator.clock.advance(seconds=30 * 86_400)
    coordinator.approve_all()
    assert join(tmp_path / "west", invitation, Joining(), coordinator.clock).institution == "west"
    late = coordinator.invite("zoo")
    coordinator.clock.advance(seconds=30 * 86_400)
    with pytest.raises(InvitationExpired, match="of zoo expired at"):
        join(tmp_path / "zoo", late, Joining(), coordinator.clock)


def test_the_command_tells_once_that_it_waits_and_ends_as_refused(
    coordinator: Coordinator,
    desk: Desk,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LLMASOS_HOME", raising=False)
    paper = tmp_path / "west.inv"
    paper.write_text(coordinator.invite("west", hours=10**6).armoured())
    argv = ["join", str(paper), "--home", str(tmp_path / "west")]
    assert exit_code_of(app, [*argv, "--wait", "0s"]) == 3
    told = " ".join(capsys.readouterr().err.split())
    assert "0 of 2 institutions have approved. Waiting; Ctrl-C is fine, the same command goes on later." in told
    assert "error [approval-pending]: The admission of west awaits approval: 0 of 2" in told
    assert exit_code_of(app, [*argv, "--wait", "soon"]) == 2
    assert "--wait is 'soon', expected a number and s, m, h or d" in " ".join(capsys.readouterr().err.split())
    coordinator.approve_all()
    assert exit_code_of(app, argv) == 0
    assert capsys.readouterr().out.startswith("west is a member of hospitals")
