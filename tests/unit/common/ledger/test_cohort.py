"""Draws that everybody can repeat, computed here once more from docs/protocol.md#cohort."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from functools import cache

from common.ledger.cohort import draw_cohort, local_seed, round_seed
from common.ledger.rules import admit, start
from common.ledger.state import LedgerState, RunRecord
from common.statements.kinds import Roster
from tests.support.plans import a_plan
from tests.support.statements import RUN, a_federation, a_plan_statement

NAMES = tuple(f"clinic-{letter}" for letter in "abcdef")


@cache
def answered(refusing: tuple[str, ...] = (), size: int | None = 3) -> LedgerState:
    """A ledger in which all have answered; cohorts of `size` are drawn."""
    federation = a_federation(NAMES)
    plan = federation.sign(a_plan_statement(plan=a_plan(cohort={"size": size})), parent=federation.roster)
    state = start(federation.genesis.envelope).state
    answers = [
        federation.sign(
            federation.answer(name, accept=name not in refusing).predicate,
            parent=plan,
            by=name,
        )
        for name in NAMES
    ]
    for statement in (federation.roster, plan, *answers):
        state = admit(state, statement.envelope).state
    return state


def by_the_page(state: LedgerState, run: RunRecord, number: int, size: int) -> tuple[str, ...]:
    assert state.roster_place is not None
    ranks = {}
    for name, answer in run.accepted.items():
        text = "/".join([run.place.digest, str(number), state.roster_place.digest, name, answer.nonce])
        ranks[hashlib.sha256(text.encode("ascii")).digest()] = name
    return tuple(sorted(ranks[rank] for rank in sorted(ranks)[:size]))


def with_roster(state: LedgerState, roster: Roster) -> LedgerState:
    return replace(state, roster=roster)


def test_without_a_size_everyone_who_accepted_is_invited() -> None:
    state = answered(size=None)
    assert draw_cohort(state, state.runs[RUN], 1) == NAMES


def test_a_size_that_is_not_below_the_acceptances_draws_nothing() -> None:
    state = answered(size=6)
    assert draw_cohort(state, state.runs[RUN], 1) == NAMES


def test_a_draw_is_what_the_protocol_page_says() -> None:
    state = answered()
    run = state.runs[RUN]
    for number in range(1, 30):
        assert draw_cohort(state, run, number) == by_the_page(state, run, number, 3)


def test_each_round_draws_anew_and_nobody_is_left_out_for_long() -> None:
    state = answered()
    cohorts = [draw_cohort(state, state.runs[RUN], number) for number in range(1, 101)]
    assert all(len(set(cohort)) == 3 and list(cohort) == sorted(cohort) for cohort in cohorts)
    assert min(Counter(name for cohort in cohorts for name in cohort)[name] for name in NAMES) > 25


def test_whoever_refused_is_never_drawn() -> None:
    state = answered(("clinic-a", "clinic-b"))
    drawn = {name for number in range(1, 20) for name in draw_cohort(state, state.runs[RUN], number)}
    assert drawn == set(NAMES[2:])


def test_whoever_is_not_active_is_not_drawn() -> None:
    state = answered(size=None)
    assert state.roster is not None
    members = tuple(
        member.model_copy(update={"status": "left"}) if member.name == "clinic-c" else member
        for member in state.roster.members
    )
    left = with_roster(state, state.roster.model_copy(update={"members": members}))
    assert "clinic-c" not in draw_cohort(left, left.runs[RUN], 1)


def test_whoever_does_not_train_is_not_drawn() -> None:
    state = answered(size=None)
    assert state.roster is not None
    members = tuple(
        member.model_copy(update={"roles": ("auditor",)}) if member.name == "clinic-c" else member
        for member in state.roster.members
    )
    audited = with_roster(state, state.roster.model_copy(update={"members": members}))
    assert "clinic-c" not in draw_cohort(audited, audited.runs[RUN], 1)


def test_nobody_accepted_gives_an_empty_cohort() -> None:
    state = answered(NAMES)
    assert draw_cohort(state, state.runs[RUN], 1) == ()


def test_a_rounds_seed_is_the_first_four_bytes_of_a_digest() -> None:
    plan = "ab" * 32
    expected = int(hashlib.sha256(f"{plan}/seed/7".encode()).hexdigest()[:8], 16)
    assert round_seed(plan, 7) == expected
    assert round_seed(plan, 7) != round_seed(plan, 8)


def test_institutions_draw_different_batches_from_one_seed() -> None:
    assert local_seed(7, "north") == int(hashlib.sha256(b"7/local/north").hexdigest()[:8], 16)
    assert local_seed(7, "north") != local_seed(7, "south")
