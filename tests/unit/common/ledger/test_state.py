"""What a ledger says, read at every stage of a story."""

from __future__ import annotations

import pytest

from common.ledger.state import LedgerState, RunRecord, with_entry
from tests.support.statements import NAMES, RUN, a_blob_ref
from tests.support.story import Story


def run_at(story: Story, stage: str) -> RunRecord:
    return story.at[stage].runs[RUN]


def test_a_new_mapping_leaves_the_old_one_alone() -> None:
    before = with_entry({"a": 1}, "b", 2)
    after = with_entry(before, "b", 3)
    assert (before["b"], after["b"]) == (2, 3)
    with pytest.raises(TypeError, match="does not support item assignment"):
        after["c"] = 4  # type: ignore[index]


def test_every_statement_has_its_place(story: Story) -> None:
    state = story.at["contributed"]
    assert sorted(place.index for place in state.places.values()) == list(range(state.size))
    assert state.places[story.said["opened"].digest].kind == "round-opened"


@pytest.mark.parametrize(
    ("stage", "tip"),
    [("plan", "plan"), ("opened", "plan"), ("closed", "closed"), ("opened-2", "closed"), ("ended", "closed")],
)
def test_the_tip_is_the_newest_closed_round_or_the_plan(story: Story, stage: str, tip: str) -> None:
    assert run_at(story, stage).tip.digest == story.said[tip].digest


@pytest.mark.parametrize(
    ("stage", "model"), [("plan", 0), ("opened", 0), ("contributed", 0), ("closed", 1), ("evaluating", 1)]
)
def test_the_model_is_the_newest_committed_one(story: Story, stage: str, model: int) -> None:
    assert run_at(story, stage).model == a_blob_ref(f"model {model}")
    assert run_at(story, stage).server_state is None


def test_an_open_round_knows_who_is_missing(story: Story) -> None:
    opened = run_at(story, "opened").open_round
    assert opened is not None
    assert opened.missing == NAMES
    full = run_at(story, "contributed").open_round
    assert full is not None
    assert full.missing == ()
    assert run_at(story, "closed").open_round is None
    closed = run_at(story, "closed").current
    assert closed is not None
    assert closed.closed_place is not None


def test_only_acceptances_are_accepted(story: Story) -> None:
    assert run_at(story, "plan").accepted == {}
    assert set(run_at(story, "answered").accepted) == set(NAMES)


def test_committed_rounds_are_counted_by_task(story: Story) -> None:
    run = run_at(story, "evaluating")
    assert [record.number for record in run.committed()] == [1]
    assert run.committed("evaluate") == ()


def test_a_run_that_ended_is_not_active(story: Story) -> None:
    assert [run.run for run in story.at["closed"].active_runs] == [RUN]
    assert story.at["ended"].active_runs == ()
    assert run_at(story, "paused").paused


def test_a_round_is_found_by_its_opening(story: Story) -> None:
    state: LedgerState = story.at["opened-2"]
    found = state.round_by_opening(story.said["opened"].digest)
    assert found is not None
    assert (found[0].run, found[1].number) == (RUN, 1)
    assert state.round_by_opening(story.said["plan"].digest) is None


def test_without_a_roster_there_is_no_member(story: Story) -> None:
    assert story.at["genesis"].member("north") is None
    assert story.at["genesis"].active_trainers == ()
    assert story.at["roster"].active_trainers == NAMES
