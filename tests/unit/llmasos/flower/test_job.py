"""Rounds without a ledger: a function of the plan's seed, and stop rules as a coordinator has them."""

from __future__ import annotations

from typing import Any

import pytest

from common.errors import UsageError
from common.ledger.cohort import round_seed
from llmasos.flower.job import check_playable, own_turn, stop_reason
from tests.support.plans import a_plan

NAMES = ("west", "north", "east", "south")


def test_all_are_invited_in_order_with_a_seed_by_the_plans_own() -> None:
    turn = own_turn(a_plan(seed=9), NAMES, 3, "train")
    assert turn.cohort == turn.used == ("east", "north", "south", "west")
    assert turn.seed == round_seed("9", 3)


def test_a_cohort_of_a_size_is_drawn_anew_each_round_and_everybody_evaluates() -> None:
    plan = a_plan(cohort={"size": 3}, seed=1)
    cohorts = [own_turn(plan, NAMES, number, "train").cohort for number in range(1, 20)]
    assert {len(set(cohort)) for cohort in cohorts} == {3}
    assert len(set(cohorts)) == 4
    assert own_turn(plan, tuple(reversed(NAMES)), 5, "train").cohort == cohorts[4]
    assert len(own_turn(plan, NAMES, 20, "evaluate").cohort) == 4


def test_a_fraction_is_drawn_and_nobody_beyond_it() -> None:
    plan = a_plan(cohort={"fraction": "0.75", "over_selection": "0.5"})
    assert len(own_turn(plan, NAMES, 1, "train").cohort) == 3


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"mode": {"type": "buffered", "buffer": 3}}, "mode buffered"),
        ({"personal": ["ln_f"]}, "personal layers"),
        ({"rule": {"type": "operator"}}, "rule operator"),
        ({"cohort": {"size": 3, "selection": "weighted"}}, "cohort.selection weighted"),
    ],
)
def test_what_only_daemons_do_is_refused_in_one_sentence(fields: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=rf"The Flower engine does not play {what}\."):
        check_playable(a_plan(**fields))
    check_playable(a_plan(cohort={"size": 3, "selection": "weighted"}), replayed=True)


@pytest.mark.parametrize(
    ("stop", "medians", "reason"),
    [
        ({}, [9.0, 9.0, 9.0], ""),
        ({"target_perplexity": 5}, [9.0, 5.0], "target-reached"),
        ({"target_perplexity": 5}, [4.0, 6.0], ""),
        ({"patience_rounds": 2}, [9.0, 9.5, 9.1], "no-improvement"),
        ({"patience_rounds": 2}, [9.0, 9.5, 8.9], ""),
        ({"patience_rounds": 2}, [9.0, 9.5], ""),
    ],
)
def test_stop_rules(stop: dict[str, int], medians: list[float], reason: str) -> None:
    assert stop_reason(a_plan(stop=stop), medians) == reason
