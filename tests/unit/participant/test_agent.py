"""The agent: what it answers, how it works on a round, and that nothing which passes makes it give up."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from common.blobs.reference import BlobRef
from common.blobs.store import FolderBlobStore
from common.errors import (
    CoordinatorUnreachable,
    CorruptChunk,
    LedgerConflict,
    LLMasOSError,
    MissingBlob,
    StorageFailure,
    TooLittleData,
    TooManyRequests,
    WorkerFailed,
    WorkerKilled,
    WrongParent,
)
from common.ledger.cohort import local_seed
from common.wire.transfer import TransferOptions
from participant import agent as module
from participant.bench.workbench import RoundOver
from participant.bench.worker_protocol import Evaluate, Train
from participant.tasks import contribution_slot
from tests.support.agents import Institution
from tests.support.federations import until
from tests.support.participants import RUN


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.001)


class Running:
    """The agent's loop on a thread of its own; what it raised is there at the end."""

    def __init__(self, north: Institution) -> None:
        self._stopping = threading.Event()
        self.raised: list[LLMasOSError] = []
        self._agent = north.agent
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._agent.run(self._stopping)
        except LLMasOSError as err:
            self.raised.append(err)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture
def patient(north: Institution) -> Institution:
    """`north` with a coordinator that takes reports as if every round were open."""
    north.session.round_open = True
    return north


# --- answers ----------------------------------------------------------------------------------------------------------


def test_a_plan_is_accepted_when_policy_and_data_allow_it(north: Institution) -> None:
    north.coordinator.start_run()
    north.agent.answer(north.run)
    assert north.run.answers["north"].answer.accept
    assert north.workbench.prepared == [RUN]
    assert north.status.said == ["answering a plan", "preparing data"]
    assert north.status.workers == [
        {"device": "cpu", "ranks": 1, "threads": 2, "capability": "AVX2", "isolated": False}
    ]


def test_a_policy_refuses_with_codes_and_reads_no_data(north: Institution) -> None:
    north.policy = north.policy.model_copy(update={"min_quorum": 5, "max_rounds": 1})
    north.coordinator.start_run()
    north.agent.answer(north.run)
    answer = north.run.answers["north"].answer
    assert (answer.accept, answer.reasons) == (False, ("quorum-too-small", "too-many-rounds"))
    assert north.workbench.prepared == []
    assert [kind for kind, _ in north.egress()] == ["answer"]


@pytest.mark.parametrize("failure", [TooLittleData("Three words."), WorkerFailed("It ended.")], ids=lambda e: e.code)
def test_data_that_does_not_do_is_an_answer(north: Institution, failure: LLMasOSError) -> None:
    north.workbench.failure = failure
    north.coordinator.start_run()
    north.agent.answer(north.run)
    answer = north.run.answers["north"].answer
    assert (answer.accept, answer.reasons) == (False, (failure.code,))


def test_trouble_of_our_own_is_no_answer(north: Institution) -> None:
    north.workbench.failure = StorageFailure("The disk is full.")
    north.coordinator.start_run()
    with pytest.raises(StorageFailure, match=r"The disk is full"):
        north.agent.answer(north.run)
    assert north.outbox.answered(north.run) is None


def test_a_worker_that_somebody_killed_is_no_answer(north: Institution) -> None:
    north.workbench.failure = WorkerKilled("The worker was ended by SIGKILL before it was ready.")
    north.coordinator.start_run()
    with pytest.raises(WorkerKilled):
        north.agent.answer(north.run)
    assert north.outbox.answered(north.run) is None


def test_an_answer_that_was_signed_is_sent_again_and_not_made_anew(north: Institution) -> None:
    north.coordinator.start_run()

    def cut() -> None:
        raise CoordinatorUnreachable("No answer.")

    north.session.before_submit = cut
    with pytest.raises(CoordinatorUnreachable, match=r"No answer"):
        north.agent.answer(north.run)
    signed = north.outbox.answered(north.run)
    assert signed is not None
    north.restart()
    north.policy = north.policy.model_copy(update={"answer": "refuse"})
    north.agent.answer(north.run)
    assert north.session.submitted == [signed.envelope]
    assert north.run.answers["north"].answer.accept


# --- rounds -----------------------------------------------------------------------------------------------------------


def test_a_training_round_is_fetched_measured_trained_signed_and_sent(north: Institution) -> None:
    record = north.open_round()
    north.agent.work(north.run, record)
    entry = north.run.rounds[0].contributions["north"].contribution
    assert (entry.round, entry.weight.model_dump()["num_tokens"]) == (1, 20)
    assert north.workbench.asked == [
        Train(
            round=1,
            trained_rounds=0,
            seed=local_seed(record.opened.seed, "north"),
            base="base.safetensors",
            delta="delta.safetensors",
            spare="delta.spare",
            resume=True,
            base_ref=record.opened.inputs.model,
        )
    ]
    base = (north.workbench.job(RUN) / "base.safetensors").read_bytes()
    assert base == north.coordinator.blobs.path(record.opened.inputs.model).read_bytes()
    assert north.status.said[-3:] == ["fetching the model", "train round", "sending"]
    assert {report.activity for report in north.session.reports} <= {"fetching", "preparing", "training", "sending"}


def test_an_evaluation_round_sends_no_blob(north: Institution) -> None:
    record = north.open_round(rounds=1)
    north.agent.work(north.run, record)
    north.others_act()
    evaluation = north.round
    assert evaluation.opened.task == "evaluate"
    north.agent.work(north.run, evaluation)
    model = evaluation.opened.inputs.model
    assert north.workbench.asked[-1] == Evaluate(round=2, base="base.safetensors", base_ref=model)
    entry = north.run.rounds[1].contributions["north"].contribution
    assert entry.blobs == {}
    assert [kind for kind, _ in north.egress()] == ["answer", "delta", "contribution", "contribution"]


def test_a_round_starts_from_the_personal_layers_of_the_newest_round_that_our_delta_went_into(
    north: Institution,
) -> None:
    record = north.open_round(rounds=2, quorum=3, personal=["bias"])
    north.agent.work(north.run, record)
    north.others_act()  # round 1 is committed with ours
    north.agent.work(north.run, north.round)
    north.coordinator.clock.advance(seconds=north.run.statement.plan.deadline_seconds)
    north.coordinator.advance()  # round 2 is abandoned: nobody else came
    assert [each.closed.outcome for each in north.run.rounds if each.closed] == ["committed", "abandoned"]
    north.agent.work(north.run, north.round)
    trained = [message for message in north.workbench.asked if isinstance(message, Train)]
    assert [(message.round, message.personal) for message in trained] == [(1, 0), (2, 1), (3, 1)]


def test_the_schedule_counts_rounds_that_were_committed(north: Institution) -> None:
    record = north.open_round(rounds=2)
    north.agent.work(north.run, record)
    north.others_act()
    north.agent.work(north.run, north.round)
    asked = [message for message in north.workbench.asked if isinstance(message, Train)]
    assert [(message.round, message.trained_rounds) for message in asked] == [(1, 0), (2, 1)]


def test_a_contribution_that_was_signed_is_sent_again_without_training_again(patient: Institution) -> None:
    record = patient.open_round()

    def crash() -> None:
        patient.session.before_submit = lambda: None
        raise CoordinatorUnreachable("It crashed here.")

    patient.session.before_submit = crash
    with pytest.raises(CoordinatorUnreachable, match=r"It crashed here"):
        patient.agent.work(patient.run, record)
    signed = patient.outbox.contributed(record)
    assert signed is not None
    patient.restart()
    patient.agent.work(patient.run, record)
    assert patient.workbench.asked == []
    assert patient.session.submitted == [signed.envelope]


def test_work_ends_when_the_round_is_closed_by_others(north: Institution) -> None:
    north.workbench.hold = True
    record = north.open_round(deadline_seconds=60)

    def close() -> None:
        assert north.workbench.holding.wait(30)
        north.coordinator.clock.advance(seconds=61)
        north.coordinator.advance()
        north.session.catch_up()

    closing = threading.Thread(target=close)
    closing.start()
    with pytest.raises(RoundOver):
        north.agent.work(north.run, record)
    closing.join()
    assert north.outbox.contributed(record) is None


# --- the loop ---------------------------------------------------------------------------------------------------------

PASSING: dict[str, Sequence[LLMasOSError]] = {
    "unreachable": [CoordinatorUnreachable("No answer.")] * 5,
    "a limit": [TooManyRequests("More than 200 calls a second.")] * 5,
    "a corrupted chunk": [CorruptChunk("Chunk 0 is another one.")] * 2,
    "a lost blob": [MissingBlob("The contribution names a blob which is not wholly here.")] * 2,
    "a full disk": [StorageFailure("The disk is full.")] * 2,
    "a killed worker": [WorkerKilled("The worker was ended by SIGKILL.")] * 5,
}


@pytest.mark.parametrize("claim", PASSING)
def test_what_passes_is_tried_again_until_it_is_done(patient: Institution, claim: str) -> None:
    patient.open_round()
    patient.session.failures = list(PASSING[claim])
    running = Running(patient)
    until(lambda: "north" in patient.mirror.state.runs[RUN].rounds[0].contributions, "north contributed", 30)
    running.stop()
    assert patient.session.failures == []
    assert len(patient.session.submitted) == 2  # the answer and one contribution


def test_what_was_refused_is_given_up_by_name_and_not_tried_again(patient: Institution) -> None:
    record = patient.open_round()
    refused, tried = threading.Event(), []

    def refuse() -> None:
        tried.append(1)
        refused.set()
        raise WrongParent("The round is another one.")

    patient.session.before_submit = refuse
    running = Running(patient)
    assert refused.wait(30)
    until_idle(patient)
    running.stop()
    assert len(tried) == 1
    assert contribution_slot(record) in patient.agent._given_up


def test_what_fails_again_and_again_is_given_up_after_three_times(patient: Institution) -> None:
    record = patient.open_round()
    patient.session.failures = [WorkerFailed("It ended.")] * 9
    running = Running(patient)
    until_idle(patient)
    running.stop()
    assert len(patient.session.failures) == 6
    assert contribution_slot(record) in patient.agent._given_up


def test_a_full_disk_is_waited_for_as_long_as_the_round_is_open(
    patient: Institution, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("participant.agent.MOST_WAIT_SECONDS", 0.01)
    record = patient.open_round()
    patient.session.failures = [StorageFailure("The disk is full.")] * 9
    running = Running(patient)
    until(lambda: not patient.session.failures, "nine attempts", 30)
    running.stop()
    assert contribution_slot(record) not in patient.agent._given_up


def until_idle(north: Institution) -> None:
    """The agent found nothing more to do."""
    until(lambda: "waiting for a plan or a round" in north.status.said, "the agent comes to rest", 30)


def test_a_conflict_of_the_ledger_ends_the_agent(north: Institution) -> None:
    north.follower.failure = LedgerConflict("Entry 3 differs from what was seen.")
    running = Running(north)
    running._thread.join(30)
    running.stop()
    assert [err.message for err in running.raised] == ["Entry 3 differs from what was seen."]


def test_a_new_base_model_takes_the_place_of_the_last_rounds(
    north: Institution, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = north.open_round(rounds=2)
    north.agent.work(north.run, first)
    north.others_act()
    north.agent._tidying.tidy()
    old, new = first.opened.inputs.model, north.round.opened.inputs.model
    assert north.blobs.contains(old)
    fetched: list[tuple[BlobRef, BlobRef | None, bool]] = []
    download = north.session.download

    def watched(ref: BlobRef, store: FolderBlobStore, owner: str, options: TransferOptions) -> bool:
        fetched.append((ref, options.instead_of, options.durable))
        return download(ref, store, owner, options)

    monkeypatch.setattr(north.session, "download", watched)
    north.agent.work(north.run, north.round)
    assert fetched == [(new, old, False)]


@pytest.mark.parametrize("task", ["train", "evaluate"])
def test_a_base_model_that_the_worker_finds_damaged_is_fetched_again(patient: Institution, task: str) -> None:
    record = patient.open_round(rounds=1)
    if task == "evaluate":
        patient.agent.work(patient.run, record)
        patient.others_act()
        record = patient.round
    assert record.opened.task == task
    model = record.opened.inputs.model
    work = patient.workbench._work

    def once(*arguments: Any) -> None:
        patient.workbench._work = work  # type: ignore[method-assign]
        patient.blobs.path(model).write_bytes(b"flipped")
        raise CorruptChunk("The base model was damaged on disk.")

    patient.workbench._work = once  # type: ignore[method-assign]
    with pytest.raises(CorruptChunk):
        patient.agent.work(patient.run, record)
    assert not patient.blobs.contains(model)
    patient.agent.work(patient.run, record)
    assert patient.blobs.path(model).read_bytes() == patient.coordinator.blobs.path(model).read_bytes()
    assert "north" in patient.run.rounds[-1].contributions


def test_with_a_downlink_a_base_model_is_made_of_the_newest_that_is_kept(
    north: Institution, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Round 2 is abandoned: then neither round 2's opening nor round 3's names the model that is here."""
    record = north.open_round(rounds=4, downlink={"type": "int8"})
    first = record.opened.inputs.model
    north.agent.work(north.run, record)
    fetched: list[BlobRef] = []
    download = north.session.download

    def watched(ref: BlobRef, store: FolderBlobStore, owner: str, options: TransferOptions) -> bool:
        if not store.contains(ref):
            fetched.append(ref)
        return download(ref, store, owner, options)

    monkeypatch.setattr(north.session, "download", watched)
    north.others_act()
    north.coordinator.clock.advance(seconds=4000)  # nobody contributed
    north.coordinator.advance()
    north.session.catch_up()
    north.agent._tidying.tidy()
    assert north.blobs.contains(first)
    outputs = north.run.rounds[0].closed.outputs if north.run.rounds[0].closed else None
    assert outputs is not None
    assert north.round.number == 3
    north.agent.work(north.run, north.round)
    assert fetched == [outputs.applied_delta]
    assert north.blobs.contains(outputs.model)
    assert not north.blobs.contains(first), "its file is the new model's"


def test_blobs_that_no_open_run_needs_are_deleted_and_a_sent_delta_stays_until_its_round_is_closed(
    north: Institution,
) -> None:
    record = north.open_round(rounds=1)
    north.agent.work(north.run, record)
    delta = north.run.rounds[0].contributions["north"].contribution.blobs["delta"]
    stray = north.folder / "stray"
    stray.write_bytes(b"an old model")
    old = north.blobs.ingest(stray, "blake3", move=True)
    north.agent._tidying.changed()
    north.agent._tidying.tidy()
    assert north.blobs.contains(delta)
    assert not north.blobs.contains(old)
    north.others_act()
    north.agent._tidying.tidy()
    assert not north.blobs.contains(delta)
    assert north.blobs.contains(north.run.statement.initial.tokenizer)
