"""Commands: what a resent, late, doubled or simultaneous statement comes to, and how runs are started and steered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from common.errors import (
    MalformedStatement,
    MissingBlob,
    NonFiniteDelta,
    RefusalError,
    RoundNotOpen,
    SlotTaken,
    UnknownObject,
    UsageError,
    WrongTensors,
)
from common.statements.kinds import Roster
from coordinator.desk import find_run
from coordinator.rounds.engine import Engine
from tests.support.blobs import delta_bytes, model_bytes, random_arrays
from tests.support.coordinators import BASE, Coordinator, EngineThread
from tests.support.participants import MANIFEST, RUN

OTHER_DELTA = delta_bytes(MANIFEST, random_arrays(MANIFEST, seed=99, scale=0.01))


@pytest.fixture
def threaded(tmp_path: Path) -> Iterator[Coordinator]:
    """The same with the real engine on its own thread; founded and enrolled before it starts."""
    first = Coordinator(tmp_path / "home")
    first.restart(engine=Engine)
    with EngineThread(first.engine):
        yield first
    first.close()


def together(*actions: Callable[[], int]) -> list[int | str]:
    """Each on a thread of its own, all at once: what it returned, or the code that it was refused with."""
    barrier = threading.Barrier(len(actions))

    def one(action: Callable[[], int]) -> int | str:
        barrier.wait(30)
        try:
            return action()
        except RefusalError as err:
            return err.code

    with ThreadPoolExecutor(len(actions)) as pool:
        return [each.result(60) for each in [pool.submit(one, action) for action in actions]]


# --- statements ------------------------------------------------------------------------------------------------------


def test_the_same_bytes_again_give_the_same_index_also_after_a_restart(coordinator: Coordinator) -> None:
    coordinator.open_round()
    north = coordinator["north"]
    ref, metrics = north.send(north.delta()), north.metrics()
    statement = north.contribution(ref, metrics)
    index = north.submit(statement, metrics)
    size = coordinator.state.size
    assert north.submit(statement, metrics) == index
    assert north.submit(statement) == index, "what is known needs no metrics"
    coordinator.restart()
    assert north.submit(statement, metrics) == index
    assert coordinator.state.size == size
    assert coordinator.refusals() == []


def test_the_same_bytes_again_are_no_error_when_the_round_is_long_closed(coordinator: Coordinator) -> None:
    coordinator.start_run()
    answer = coordinator["north"].an_answer()
    index = coordinator["north"].submit(answer)
    coordinator.play()
    assert coordinator["north"].submit(answer) == index


def test_a_second_contribution_to_a_slot_is_refused_and_the_first_one_stays(coordinator: Coordinator) -> None:
    coordinator.open_round()
    north = coordinator["north"]
    index = north.contribute()
    with pytest.raises(SlotTaken, match=rf"north has contributed to round 1 of {RUN} already\."):
        north.contribute(OTHER_DELTA)
    assert coordinator.run.rounds[0].contributions["north"].place.index == index
    assert coordinator.refusals() == [("north", 1, "slot-taken", "signed-by")]


def test_a_late_delta_is_refused_and_recorded_once(coordinator: Coordinator) -> None:
    coordinator.open_round(quorum=2)
    north = coordinator["north"]
    ref, metrics = north.send(north.delta()), north.metrics()
    late = north.contribution(ref, metrics)
    for name in ("east", "south"):
        coordinator[name].contribute()
    coordinator.clock.advance(seconds=3600)
    for _ in range(3):
        with pytest.raises(RoundNotOpen, match=rf"Round 1 of {RUN} takes no more contributions\."):
            north.submit(late, metrics)
    coordinator.advance()
    for _ in range(3):
        with pytest.raises(RoundNotOpen, match=rf"Round 1 of {RUN} is closed\."):
            north.submit(late, metrics)
    assert coordinator.refusals() == [("north", 1, "round-not-open", "signed-by")]
    assert coordinator.state.refusal_list[0][0].index > 0
    closed = coordinator.run.rounds[0].closed
    assert closed is not None
    assert "north" not in [entry.institution for entry in closed.inputs]


def test_a_contribution_is_taken_up_to_the_deadline_and_not_at_it(coordinator: Coordinator) -> None:
    coordinator.open_round(deadline_seconds=100)
    coordinator.clock.advance(seconds=99.999)
    coordinator["north"].contribute()
    coordinator.clock.advance(seconds=0.001)
    with pytest.raises(RoundNotOpen, match="takes no more contributions"):
        coordinator["south"].contribute()


def test_a_refused_contribution_may_be_mended_and_sent_again(coordinator: Coordinator) -> None:
    coordinator.open_round()
    north = coordinator["north"]
    with pytest.raises(RefusalError, match="num_tokens is 65"):
        north.contribute(num_tokens=65)
    assert north.contribute(num_tokens=64) == coordinator.state.size - 1


def test_an_institution_that_joins_later_takes_part_from_the_next_round_on(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=2)
    west = coordinator.enrol("west")
    west.answer()
    with pytest.raises(RefusalError, match=rf"west is not in the cohort of round 1 of {RUN}\."):
        west.contribute()
    coordinator.play()
    assert coordinator.run.rounds[1].opened.cohort == ("east", "north", "south", "west")


# --- all at once -----------------------------------------------------------------------------------------------------


def test_many_threads_that_send_one_contribution_get_one_index(threaded: Coordinator) -> None:
    threaded.start_run()
    for participant in threaded.participants.values():
        participant.answer()
    threaded.engine.call(lambda: None)
    north = threaded["north"]
    ref, metrics = north.send(north.delta()), north.metrics()
    statement = north.contribution(ref, metrics)
    found = together(*[lambda: north.submit(statement, metrics)] * 8)
    assert set(found) == {threaded.run.rounds[0].contributions["north"].place.index}
    assert threaded.refusals() == []


def test_of_different_contributions_at_once_exactly_one_takes_the_slot(threaded: Coordinator) -> None:
    threaded.start_run()
    for participant in threaded.participants.values():
        participant.answer()
    threaded.engine.call(lambda: None)
    north = threaded["north"]
    ref, metrics = north.send(north.delta()), north.metrics()
    rivals = [north.contribution(ref, metrics, num_tokens=count) for count in range(1, 9)]
    found = together(*[lambda rival=rival: north.submit(rival, metrics) for rival in rivals])  # type: ignore[misc]
    assert found.count("slot-taken") == 7
    assert threaded.refusals() == [("north", 1, "slot-taken", "signed-by")]


def test_institutions_that_contribute_at_once_are_all_in(threaded: Coordinator) -> None:
    threaded.start_run(rounds=1)
    found = together(*[participant.answer for participant in threaded.participants.values()])
    assert all(isinstance(index, int) for index in found)
    threaded.engine.call(lambda: None)
    found = together(*[participant.contribute for participant in threaded.participants.values()])
    assert all(isinstance(index, int) for index in found)
    threaded.engine.call(lambda: None)
    closed = threaded.run.rounds[0].closed
    assert closed is not None
    assert [entry.institution for entry in closed.inputs] == ["east", "north", "south"]
    assert closed.outcome == "committed"


# --- runs ------------------------------------------------------------------------------------------------------------


def test_starting_a_run_twice_with_one_draft_is_one_run(coordinator: Coordinator) -> None:
    assert coordinator.start_run() == coordinator.start_run() == RUN
    assert coordinator.state.size == 6


def test_a_runs_id_is_never_given_to_another_plan(coordinator: Coordinator) -> None:
    coordinator.start_run()
    with pytest.raises(SlotTaken, match=rf"Run {RUN} exists already\. \[slot-taken\] Prepare the plan again"):
        coordinator.start_run(rounds=7)


@pytest.mark.parametrize("name", ["model", "tokenizer"])
def test_a_run_needs_its_blobs_first(coordinator: Coordinator, name: str) -> None:
    draft = coordinator.draft()
    coordinator.blobs.delete(getattr(draft.initial, name))
    with pytest.raises(MissingBlob, match=rf"The plan's initial {name}, blake3:.*, is not wholly here\."):
        coordinator.desk.start_run(draft.model_dump_json().encode())


def test_a_model_of_another_size_than_its_manifest_is_refused(coordinator: Coordinator) -> None:
    draft = coordinator.draft(base=b"short")
    with pytest.raises(UsageError, match=r"The initial model has 5 bytes, by its manifest \d+\."):
        coordinator.desk.start_run(draft.model_dump_json().encode())


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_model_that_is_not_finite_is_refused(coordinator: Coordinator, value: float) -> None:
    spoiled = {tensor.name: np.full(tensor.shape, value, np.float32) for tensor in MANIFEST}
    with pytest.raises(NonFiniteDelta, match=rf"holds {value} in tensor 'embedding' at 0\."):
        coordinator.start_run(base=model_bytes(MANIFEST, spoiled))


def test_a_model_whose_tensors_are_not_the_manifests_is_refused(coordinator: Coordinator) -> None:
    with pytest.raises(WrongTensors, match=r"Tensor 'embeddinG' is not one that the manifest lists here\."):
        coordinator.start_run(base=BASE.replace(b"embedding", b"embeddinG"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: b"{" + text, "no plan statement"),
        (lambda text: text.replace(b'"rounds":2', b'"rounds":2.0'), "no plan statement"),
        (lambda text: text.replace(b'"run":', b'"run":"twice","run":'), "no plan statement"),
        (lambda text: text.replace(b'"run":', b'"unknown":1,"run":'), "Extra inputs are not permitted"),
        (lambda text: text.replace(b'"rounds":2', b'"rounds":0'), "greater than or equal to 1"),
    ],
    ids=["not-json", "a-float", "a-member-twice", "an-unknown-field", "out-of-range"],
)
def test_a_draft_that_is_none_is_refused(
    coordinator: Coordinator, spoil: Callable[[bytes], bytes], message: str
) -> None:
    text = spoil(coordinator.draft().model_dump_json().encode())
    with pytest.raises(MalformedStatement, match=f"(?s)The draft is .*{message}"):
        coordinator.desk.start_run(text)
    assert coordinator.state.runs == {}


def test_the_roster_may_change_before_a_run_starts(coordinator: Coordinator) -> None:
    draft = coordinator.draft()
    roster, place = coordinator.state.roster, coordinator.state.roster_place
    assert roster is not None
    assert place is not None
    members = tuple(member.model_copy(update={"encryption_key": None}) for member in roster.members)
    coordinator.ledger.append(Roster(version=roster.version + 1, members=members), place)
    assert coordinator.desk.start_run(draft.model_dump_json().encode()) == RUN


@pytest.mark.parametrize("action", ["stop", "run-ended", "roll-back", ""])
def test_a_run_is_told_nothing_else_than_pause_resume_abort(coordinator: Coordinator, action: str) -> None:
    coordinator.start_run()
    with pytest.raises(UsageError, match=rf"A run cannot be told '{action}'\."):
        coordinator.desk.control_run(RUN, action, "operator")


def test_a_run_that_has_ended_cannot_be_steered(coordinator: Coordinator) -> None:
    coordinator.start_run()
    coordinator.desk.control_run(RUN, "abort", "")
    with pytest.raises(UnknownObject, match=rf"Run {RUN} has ended: aborted\."):
        coordinator.desk.control_run(RUN, "resume", "")


def test_a_control_is_in_the_ledger_at_the_index_that_it_returns(coordinator: Coordinator) -> None:
    coordinator.start_run()
    assert coordinator.desk.control_run("tiny", "pause", "maintenance") == coordinator.state.size - 1
    assert coordinator.run.paused
    assert coordinator.desk.control_run("tiny", "abort", "") == coordinator.state.size - 1


def test_a_run_is_found_by_a_unique_beginning_of_its_id(coordinator: Coordinator) -> None:
    with pytest.raises(UnknownObject, match=r"0 runs begin with 'tiny'; runs here: none yet\."):
        find_run(coordinator.state, "tiny")
    coordinator.start_run()
    second = coordinator.draft().model_copy(update={"run": f"{RUN}-2"})
    coordinator.desk.start_run(second.model_dump_json().encode())
    assert find_run(coordinator.state, RUN).run == RUN, "a whole id wins over a beginning"
    assert find_run(coordinator.state, f"{RUN}-").run == f"{RUN}-2"
    for prefix in ("tiny", ""):
        with pytest.raises(UnknownObject, match=rf"runs begin with '{prefix}'; runs here: {RUN}, {RUN}-2\."):
            find_run(coordinator.state, prefix)


def test_an_engine_that_refuses_a_command_goes_on(threaded: Coordinator) -> None:
    with pytest.raises(UnknownObject):
        threaded.desk.control_run("nothing", "pause", "")
    assert threaded.start_run() == RUN


def test_two_runs_go_on_side_by_side(coordinator: Coordinator) -> None:
    coordinator.start_run(rounds=1)
    second = coordinator.draft(rounds=1).model_copy(update={"run": "other-1"})
    coordinator.desk.start_run(second.model_dump_json().encode())
    coordinator.play()
    assert coordinator.run.ended is not None
    assert coordinator.state.runs["other-1"].ended is None
