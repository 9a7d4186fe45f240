"""Ranks as processes: several train what one trains, end together, and go on from each other's snapshots."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pytest

pytest.importorskip("torch")

from safetensors.numpy import load_file

from llmasos.training.device import Machine, set_up
from participant.bench.worker_protocol import (
    DataSource,
    Evaluate,
    Prepare,
    Prepared,
    Progress,
    Result,
    Snapshot,
    SnapshotTaken,
    WorkerError,
)
from participant.worker.session import Session
from tests.support.federations import until
from tests.support.jobs import a_training_plan, make_job
from tests.support.records import LABELS, a_labelled_text, make_records
from tests.support.tasks import a_task_plan
from tests.unit.participant.worker.test_session import Recorder
from tests.unit.participant.worker.test_worker import Worker, train

pytestmark = pytest.mark.torch

LONG = {"steps": 240}
"""Steps of a round that is ended in its middle."""


class Alone:
    """One rank, in this process, on the job folder of others."""

    def __init__(self, job: Path, data: Path, machine: Machine) -> None:
        self.job, self.agent = job, Recorder()
        self._session = Session(self.agent, machine, 300.0, False)  # type: ignore[arg-type]
        source = DataSource(name="notes", folder=str(data))
        assert isinstance(self.ask(Prepare(job=str(job), data=(source,))), Prepared)

    def ask(self, message: Any) -> Any:
        self._session._serve(message)
        return self.agent.heard[-1]

    def close(self) -> None:
        assert self._session.job is not None
        self._session.job.close()


@pytest.fixture(scope="module")
def machine() -> Machine:
    return set_up(1, allow_cuda=False)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    worker = Worker(tmp_path_factory.mktemp("two"), ranks=2)
    yield worker
    worker.link.stop()


def delta_of(job: Path) -> dict[str, npt.NDArray[np.float32]]:
    return load_file(job / "out" / "delta")


def assert_close(found: Path, expected: Path, within: float) -> None:
    """No element differs by more than that share of the largest."""
    ours, theirs = delta_of(found), delta_of(expected)
    largest = max(np.abs(values).max() for values in theirs.values())
    assert largest > 0
    assert ours.keys() == theirs.keys()
    assert max(np.abs(ours[name] - theirs[name]).max() for name in theirs) < within * largest


def copied(job: Path, to: Path) -> Path:
    """The job folder as it is, for others to go on from."""
    shutil.copytree(job, to)
    return to


def test_two_ranks_train_what_one_trains(two: Worker, machine: Machine, tmp_path: Path) -> None:
    assert two.hello.ranks == 2
    alone = Alone(copied(two.job, tmp_path / "alone"), two.data, machine)
    two.prepare()
    ours, theirs = two.ask(train())[0], alone.ask(train())
    assert (ours.num_tokens, ours.deviations) == (theirs.num_tokens, ())
    assert ours.evaluation.num_tokens == theirs.evaluation.num_tokens == 512
    assert abs(ours.evaluation.loss_sum_fixed - theirs.evaluation.loss_sum_fixed) <= 1
    assert abs(ours.train_loss_fixed - theirs.train_loss_fixed) <= 2
    assert_close(two.job, alone.job, 0.01)
    first = (two.job / "out" / "delta").read_bytes()
    assert first != (alone.job / "out" / "delta").read_bytes()  # else this compared nothing
    again = two.ask(train())[0]
    assert again.model_copy(update={"seconds": ours.seconds}) == ours
    assert (two.job / "out" / "delta").read_bytes() == first
    alone.close()


def test_the_next_round_takes_moments_that_other_ranks_left(two: Worker, machine: Machine, tmp_path: Path) -> None:
    two.prepare()
    two.ask(train())
    written = next((two.job / "snapshots").glob("round-00000001-*"))
    assert sorted(path.name for path in written.iterdir()) == [
        "rank-00000.safetensors",
        "rank-00001.safetensors",
        "snapshot.json",
    ]
    record = json.loads((written / "snapshot.json").read_text())
    assert (record["ranks"], len(record["parts"])) == (2, 2)
    sizes = [(written / f"rank-0000{rank}.safetensors").stat().st_size for rank in (0, 1)]
    assert abs(sizes[0] - sizes[1]) < 0.2 * sum(sizes)
    alone = Alone(copied(two.job, tmp_path / "alone"), two.data, machine)
    theirs = alone.ask(train(2, trained_rounds=1))
    ours = two.ask(train(2, trained_rounds=1))[0]
    assert ours.deviations == theirs.deviations == ()
    assert_close(two.job, alone.job, 0.01)
    alone.close()


def test_a_batch_of_records_is_shared_out_though_ranks_do_not_divide_it(
    two: Worker, machine: Machine, tmp_path: Path
) -> None:
    task = {"type": "sequence-classification", "labels": list(LABELS)}
    job, _ = make_job(tmp_path / "made", a_task_plan(task, local={"batch_size": 3}))
    data = make_records(tmp_path / "records", a_labelled_text, count=1)["clinic"]
    alone = Alone(copied(job, tmp_path / "alone"), data, machine)
    answer = two.ask(Prepare(job=str(job), data=(DataSource(name="notes", folder=str(data)),)))[0]
    assert isinstance(answer, Prepared)
    ours, theirs = two.ask(train())[0], alone.ask(train())
    assert ours.num_tokens == theirs.num_tokens == 6 * 3
    assert ours.evaluation.num_tokens == theirs.evaluation.num_tokens
    assert abs(ours.train_loss_fixed - theirs.train_loss_fixed) <= 2
    assert_close(job, alone.job, 0.01)
    alone.close()


def test_what_fails_for_all_ranks_leaves_them_usable(two: Worker) -> None:
    two.prepare()
    answer = two.ask(train(base="absent.safetensors"))[0]
    assert (answer.code, answer.ending) == ("storage-failure", False)
    assert isinstance(two.ask(Evaluate(round=1, base="base.safetensors"))[0], Result)


def test_what_fails_for_rank_0_alone_is_told_and_the_ranks_stay_usable(two: Worker) -> None:
    """It writes the delta, after the last sum: nobody waits for it."""
    two.prepare()
    (two.job / "taken").write_text("")
    answer = two.ask(train(delta="taken/delta"))[0]
    assert (answer.type, answer.ending) == ("error", False)
    assert isinstance(two.ask(train())[0], Result)


def begin(worker: Worker) -> None:
    """A long round; returns when some of its steps are done."""
    worker.link.send(train())
    while not (isinstance(said := worker.messages.get(timeout=120), Progress) and said.steps_done):
        assert isinstance(said, Progress), said


def test_a_killed_rank_ends_the_worker_and_one_or_three_go_on(two: Worker, tmp_path: Path, machine: Machine) -> None:
    """Three, each with its rows of the model alone. `two` serves no test after this one."""
    three = Worker(tmp_path / "three", ranks=3, sharding="full", local=LONG)
    alone = Alone(copied(three.job, tmp_path / "alone"), three.data, machine)
    source = DataSource(name="notes", folder=str(three.data))
    job = copied(three.job, tmp_path / "job")
    assert isinstance(two.ask(Prepare(job=str(job), data=(source,)))[0], Prepared)
    begin(two)
    two.link.send(Snapshot())
    while not isinstance(two.messages.get(timeout=60), SnapshotTaken):
        continue
    (other,) = psutil.Process(two.hello.pid).children()
    os.kill(other.pid, signal.SIGKILL)
    while isinstance(said := two.messages.get(timeout=60), Progress):
        continue
    assert isinstance(said, WorkerError), said
    assert (said.code, said.ending) == ("worker-killed", True)
    assert said.message == "Rank 1 of the worker was ended by SIGKILL."
    until(lambda: not two.link.alive(), "the worker has ended", 10)
    record = json.loads(next((job / "snapshots").glob("round-*/snapshot.json")).read_text())
    assert record["ranks"] == 2
    assert 0 < record["step"] < LONG["steps"]
    shutil.copytree(job / "snapshots", three.job / "snapshots")
    three.prepare()
    one = Alone(copied(job, tmp_path / "one"), three.data, machine)
    assert isinstance(alone.ask(train()), Result)
    for result, folder in ((one.ask(train(resume=True)), one.job), (three.ask(train(resume=True))[0], three.job)):
        assert isinstance(result, Result)
        assert result.deviations == ("environment-changed",)
        assert result.num_tokens == LONG["steps"] * 4 * 32
        assert_close(folder, alone.job, 0.05)
    assert any(said.activity == "evaluating" for said in alone.agent.heard if isinstance(said, Progress))
    assert not any(said.activity == "evaluating" for said in one.agent.heard if isinstance(said, Progress))
    one.close()
    a_task_on_sharded_ranks(three, tmp_path, machine)
    three.prepare()
    shutil.rmtree(three.job / "snapshots")
    begin(three)
    three.link.stop(60)
    record = json.loads(next((three.job / "snapshots").glob("*/snapshot.json")).read_text())
    assert (record["ranks"], record["sharding"], 0 < record["step"] < LONG["steps"]) == (3, "full", True)
    shutil.rmtree(three.job / "out")
    one = Alone(three.job, three.data, machine)
    assert one.ask(train(resume=True)).deviations == ("environment-changed",)
    assert_close(three.job, alone.job, 0.05)
    one.close()
    alone.close()


def a_task_on_sharded_ranks(three: Worker, root: Path, machine: Machine) -> None:
    """Four rows a step, one at a time: one rank has two of them, the others one; and an adapter beside frozen weights."""
    task = {"type": "sequence-classification", "labels": list(LABELS)}
    local = {"batch_size": 4, "micro_batch_size": 1}
    job, _ = make_job(root / "made", a_task_plan(task, local=local, adapter={"type": "lora", "r": 4, "use_dora": True}))
    data = make_records(root / "records", a_labelled_text, count=1)["clinic"]
    alone = Alone(copied(job, root / "adapted"), data, machine)
    request = Prepare(job=str(job), data=(DataSource(name="notes", folder=str(data)),))
    assert isinstance(three.ask(request)[0], Prepared)
    ours, theirs = three.ask(train())[0], alone.ask(train())
    assert (ours.num_tokens, ours.evaluation.num_tokens) == (theirs.num_tokens, theirs.evaluation.num_tokens)
    assert abs(ours.train_loss_fixed - theirs.train_loss_fixed) <= 2
    assert_close(job, alone.job, 0.01)
    alone.close()
    job, _ = make_job(root / "muon", a_training_plan(local={"optimizer": {"type": "muon"}}))
    answer = three.ask(Prepare(job=str(job), data=(DataSource(name="notes", folder=str(three.data)),)))[0]
    assert (answer.code, answer.ending) == ("invalid-configuration", False)
    assert answer.message == "worker.sharding full does not go with the plan's local.optimizer muon."
