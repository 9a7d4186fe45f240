"""Commands about runs: how they are started and steered, and with what they are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from common.errors import (
    MalformedStatement,
    MissingBlob,
    NonFiniteDelta,
    SlotTaken,
    UnknownObject,
    UsageError,
    WrongTensors,
)
from common.statements.kinds import PlanStatement, Roster
from coordinator.rounds.engine import Engine
from coordinator.run_desk import find_run
from tests.support.blobs import model_bytes
from tests.support.coordinators import BASE, Coordinator, EngineThread
from tests.support.participants import MANIFEST, RUN


@pytest.fixture
def threaded(tmp_path: Path) -> Iterator[Coordinator]:
    """The same with the real engine on its own thread; founded and enrolled before it starts."""
    first = Coordinator(tmp_path / "home")
    first.restart(engine=Engine)
    with EngineThread(first.engine):
        yield first
    first.close()


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


@pytest.mark.parametrize("name", ["model", "tokenizer"])
def test_a_blob_that_expired_while_the_model_was_inspected_starts_no_run(
    coordinator: Coordinator, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft, start = coordinator.draft(), coordinator.desk._runs._start

    def late(plan: PlanStatement) -> str:
        coordinator.blobs.delete(getattr(plan.initial, name))
        return start(plan)

    monkeypatch.setattr(coordinator.desk._runs, "_start", late)
    with pytest.raises(MissingBlob, match=rf"The plan's initial {name}, blake3:.*, is not wholly here\."):
        coordinator.desk.start_run(draft.model_dump_json().encode())
    assert coordinator.state.runs == {}


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
