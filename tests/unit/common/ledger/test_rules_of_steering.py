"""Rounds extended and rolled back: what the ledger then says, and one thing spoiled at a time."""

from __future__ import annotations

import pytest

from common.ledger.rules import admit
from common.ledger.state import RunRecord
from common.statements.envelope import Statement
from tests.support.statements import RUN, a_blob_ref
from tests.support.story import Spoiled, Story

LATER = "2030-01-01T00:00:00.000Z"
BASE, MODEL_1 = a_blob_ref("model 0"), a_blob_ref("model 1")


def run_after(story: Story, stage: str, *statements: Statement) -> RunRecord:
    state = story.at[stage]
    for statement in statements:
        state = admit(state, statement.envelope).state
    return state.runs[RUN]


def to_the_beginning(s: Story, **changes: object) -> Statement:
    return s.control("roll-back", parent=s.said["closed"], **{"model": BASE} | changes)


def abandoned(s: Story) -> Statement:
    """Round 2, abandoned after round 1."""
    outputs = {"model": MODEL_1}
    fields = {"round": 2, "outcome": "abandoned", "reason": "no-quorum", "inputs": (), "outputs": outputs}
    return s.closed(parent=s.said["opened-2"], names=(), **fields)


def test_a_roll_back_takes_rounds_out_of_the_model_and_never_gives_their_numbers_again(story: Story) -> None:
    back = to_the_beginning(story)
    run = run_after(story, "closed", back)
    assert (run.model, run.server_state, run.tip.digest) == (run.statement.initial.model, None, back.digest)
    assert (run.committed(), run.standing) == ((), ())
    assert [record.number for record in run.ever_committed()] == [1]
    after = run_after(story, "closed", back, story.opened(2, parent=back, inputs={"model": BASE}))
    assert [(record.number, record.rolled_back) for record in after.rounds] == [(1, True), (2, False)]


def test_what_was_rolled_back_stays_so_after_the_next_roll_back(story: Story) -> None:
    back = to_the_beginning(story)
    opened = story.opened(2, parent=back, inputs={"model": BASE})
    closed = story.closed(
        parent=opened, names=(), round=2, outcome="abandoned", reason="no-quorum", inputs=(), outputs={"model": BASE}
    )
    again = story.control("roll-back", parent=closed, model=BASE)
    run = run_after(story, "closed", back, opened, closed, again)
    assert [record.rolled_back for record in run.rounds] == [True, True]
    assert run.tip.digest == again.digest


def test_a_run_goes_on_after_an_abandoned_round_that_is_rolled_back(story: Story) -> None:
    closed = abandoned(story)
    run = run_after(story, "opened-2", closed, story.control("roll-back", parent=closed, round=1, model=MODEL_1))
    assert (run.model, len(run.standing), len(run.committed())) == (MODEL_1, 1, 1)


def test_more_rounds_are_trained_than_the_plan_says_after_an_extension(story: Story) -> None:
    closed = story.said["closed"]
    more = story.control("extend", parent=closed, rounds=9)
    run = run_after(story, "closed", more)
    assert (run.rounds_planned, run.tip.digest) == (9, closed.digest)


def test_the_open_round_gets_a_later_deadline(story: Story) -> None:
    given = story.control("extend", parent=story.said["opened"], round=1, deadline=LATER)
    record = run_after(story, "opened", given).open_round
    assert record is not None
    assert record.deadline == LATER != record.opened.stages[-1].deadline


SPOILED = (
    Spoiled(
        "a roll-back while a round is open",
        "opened-2",
        to_the_beginning,
        "ledger-conflict",
        rf"Run {RUN} is rolled back while round 2 is open\.",
    ),
    Spoiled(
        "a roll-back to the newest round",
        "closed",
        lambda s: to_the_beginning(s, round=1, model=MODEL_1),
        "ledger-conflict",
        r"rolled back to round 1, and no round came after it\.",
    ),
    Spoiled(
        "a roll-back to a round that was not yet",
        "closed",
        lambda s: to_the_beginning(s, round=2),
        "ledger-conflict",
        r"rolled back to round 2, which is none of its rounds, or was rolled back itself\.",
    ),
    Spoiled(
        "a roll-back to another model than the round left",
        "closed",
        lambda s: to_the_beginning(s, model=MODEL_1),
        "ledger-conflict",
        r"rolled back to round 0 with model blake3:.*, that round left blake3:",
    ),
    Spoiled(
        "a roll-back that names no model",
        "closed",
        lambda s: to_the_beginning(s, model=None),
        "malformed-statement",
        rf"Control roll-back of {RUN} names nothing, expected model\.",
    ),
    Spoiled(
        "a roll-back that hangs on the plan",
        "closed",
        lambda s: s.control("roll-back", parent=s.said["plan"], model=BASE),
        "wrong-parent",
        r"A control names plan",
    ),
    Spoiled(
        "an extension by nothing",
        "closed",
        lambda s: s.control("extend", parent=s.said["closed"], rounds=1),
        "ledger-conflict",
        r"is extended to 1 training rounds, it has \d+ already\.",
    ),
    Spoiled(
        "an extension after the evaluation was opened",
        "evaluating",
        lambda s: s.control("extend", parent=s.said["closed"], rounds=9),
        "ledger-conflict",
        r"after its evaluation, round 2, was opened\.",
    ),
    Spoiled(
        "an extension of rounds and of a deadline",
        "opened",
        lambda s: s.control("extend", parent=s.said["plan"], rounds=9, round=1, deadline=LATER),
        "malformed-statement",
        r"names deadline, round, rounds, expected rounds\.",
    ),
    Spoiled(
        "an extension by neither",
        "opened",
        lambda s: s.control("extend", parent=s.said["plan"]),
        "malformed-statement",
        r"names nothing, expected deadline, round\.",
    ),
    Spoiled(
        "a deadline for a round that is closed",
        "closed",
        lambda s: s.control("extend", parent=s.said["opened"], round=1, deadline=LATER),
        "ledger-conflict",
        r"Round 1 of .* gets another deadline, and is not open\.",
    ),
    Spoiled(
        "a deadline that hangs on the plan",
        "opened",
        lambda s: s.control("extend", parent=s.said["plan"], round=1, deadline=LATER),
        "wrong-parent",
        r"expected round-opened",
    ),
    Spoiled(
        "a round of what was rolled back",
        "closed",
        lambda s: s.opened(2, parent=to_the_beginning(s), inputs={"model": BASE}),
        "wrong-parent",
        r"A round-opened names control .* as its parent, expected round-closed",
    ),
)


@pytest.mark.parametrize("spoiled", SPOILED, ids=str)
def test_it_is_refused_and_nothing_changes(story: Story, spoiled: Spoiled) -> None:
    spoiled.check(story)
