"""Commands: what a resent, late, doubled or simultaneous statement comes to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from common.errors import (
    LedgerConflict,
    MissingBlob,
    NotInCohort,
    RefusalError,
    RoundNotOpen,
    SlotTaken,
)
from common.ledger.state import RunRecord
from common.statements.kinds import Contribution
from coordinator.rounds.engine import Engine
from tests.support.blobs import delta_bytes, random_arrays
from tests.support.coordinators import Coordinator, EngineThread
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
        with pytest.raises(RoundNotOpen, match=rf"Round 1 of {RUN} takes no more contributions: [a-z-]+\."):
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


def test_a_contribution_says_what_its_institution_has_seen_of_this_very_log(coordinator: Coordinator) -> None:
    opening, north = coordinator.open_round().place.index, coordinator["north"]
    for note, reason in (
        ("nonsense", r"The contribution's checkpoint is none of hospitals\.llmasos/ledger: A note has no text"),
        (coordinator.log.note(opening).encode().decode(), rf"of {opening} entries does not hold the round's opening"),
    ):
        with pytest.raises(LedgerConflict, match=reason):
            north.contribute(checkpoint=note)
    assert coordinator.refusals() == [("north", 1, "ledger-conflict", "signed-by")]
    north.contribute(checkpoint=coordinator.log.newest().encode().decode())
    coordinator["south"].contribute(checkpoint=coordinator.log.note(opening + 1).encode().decode())
    coordinator["east"].contribute()
    assert len(coordinator.run.rounds[0].contributions) == 3


def test_an_institution_that_joins_later_takes_part_from_the_next_round_on(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=2)
    west = coordinator.enrol("west")
    west.answer()
    with pytest.raises(RefusalError, match=rf"west is not in the cohort of round 1 of {RUN}\."):
        west.contribute()
    coordinator.play()
    assert coordinator.run.rounds[1].opened.cohort == ("east", "north", "south", "west")


def test_a_delta_that_expired_between_inspection_and_ledger_is_asked_for_again(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator.open_round()
    north = coordinator["north"]
    ref, metrics = north.send(north.delta()), north.metrics()
    statement, inspect = north.contribution(ref, metrics), coordinator.desk._inspect

    def inspected(run: RunRecord, contribution: Contribution) -> None:
        inspect(run, contribution)
        coordinator.blobs.delete(ref)

    monkeypatch.setattr(coordinator.desk, "_inspect", inspected)
    with pytest.raises(MissingBlob, match=r"names .*, which is not wholly here\."):
        north.submit(statement, metrics)
    monkeypatch.undo()
    north.send(north.delta())
    assert north.submit(statement, metrics) == coordinator.run.rounds[0].contributions["north"].place.index


def test_a_delta_that_the_coordinators_disk_spoiled_can_be_sent_again(coordinator: Coordinator) -> None:
    coordinator.open_round()
    north = coordinator["north"]
    ref, metrics = north.send(north.delta()), north.metrics()
    path = coordinator.blobs.path(ref)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    statement = north.contribution(ref, metrics)
    with pytest.raises(MissingBlob, match=r"came to harm on the coordinator's disk\. \[missing-blob\] Send it again\."):
        north.submit(statement, metrics)
    assert north.send(north.delta()) == ref
    assert north.submit(statement, metrics) > 0


def test_an_answer_of_a_member_that_is_no_trainer_is_refused(coordinator: Coordinator) -> None:
    auditor = coordinator.enrol("auditor-1", roles=("auditor",))
    coordinator.start_run()
    with pytest.raises(NotInCohort, match=rf"auditor-1 is no trainer, so run {RUN} does not ask it\."):
        auditor.answer()
    assert coordinator.refusals() == [("auditor-1", None, "not-in-cohort", "signed-by")]


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
