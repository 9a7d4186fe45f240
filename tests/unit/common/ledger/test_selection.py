"""Cohorts by selection: what the protocol page says, from the ledger alone, whoever computes it in whatever order."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

import pytest

from common.errors import LedgerConflict, RoundNotOpen
from common.ledger.cohort import cohort_sizes, draw
from common.ledger.rulebook.rounds import round_opened
from common.ledger.rules import signer_key
from common.ledger.selection import Lot, draw_successively, missed_invitations, tokens_trained_last
from common.ledger.state import LedgerState, RunRecord
from common.statements.envelope import parse, verify
from tests.independent.ledger import Ledger
from tests.independent.statements import Entry
from tests.support.coordinators import Coordinator
from tests.support.participants import RUN
from tests.support.plans import a_plan

NAMES = ("a", "b", "c", "d", "e")
SELECTIONS = ("uniform", "weighted", "round-robin", "available")


def play(
    folder: Path, cohort: dict[str, object], *, away: Sequence[str] = (), rounds: int = 12, quorum: int = 2
) -> Coordinator:
    """A run to its end; those who are `away` never contribute, and nobody waits for them beyond the deadline."""
    coordinator = Coordinator(folder / "home", names=NAMES)
    coordinator.start_run(cohort=cohort, rounds=rounds, quorum=quorum)
    for participant in coordinator.participants.values():
        participant.answer()
    for _ in range(4 * rounds):
        coordinator.advance()
        record = coordinator.run.open_round
        if record is None:
            break
        coming = [name for name in record.opened.cohort if name not in away][: record.enough]
        for tokens, name in enumerate(coming, 1):
            coordinator[name].contribute(**({"num_tokens": 8 * tokens} if record.opened.task == "train" else {}))
        if len(coming) < record.enough:
            coordinator.clock.advance(seconds=coordinator.run.statement.plan.deadline_seconds)
    return coordinator


def cohorts(run: RunRecord) -> list[tuple[str, ...]]:
    return [record.opened.cohort for record in run.rounds]


# --- by the page -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("how", [{"size": 3}, {"fraction": 0.5}, {"size": 2, "over_selection": 0.3}])
def test_a_ledger_of_every_selection_is_what_a_second_reader_computes(
    selection: str, how: dict[str, object], tmp_path: Path
) -> None:
    coordinator = play(tmp_path, how | {"selection": selection}, away=("b",))
    try:
        assert len(coordinator.run.rounds) > 5
        reader = Ledger()
        for index, envelope in enumerate(coordinator.envelopes()):
            reader.admit(Entry(index, envelope))
        assert reader.runs[RUN].openings.keys() == {record.number for record in coordinator.run.rounds}
    finally:
        coordinator.close()


@pytest.mark.parametrize("selection", SELECTIONS)
def test_a_draw_does_not_depend_on_the_order_in_which_anything_is_stored(selection: str, tmp_path: Path) -> None:
    coordinator = play(tmp_path, {"size": 3, "selection": selection}, away=("b",), rounds=6)
    try:
        state, run = coordinator.state, coordinator.run
        number = len(run.rounds) + 1
        expected = draw(state, run, number)
        shuffled, chance = list(run.answers.items()), random.Random(7)
        for _ in range(10):
            chance.shuffle(shuffled)
            again = replace(run, answers=MappingProxyType(dict(shuffled)))
            assert draw(state, again, number) == expected
    finally:
        coordinator.close()


# --- how many --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cohort", "accepted", "enough", "invited"),
    [
        ({}, 7, 7, 7),
        ({"size": 4}, 7, 4, 4),
        ({"size": 4}, 3, 3, 3),
        ({"fraction": 0.5}, 7, 4, 4),
        ({"fraction": 0.5}, 8, 4, 4),
        ({"fraction": 0.1}, 8, 3, 3),
        ({"fraction": 1}, 8, 8, 8),
        ({"size": 4, "over_selection": 0.25}, 8, 4, 5),
        ({"size": 4, "over_selection": 0.26}, 8, 4, 6),
        ({"size": 4, "over_selection": 10}, 8, 4, 8),
        ({"fraction": 0.5, "over_selection": 0.5}, 8, 4, 6),
        ({"fraction": "0.3333333333333333333333333333"}, 30, 10, 10),
        ({"fraction": "0.3333333333333333333333333334"}, 30, 11, 11),
    ],
)
def test_sizes_are_exact_and_rounded_up_once(
    cohort: dict[str, object], accepted: int, enough: int, invited: int
) -> None:
    sizes = cohort_sizes(a_plan(cohort=cohort), accepted)
    assert (sizes.enough, sizes.invited) == (enough, invited)


# --- weighted --------------------------------------------------------------------------------------------------------


def tickets(number: int) -> Lot:
    nonces = {name: hashlib.sha256(name.encode()).hexdigest() for name in NAMES}
    return Lot("ab" * 32, number, "cd" * 32, nonces)


def test_weighted_draws_have_the_chances_of_their_weights() -> None:
    """Pairs of four, drawn 20,000 times: each within 5 standard deviations of w_a / W × w_b / (W − w_a)."""
    weights, tries = [1, 2, 3, 4], 20_000
    drawn = Counter(tuple(draw_successively(weights, 2, tickets(number).tickets())) for number in range(tries))
    for first in range(4):
        for second in range(4):
            chance = weights[first] / 10 * weights[second] / (10 - weights[first]) if first != second else 0.0
            spread = 5 * (chance * (1 - chance) * tries) ** 0.5
            assert abs(drawn[first, second] - chance * tries) <= spread, (first, second)


def test_everybody_is_drawn_once_however_uneven_the_weights() -> None:
    weights = [1, 2**29 - 1, 5, 2**29 - 1, 1, 7]
    for number in range(50):
        assert sorted(draw_successively(weights, 6, tickets(number).tickets())) == [0, 1, 2, 3, 4, 5]


def test_weights_are_the_tokens_of_the_newest_used_contribution(tmp_path: Path) -> None:
    coordinator = play(tmp_path, {"size": 3, "selection": "weighted"}, rounds=5)
    try:
        run, expected = coordinator.run, {}
        for record in run.committed():
            expected |= {name: 8 * tokens for tokens, name in enumerate(record.opened.cohort, 1)}
        assert dict(tokens_trained_last(run)) == expected
        assert len(set(expected.values())) > 1
    finally:
        coordinator.close()


# --- in turn ---------------------------------------------------------------------------------------------------------


def test_in_turn_everybody_is_invited_equally_often(tmp_path: Path) -> None:
    coordinator = play(tmp_path, {"size": 3, "selection": "round-robin"}, rounds=9)
    try:
        drawn = cohorts(coordinator.run)
        assert len(drawn) == 10  # with the evaluation
        for first in range(0, 10, 5):
            assert Counter(name for cohort in drawn[first : first + 5] for name in cohort) == dict.fromkeys(NAMES, 3)
        assert all(len(set(one) | set(two)) == 5 for one, two in pairwise(drawn))
    finally:
        coordinator.close()


def test_who_leaves_moves_nobody_elses_turn(tmp_path: Path) -> None:
    coordinator = play(tmp_path, {"size": 2, "selection": "round-robin"}, rounds=3)
    try:
        state, run = coordinator.state, coordinator.run
        before = [record for record in run.rounds if record.closed is not None]
        accepted = {name: answer for name, answer in run.answers.items() if name != "c"}
        record = replace(run, answers=MappingProxyType(accepted))
        drawn = []
        for number in range(len(before) + 1, len(before) + 11):
            made = draw(state, record, number)
            drawn += made.cohort
            record = replace(record, rounds=(*record.rounds, replace(before[0], turn=made.turn)))
        assert Counter(drawn) == dict.fromkeys(("a", "b", "d", "e"), 5)
    finally:
        coordinator.close()


# --- available -------------------------------------------------------------------------------------------------------


def test_who_was_away_is_seldom_invited_and_never_shut_out(tmp_path: Path) -> None:
    """Two of five never contribute: the others are preferred, and those two still stand in the draw one time in 16."""
    coordinator = play(tmp_path, {"size": 3, "selection": "available"}, away=("b", "d"), rounds=12)
    try:
        state, run = coordinator.state, coordinator.run
        missed = missed_invitations(run, dict.fromkeys(NAMES, ""))
        assert {name for name in NAMES if missed[name]} == {"b", "d"}
        tries = 4000
        drawn = Counter(name for number in range(100, 100 + tries) for name in draw(state, run, number).cohort)
        for name in ("b", "d"):
            chance = 1 / 2 ** min(missed[name], 4)
            assert 0 < drawn[name] < chance * tries
        assert min(drawn[name] for name in ("a", "c", "e")) > 0.75 * tries
    finally:
        coordinator.close()


def test_a_full_round_says_nothing_of_who_was_slower(tmp_path: Path) -> None:
    coordinator = play(tmp_path, {"size": 2, "over_selection": 1.5, "selection": "available"}, rounds=6)
    try:
        assert any(record.missing for record in coordinator.run.rounds)
        assert set(missed_invitations(coordinator.run, dict.fromkeys(NAMES, "")).values()) == {0}
    finally:
        coordinator.close()


def test_who_contributes_again_is_available_at_once() -> None:
    assert [tickets(number).comes_back("a", 0) for number in range(20)] == [True] * 20


@pytest.mark.parametrize(("missed", "one_in"), [(1, 2), (2, 4), (3, 8), (4, 16), (60, 16)])
def test_the_chance_to_come_back_halves_down_to_one_in_sixteen(missed: int, one_in: int) -> None:
    tries = 8000
    came = sum(tickets(number).comes_back("a", missed) for number in range(tries))
    chance = 1 / one_in
    assert abs(came - chance * tries) < 5 * (chance * (1 - chance) * tries) ** 0.5


# --- what the rules refuse -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("selection", SELECTIONS)
def test_another_cohort_than_the_selections_is_refused(selection: str, tmp_path: Path) -> None:
    coordinator = play(tmp_path, {"size": 2, "selection": selection}, rounds=1)
    try:
        run = coordinator.run
        state: LedgerState = coordinator.state
        first = run.rounds[0]
        before = replace(state, runs={RUN: replace(run, rounds=(), ended=None)})
        assert draw(before, before.runs[RUN], 1).cohort == first.opened.cohort
        others = [(one, two) for one in NAMES for two in NAMES if one < two and (one, two) != first.opened.cohort]
        unverified = parse(coordinator.envelopes()[first.place.index])
        statement = verify(unverified, signer_key(state, unverified))
        round_opened(before, statement, first.place)  # as it stands it is let in
        for cohort in others:
            forged = replace(statement, predicate=first.opened.model_copy(update={"cohort": cohort}))
            with pytest.raises(LedgerConflict, match=r"cohort is \('.', '.'\), by the protocol \('.', '.'\)\."):
                round_opened(before, forged, first.place)
    finally:
        coordinator.close()


def test_one_contribution_more_than_wanted_is_refused_by_every_reader(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path / "home", names=NAMES)
    try:
        opened = coordinator.open_round(cohort={"size": 2, "over_selection": 0.5}, quorum=2)
        assert (len(opened.opened.cohort), opened.enough) == (3, 2)
        first, second, third = opened.opened.cohort
        coordinator[first].contribute()
        coordinator[second].contribute()
        with pytest.raises(RoundNotOpen, match=rf"Round 1 of {RUN} has the 2 contributions that its plan asks for\."):
            coordinator[third].contribute()
    finally:
        coordinator.close()
