"""Rosters that follow each other, and what a leave changes: who left says nothing more, and nobody waits for it."""

from __future__ import annotations

from typing import Any

import pytest

from common.clock import rfc3339
from common.errors import RefusalError
from common.identity.keys import SigningKey
from common.ledger.rules import admit
from common.ledger.state import LedgerState
from common.statements.envelope import Statement
from common.statements.kinds import Control
from tests.support.statements import NAMES, NOW, RUN, a_blob_ref, a_roster
from tests.support.story import Story


def a_leave(story: Story, name: str = "north", *, parent: str = "roster", by: str = "", **changes: Any) -> Statement:
    fields = {"action": "leave", "issued_at": rfc3339(NOW), "reason": "institution-leaves", "institution": name}
    return story.federation.sign(Control(**fields | changes), parent=story.said[parent], by=by or name)


def an_erasure(story: Story, leave: Statement, name: str = "north") -> Statement:
    erased = Control(action="erased", issued_at=rfc3339(NOW), reason="deltas-deleted", institution=name)
    return story.federation.sign(erased, parent=leave)


def a_change(story: Story, status: str, *, version: int = 2, parent: Statement | None = None) -> Statement:
    """The next roster, in which north's status is another one."""
    roster = a_roster(story.federation.institutions, version=version)
    members = tuple(
        each.model_copy(update={"status": status}) if each.name == "north" else each for each in roster.members
    )
    return story.federation.sign(roster.model_copy(update={"members": members}), parent=parent or story.said["roster"])


def after(state: LedgerState, *statements: Statement) -> LedgerState:
    for statement in statements:
        state = admit(state, statement.envelope).state
    return state


def test_who_said_that_it_leaves_is_asked_for_nothing_more(story: Story) -> None:
    state = after(story.at["opened"], a_leave(story))
    assert (state.is_active("north"), state.is_active("south")) == (False, True)
    assert state.active_trainers == ("east", "south")
    assert state.active_names == {"east", "south"}
    member = state.member("north")
    assert member is not None
    assert member.status == "active"  # by the roster, which follows
    assert state.departures["north"].erased is None


def test_a_leave_is_answered_by_an_erasure_and_then_all_is_said(story: Story) -> None:
    leave = a_leave(story)
    erased = an_erasure(story, leave)
    state = after(story.at["closed"], leave, a_change(story, "left"), erased)
    departure = state.departures["north"]
    assert departure.place.digest == leave.digest
    assert departure.erased is not None
    assert departure.erased.digest == erased.digest


def test_what_was_contributed_before_a_leave_still_closes_its_round(story: Story) -> None:
    state = after(story.at["contributed"], a_leave(story), a_change(story, "left"), story.closed())
    assert len(state.runs[RUN].committed()) == 1


def test_roles_that_train_nothing_are_never_asked(story: Story) -> None:
    roster = a_roster({**story.federation.institutions, "watcher": SigningKey.generate()}, version=2)
    members = tuple(
        each.model_copy(update={"roles": ("viewer", "auditor", "operator")}) if each.name == "watcher" else each
        for each in roster.members
    )
    changed = story.federation.sign(roster.model_copy(update={"members": members}), parent=story.said["roster"])
    assert after(story.at["roster"], changed).active_trainers == NAMES


REFUSED: dict[str, tuple[Any, str, str]] = {
    "a contribution after the leave": (
        lambda s: (after(s.at["opened"], a_leave(s)), s.said["north"]),
        "wrong-signer",
        r"north is no active member of hospitals\.",
    ),
    "a second leave": (
        lambda s: (after(s.at["opened"], a_leave(s)), a_leave(s, reason="again")),
        "wrong-signer",
        r"north is no active member",
    ),
    "a leave that another institution signed": (
        lambda s: (s.at["opened"], a_leave(s, by="south")),
        "bad-signature",
        r"expected key",
    ),
    "a leave that follows no roster": (
        lambda s: (s.at["opened"], a_leave(s, parent="plan")),
        "wrong-parent",
        r"expected roster",
    ),
    "a leave of a run": (
        lambda s: (s.at["opened"], a_leave(s, run=RUN)),
        "malformed-statement",
        r"The leave of north names a run or a model",
    ),
    "a leave that names a model": (
        lambda s: (s.at["opened"], a_leave(s, model=a_blob_ref("model 1"))),
        "malformed-statement",
        r"names a run or a model",
    ),
    "an erasure for one who stayed": (
        lambda s: (s.at["opened"], an_erasure(s, s.said["roster"])),
        "wrong-parent",
        r"'north' has not left",
    ),
    "an erasure that does not follow the leave": (
        lambda s: (after(s.at["opened"], a_leave(s)), an_erasure(s, s.said["roster"])),
        "wrong-parent",
        r"expected control",
    ),
    "a second erasure": (
        lambda s: (
            after(s.at["opened"], a_leave(s), an_erasure(s, a_leave(s))),
            s.federation.sign(
                Control(action="erased", issued_at=rfc3339(NOW), reason="again", institution="north"), parent=a_leave(s)
            ),
        ),
        "slot-taken",
        r"The erasure of north is recorded already",
    ),
    "who left comes back": (
        lambda s: (
            after(s.at["opened"], a_change(s, "left")),
            a_change(s, "active", version=3, parent=a_change(s, "left")),
        ),
        "ledger-conflict",
        r"Roster 3: north was left and is active\.",
    ),
    "who was revoked has left": (
        lambda s: (
            after(s.at["opened"], a_change(s, "revoked")),
            a_change(s, "left", version=3, parent=a_change(s, "revoked")),
        ),
        "ledger-conflict",
        r"north was revoked and is left\.",
    ),
    "a member disappears": (
        lambda s: (
            s.at["opened"],
            s.federation.sign(
                a_roster({name: s.federation.institutions[name] for name in ("east", "south")}, version=2),
                parent=s.said["roster"],
            ),
        ),
        "ledger-conflict",
        r"north was active and is absent\.",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused(story: Story, name: str) -> None:
    spoil, code, message = REFUSED[name]
    state, statement = spoil(story)
    with pytest.raises(RefusalError, match=message) as caught:
        admit(state, statement.envelope)
    assert caught.value.code == code
