"""Buffered rounds: nobody waits, late deltas go into the open round by their staleness, and everybody can check it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.contributions.figures import round_figures
from common.contributions.left_out import model_without
from common.errors import LedgerConflict, RoundNotOpen, SlotTaken
from common.ledger.rulebook.rounds import round_closed, round_opened
from common.ledger.staleness import contributed, is_awaited, taking_round, weight, weights
from common.plan.weighting import TokensWeighting
from common.statements.envelope import Statement, parse, verify
from common.statements.kinds import SealedInput
from common.tensors import model_header, trainable_header
from common.verify.material import Own
from common.verify.own import check_own
from common.verify.rounds import check_rounds
from coordinator.ports import Activity
from participant.residuals import needed_rounds, starting_round
from tests.independent.ledger import Ledger
from tests.independent.statements import Entry
from tests.support.blobs import delta_bytes, random_arrays, read_blob
from tests.support.coordinators import Coordinator
from tests.support.participants import MANIFEST, RUN, FakeParticipant

NAMES = ("a", "b", "c", "d")
PLAN: dict[str, Any] = {
    "quorum": 2,
    "rounds": 4,
    "mode": {"type": "buffered", "buffer": 2, "max_staleness": 2},
}


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    made = Coordinator(tmp_path / "home", names=NAMES)
    yield made
    made.close()


class Late:
    """An institution's contribution to the round that is open now, signed now and sent when a test wants."""

    def __init__(self, one: FakeParticipant) -> None:
        self._one = one
        self.metrics = one.metrics()
        self.delta = one.delta()
        self._round = one.round
        self.statement: Statement | None = None

    def send(self) -> int:
        statement = self.sign()
        return self._one.submit(statement, self.metrics)

    def sign(self) -> Statement:
        if self.statement is None:
            number, opening = self._round.number, self._round.place.digest
            ref = self._one.send(self.delta, opened=opening)
            self.statement = self._one.contribution(ref, self.metrics, round=number, parent=opening)
        return self.statement


def fill(coordinator: Coordinator, *names: str) -> None:
    for name in names:
        coordinator[name].contribute()
    coordinator.advance()


def takers(coordinator: Coordinator) -> list[dict[str, int]]:
    """Of each closed round: whose deltas it used, and from which round's base each was trained."""
    return [
        {name: entry.contribution.round for name, entry in sorted(record.contributions.items())}
        for record in coordinator.run.rounds
        if record.closed is not None and record.closed.outcome == "committed"
    ]


def read_again(coordinator: Coordinator) -> None:
    """The ledger is one that the second reader lets in."""
    reader = Ledger()
    for index, envelope in enumerate(coordinator.envelopes()):
        reader.admit(Entry(index, envelope))


def test_a_round_is_sealed_with_a_buffer_and_a_late_delta_goes_into_the_next(coordinator: Coordinator) -> None:
    opened = coordinator.open_round(**PLAN)
    assert (opened.opened.mode, opened.opened.cohort, opened.enough) == ("buffered", NAMES, 2)
    late = Late(coordinator["c"])
    fill(coordinator, "a", "b")
    assert coordinator.run.rounds[0].closed is not None
    assert coordinator.run.rounds[0].closed.reason == "enough-contributed"
    late.send()
    fill(coordinator, "a")
    assert takers(coordinator) == [{"a": 1, "b": 1}, {"a": 2, "c": 1}]
    closed = coordinator.run.rounds[1].closed
    assert closed is not None
    assert [(entry.institution, entry.status) for entry in closed.inputs] == [("a", "used"), ("c", "used")]
    read_again(coordinator)


def test_a_late_delta_weighs_less_and_the_model_is_the_weighted_mean_of_the_page(coordinator: Coordinator) -> None:
    coordinator.open_round(**PLAN)
    late = Late(coordinator["c"])
    fill(coordinator, "a", "b")
    fill(coordinator, "a", "b")
    late.send()
    coordinator["d"].contribute()
    base_ref = coordinator.run.rounds[2].opened.inputs.model
    coordinator.advance()
    record = coordinator.run.rounds[2]
    assert record.closed is not None
    tokens = {entry.institution: entry.num_tokens for entry in record.closed.inputs}
    expected = {"c": math.floor(tokens["c"] / math.sqrt(3)), "d": tokens["d"]}
    assert weights(coordinator.run, record) == expected
    base, new = (
        np.frombuffer(coordinator.blobs.path(ref).read_bytes()[-39 * 4 :], "<f4")[:36]
        for ref in (base_ref, record.closed.outputs.model)
    )
    total = np.zeros(36, np.float64)
    for name in ("c", "d"):
        ref = record.contributions[name].contribution.blobs["delta"]
        delta = np.frombuffer(coordinator.blobs.path(ref).read_bytes()[-36 * 4 :], "<f4")
        total += np.float64(expected[name]) * delta.astype(np.float64)
    mean = (total / np.float64(sum(expected.values()))).astype(np.float32)
    assert new.tobytes() == (base + mean).astype(np.float32).tobytes()
    check = check_rounds(coordinator.run, coordinator.blobs, lambda run, number: None)
    assert (check.findings, check.examined) == ((), "3 of 3 recomputed here, equal in every bit")


def test_a_delta_that_is_too_late_is_refused(coordinator: Coordinator) -> None:
    coordinator.open_round(**PLAN | {"rounds": 8})
    late = Late(coordinator["c"])
    late.sign()
    for _ in range(3):
        fill(coordinator, "a", "b")
    assert coordinator.run.open_round is not None
    assert coordinator.run.open_round.number == 4
    assert not is_awaited(coordinator.run, 1)
    with pytest.raises(RoundNotOpen, match=rf"Round 1 of {RUN} is closed\."):
        late.send()


def test_a_delta_from_a_base_that_was_rolled_back_is_refused(coordinator: Coordinator) -> None:
    coordinator.open_round(**PLAN | {"rounds": 8})
    fill(coordinator, "a", "b")
    late = Late(coordinator["c"])
    late.sign()
    assert is_awaited(coordinator.run, 2)
    coordinator.engine.roll_back(coordinator.engine.state_of(coordinator.run), 1, "operator")
    coordinator.advance()
    assert coordinator.run.open_round is not None
    assert not is_awaited(coordinator.run, 2)
    with pytest.raises(RoundNotOpen, match=rf"Round 2 of {RUN} is closed\."):
        late.send()
    fill(coordinator, "a", "b")
    read_again(coordinator)


def test_one_slot_holds_one_contribution_and_one_round_one_of_each_institution(coordinator: Coordinator) -> None:
    coordinator.open_round(**PLAN | {"mode": {"type": "buffered", "buffer": 3, "max_staleness": 2}})
    late, again = Late(coordinator["c"]), Late(coordinator["c"])
    again.delta = delta_bytes(MANIFEST, random_arrays(MANIFEST, seed=99, scale=0.01))
    late.sign()
    again.sign()
    fill(coordinator, "a", "b", "d")
    index = late.send()
    assert late.send() == index
    with pytest.raises(SlotTaken, match=rf"c has contributed to round 1 of {RUN} already"):
        again.send()
    with pytest.raises(RoundNotOpen, match=r"c has a late contribution in round 2 of .* already; the next round takes"):
        coordinator["c"].contribute()
    assert "c" not in coordinator.run.rounds[1].missing


def test_the_evaluation_is_of_everybody_and_takes_nothing_late(coordinator: Coordinator) -> None:
    coordinator.open_round(**PLAN | {"rounds": 1})
    late = Late(coordinator["c"])
    late.sign()
    fill(coordinator, "a", "b")
    evaluation = coordinator.run.open_round
    assert evaluation is not None
    assert (evaluation.opened.task, evaluation.opened.mode, evaluation.enough) == ("evaluate", "synchronous", 4)
    assert not is_awaited(coordinator.run, 1)
    with pytest.raises(RoundNotOpen):
        late.send()
    fill(coordinator, *NAMES)
    assert coordinator.run.ended is not None
    assert coordinator.run.ended.reason == "rounds-done"
    read_again(coordinator)


def test_losses_that_come_late_are_of_another_model_and_count_in_no_round(coordinator: Coordinator) -> None:
    coordinator.open_round(**PLAN | {"metrics_visibility": "institution"})
    late = Late(coordinator["c"])
    fill(coordinator, "a", "b")
    late.send()
    fill(coordinator, "a")
    measured = coordinator.measurements.evaluations(RUN)
    assert [sums.institution for sums in measured[2]] == ["a"]


def test_who_trains_on_an_older_base_is_told_to_go_on_as_long_as_it_can_be_taken(coordinator: Coordinator) -> None:
    coordinator.open_round(**PLAN | {"rounds": 8})
    activity = Activity(run=RUN, round=1, activity="training")
    told = []
    for _ in range(3):
        told.append(coordinator.board.report(coordinator["c"].member, activity))
        fill(coordinator, "a", "b")
    told.append(coordinator.board.report(coordinator["c"].member, activity))
    assert told == [True, True, True, False]


def test_a_late_delta_stands_for_its_residual_and_its_signer(coordinator: Coordinator) -> None:
    """Residuals are kept by the round that was trained, whichever round took the delta."""
    coordinator.open_round(**PLAN)
    late = Late(coordinator["c"])
    statement = late.sign()
    fill(coordinator, "a", "b")
    assert 1 in needed_rounds(coordinator.run, "c")
    late.send()
    assert 1 in needed_rounds(coordinator.run, "c")
    fill(coordinator, "a")
    run = coordinator.run
    assert starting_round(run, "c", 3) == 1
    assert starting_round(run, "a", 3) == 2
    found = contributed(run, 1, "c")
    assert found is not None
    assert found[0].number == 2
    slot = f"contribution/{run.rounds[0].place.digest}"
    assert check_own(Own("c", {slot: statement.digest}), [run]).findings == ()


def test_a_crash_anywhere_in_between_leaves_the_same_ledger_to_go_on_with(coordinator: Coordinator) -> None:
    coordinator.open_round(**PLAN)
    late = Late(coordinator["c"])
    fill(coordinator, "a", "b")
    late.send()
    coordinator.restart()
    fill(coordinator, "a")
    assert takers(coordinator)[1] == {"a": 2, "c": 1}
    assert taking_round(coordinator.run, 1) is not None


def test_a_round_of_another_mode_than_the_plans_is_refused(coordinator: Coordinator) -> None:
    coordinator.open_round(**PLAN)
    state, run = coordinator.state, coordinator.run
    first = run.rounds[0]
    before = replace(state, runs={RUN: replace(run, rounds=())})
    statement = verify(parse(coordinator.envelopes()[first.place.index]), state.genesis.coordinator_key)
    round_opened(before, statement, first.place)  # as it stands it is let in
    forged = replace(statement, predicate=first.opened.model_copy(update={"mode": "synchronous"}))
    with pytest.raises(LedgerConflict, match="mode is synchronous, by the protocol buffered"):
        round_opened(before, forged, first.place)


def test_a_close_that_leaves_a_late_delta_out_is_refused(coordinator: Coordinator) -> None:
    coordinator.open_round(**PLAN | {"quorum": 1, "mode": {"type": "buffered", "buffer": 2, "max_staleness": 2}})
    late = Late(coordinator["c"])
    fill(coordinator, "a", "b")
    late.send()
    fill(coordinator, "a")
    run, record = coordinator.run, coordinator.run.rounds[1]
    assert record.closed is not None
    assert record.closed_place is not None
    statement = verify(
        parse(coordinator.envelopes()[record.closed_place.index]), coordinator.state.genesis.coordinator_key
    )
    before = replace(run, rounds=(run.rounds[0], replace(record, closed=None, closed_place=None)))
    state = replace(coordinator.state, runs={RUN: before})
    round_closed(state, statement, record.closed_place)
    without = tuple(entry for entry in record.closed.inputs if entry.institution != "c")
    forged = replace(statement, predicate=record.closed.model_copy(update={"inputs": without}))
    with pytest.raises(LedgerConflict, match="closes without a word on one of its contributions"):
        round_closed(state, forged, record.closed_place)


@pytest.mark.parametrize("late", range(12))
@pytest.mark.parametrize("num_tokens", [1, 2, 3, 1000, 2**29 - 1])
def test_weights_are_the_integer_below_fedbuffs(late: int, num_tokens: int, coordinator_record: Any) -> None:
    record, entry = coordinator_record(late, num_tokens)
    found = weight(TokensWeighting(), record, entry)
    assert found == max(1, found)
    assert found == 1 or found * found * (1 + late) <= num_tokens * num_tokens
    assert (found + 1) ** 2 * (1 + late) > num_tokens * num_tokens
    assert late or found == num_tokens


@pytest.fixture
def coordinator_record() -> Any:
    from common.ledger.state import Contributed, Place, RoundRecord
    from common.statements.kinds import Kind
    from tests.support.statements import a_contribution, a_round_opened

    place = Place(0, "0" * 64, Kind.PLAN)

    def make(late: int, num_tokens: int) -> tuple[RoundRecord, SealedInput]:
        given = {"north": Contributed(place, a_contribution("north", round=1))}
        record = RoundRecord(place, a_round_opened("0" * 64, round=1 + late), given)
        return record, SealedInput(institution="north", contribution="1" * 64, num_tokens=num_tokens, status="used")

    return make


def test_a_late_deltas_share_is_of_weights_and_leaving_it_out_leaves_the_others(
    coordinator: Coordinator, tmp_path: Path
) -> None:
    coordinator.open_round(**PLAN)
    late = Late(coordinator["c"])
    fill(coordinator, "a", "b")
    late.send()
    fill(coordinator, "a")
    record = coordinator.run.rounds[1]
    weighed = weights(coordinator.run, record)
    assert weighed["c"] < weighed["a"]
    found = {row.institution: row for row in round_figures(coordinator.run, record, coordinator.blobs).rows}
    assert found["c"].num_tokens == found["a"].num_tokens
    assert found["c"].share == weighed["c"] / (weighed["a"] + weighed["c"])
    model_without(coordinator.run, record, coordinator.blobs, "c", tmp_path / "model")
    base = read_blob(coordinator.blobs, record.opened.inputs.model)
    delta = read_blob(coordinator.blobs, record.contributions["a"].contribution.blobs["delta"])
    before, added = (
        np.frombuffer(content, "<f4", count=36, offset=len(header))
        for content, header in ((base, model_header(MANIFEST)), (delta, trainable_header(MANIFEST)))
    )
    alone = np.frombuffer((tmp_path / "model").read_bytes(), "<f4", count=36, offset=len(model_header(MANIFEST)))
    assert (alone == before + added).all(), "of one delta the mean is that delta, whatever it weighs"
