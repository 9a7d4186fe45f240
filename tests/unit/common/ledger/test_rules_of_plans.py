"""Genesis, roster, plan, answer and round-opened: one thing spoiled at a time, and the code that says so."""

from __future__ import annotations

import pytest

from common.errors import LedgerConflict
from common.ledger.rules import admit
from common.statements.envelope import Parent, Statement, sign
from tests.support.statements import (
    NAMES,
    RUN,
    a_blob_ref,
    a_plan_statement,
    a_roster,
    a_round_closed,
    an_answer,
    sign_genesis,
)
from tests.support.story import Spoiled, Story

MODEL_1 = a_blob_ref("model 1")


def roster_2(s: Story, version: int = 2) -> Statement:
    return s.federation.sign(a_roster(s.federation.institutions, version=version), parent=s.said["roster"])


IDENTITY = (
    Spoiled(
        "a second genesis",
        "roster",
        lambda s: sign_genesis(s.federation.authority, s.federation.coordinator, created_at="2026-02-01T00:00:00.000Z"),
        "ledger-conflict",
        r"A second genesis at index 2; a ledger has one, at 0\.",
    ),
    Spoiled(
        "the same genesis again",
        "roster",
        lambda s: s.said["genesis"],
        "wrong-parent",
        r"This genesis stands in the ledger already, at 0\.",
    ),
    Spoiled(
        "a roster that skips a version",
        "roster",
        lambda s: roster_2(s, 3),
        "wrong-parent",
        r"Roster version is 3, expected 2\.",
    ),
    Spoiled(
        "a roster that repeats a version",
        "roster",
        lambda s: roster_2(s, 1),
        "wrong-parent",
        r"Roster version is 1, expected 2\.",
    ),
    Spoiled(
        "a roster after the genesis where a roster is newer",
        "roster",
        lambda s: s.federation.sign(a_roster(s.federation.institutions, version=2), parent=s.said["genesis"]),
        "wrong-parent",
        r"A roster names genesis [0-9a-f]{16}… as its parent, expected roster",
    ),
)

PLANS = (
    Spoiled(
        "a plan before any roster",
        "genesis",
        lambda s: s.federation.sign(a_plan_statement(), parent=s.said["genesis"]),
        "wrong-parent",
        r"A plan needs a roster before it\.",
    ),
    Spoiled(
        "a plan after the genesis",
        "roster",
        lambda s: s.federation.sign(a_plan_statement(), parent=s.said["genesis"]),
        "wrong-parent",
        r"A plan names genesis [0-9a-f]{16}… as its parent, expected roster",
    ),
    Spoiled(
        "a plan whose run exists",
        "plan",
        lambda s: s.federation.sign(
            a_plan_statement(initial={"model": MODEL_1, "tokenizer": MODEL_1}), parent=s.said["roster"]
        ),
        "slot-taken",
        rf"Run {RUN} exists already\.",
    ),
    Spoiled(
        "an answer to no run",
        "plan",
        lambda s: s.federation.answer("north", run="other"),
        "wrong-parent",
        r"No run 'other' is in the ledger\.",
    ),
    Spoiled(
        "an answer to another statement than its plan",
        "plan",
        lambda s: s.federation.sign(an_answer("north"), parent=s.said["roster"], by="north"),
        "wrong-parent",
        r"A answer names roster [0-9a-f]{16}… as its parent, expected plan",
    ),
    Spoiled(
        "a second answer",
        "answered",
        lambda s: s.federation.answer("north", accept=False, reasons=("budget",)),
        "slot-taken",
        rf"north has answered plan {RUN} already\.",
    ),
    Spoiled(
        "an answer of no member",
        "plan",
        lambda s: sign(
            an_answer("stranger"), parent=Parent("plan", s.said["plan"].digest), key=s.federation.institutions["north"]
        ),
        "wrong-signer",
        r"stranger is no active member of hospitals\.",
    ),
    Spoiled(
        "an answer signed by another member",
        "plan",
        lambda s: s.federation.sign(an_answer("north"), parent=s.said["plan"], by="south"),
        "bad-signature",
        r"This answer statement is signed by key [0-9a-f]{16}…, expected key",
    ),
    Spoiled(
        "a plan signed by a member",
        "roster",
        lambda s: s.federation.sign(a_plan_statement(), parent=s.said["roster"], by="north"),
        "bad-signature",
        r"This plan statement is signed by key [0-9a-f]{16}…, expected key",
    ),
)

OPENINGS = (
    Spoiled(
        "a round that skips a number",
        "answered",
        lambda s: s.opened(2),
        "wrong-parent",
        rf"Round 2 of {RUN} was opened, expected 1 after a closed one\.",
    ),
    Spoiled(
        "a round while one is open",
        "opened",
        lambda s: s.opened(2),
        "wrong-parent",
        rf"Round 2 of {RUN} was opened, expected 2 after a closed one\.",
    ),
    Spoiled(
        "a later round after the plan",
        "closed",
        lambda s: s.opened(2, inputs={"model": MODEL_1}),
        "wrong-parent",
        r"A round-opened names plan [0-9a-f]{16}… as its parent, expected round-closed",
    ),
    Spoiled(
        "a round from another model",
        "answered",
        lambda s: s.opened(inputs={"model": MODEL_1}),
        "ledger-conflict",
        rf"Round 1 of {RUN}: model is blake3:.* by the protocol blake3:",
    ),
    Spoiled(
        "a second round from the first model",
        "closed",
        lambda s: s.opened(2, parent=s.said["closed"]),
        "ledger-conflict",
        rf"Round 2 of {RUN}: model is",
    ),
    Spoiled(
        "a round with a server state",
        "answered",
        lambda s: s.opened(inputs={"model": a_blob_ref("model 0"), "server_state": MODEL_1}),
        "ledger-conflict",
        r"server_state is .* by the protocol None\.",
    ),
    Spoiled(
        "a round whose cohort was not drawn",
        "answered",
        lambda s: s.opened(cohort=("east", "north")),
        "ledger-conflict",
        r"cohort is \('east', 'north'\), by the protocol \('east', 'north', 'south'\)\.",
    ),
    Spoiled(
        "a round with another seed",
        "answered",
        lambda s: s.opened(seed=7),
        "ledger-conflict",
        r"seed is 7, by the protocol \d+\.",
    ),
    Spoiled(
        "a round under another roster",
        "answered",
        lambda s: s.opened(roster="ab" * 32),
        "ledger-conflict",
        r"roster is (ab){32}, by the protocol",
    ),
    Spoiled(
        "a round with stages of later protocols",
        "answered",
        lambda s: s.opened(
            stages=[{"name": name, "deadline": "2026-01-01T01:00:00.000Z"} for name in ("collect", "unmask")]
        ),
        "ledger-conflict",
        r"stages is \('collect', 'unmask'\), by the protocol \('collect',\)\.",
    ),
    Spoiled(
        "a round while the run is paused",
        "paused",
        lambda s: s.opened(2, parent=s.said["closed"], inputs={"model": MODEL_1}),
        "ledger-conflict",
        rf"Round 2 of {RUN} was opened while the run is paused\.",
    ),
    Spoiled(
        "a round after the run's evaluation",
        "measured",
        lambda s: s.opened(3, parent=s.said["measured"], inputs={"model": MODEL_1}),
        "ledger-conflict",
        rf"Round 3 of {RUN} was opened after the run's evaluation\.",
    ),
    Spoiled(
        "a round of a run that has ended",
        "ended",
        lambda s: s.opened(2, parent=s.said["closed"], inputs={"model": MODEL_1}),
        "round-not-open",
        rf"Run {RUN} has ended: rounds-done\.",
    ),
)

ALL = (*IDENTITY, *PLANS, *OPENINGS)


@pytest.mark.parametrize("spoiled", ALL, ids=str)
def test_it_is_refused_and_nothing_changes(story: Story, spoiled: Spoiled) -> None:
    spoiled.check(story)


def test_a_run_trains_no_more_rounds_than_its_institutions_accepted(story: Story) -> None:
    """The plan says two; a third may only measure."""
    state, parent = story.at["closed"], story.said["closed"]
    opened = story.opened(2, parent=parent, inputs={"model": MODEL_1})
    said = {name: story.contribution(name, parent=opened, round=2) for name in NAMES}
    used = {name: statement.digest for name, statement in said.items()}
    outputs = {"model": a_blob_ref("model 2")}
    closed = story.federation.sign(a_round_closed(used, round=2, outputs=outputs), parent=opened)
    for statement in (opened, *said.values(), closed):
        state = admit(state, statement.envelope).state
    third = story.opened(3, parent=closed, inputs=outputs)
    with pytest.raises(LedgerConflict, match=rf"Round 3 of {RUN} trains, after the plan's 2 rounds were done\."):
        admit(state, third.envelope)
    measuring = story.opened(3, parent=closed, inputs=outputs, task="evaluate")
    assert admit(state, measuring.envelope).statement == measuring
