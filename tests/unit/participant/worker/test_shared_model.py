"""Ranks that share out what is computed of each row, by heads and hidden units (tensor) or by blocks (pipeline): they train
what one trains, and go on from each other's snapshots."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from llmasos.training.device import Machine, set_up
from llmasos.training.state_file import read_pieces
from participant.bench.worker_protocol import DataSource, Prepare, Prepared, Result, Snapshot, SnapshotTaken
from participant.worker.agent_side import StopRequested
from tests.support.jobs import a_training_plan, make_job
from tests.support.records import LABELS, a_labelled_text, make_records
from tests.support.tasks import a_task_plan
from tests.unit.participant.worker.test_ranks import Alone, assert_close, begin, copied
from tests.unit.participant.worker.test_worker import Worker, train

pytestmark = pytest.mark.torch

TIED = {
    "type": "qwen3", "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 16,
    "intermediate_size": 45, "head_dim": 8, "max_position_embeddings": 32, "tie_word_embeddings": True,
}  # fmt: skip
"""Norms within heads, whose gradients are partial; a width that two ranks do not divide; one table for both ends."""
UNTIED = {
    "type": "llama", "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 16,
    "intermediate_size": 44, "max_position_embeddings": 32, "tie_word_embeddings": False,
}  # fmt: skip
BLOCKS = {"type": "gpt2", "n_layer": 3, "n_head": 2, "n_embd": 16, "n_positions": 32}
ACCUMULATED = {"micro_batch_size": 1, "fedprox_mu": "0.1"}


@pytest.fixture(scope="module")
def machine() -> Machine:
    return set_up(1, allow_cuda=False)


@pytest.fixture(scope="module")
def tensor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    worker = Worker(tmp_path_factory.mktemp("tensor"), ranks=2, sharding="tensor", model=TIED, local=ACCUMULATED)
    yield worker
    worker.link.stop()


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """Three stages: the middle one neither looks tokens up nor makes logits; one table for both ends."""
    worker = Worker(tmp_path_factory.mktemp("pipeline"), ranks=3, sharding="pipeline", model=BLOCKS, local=ACCUMULATED)
    yield worker
    worker.link.stop()


def prepared(worker: Worker, root: Path, **plan: Any) -> tuple[Path, Any]:
    """Another job for a worker, and what it answers."""
    job, data = make_job(root, a_training_plan(**plan))
    return job, worker.ask(Prepare(job=str(job), data=(DataSource(name="notes", folder=str(data)),)))[0]


def two_rounds_train_what_one_trains(worker: Worker, machine: Machine, to: Path, within: float) -> None:
    """The second from the moments of the first."""
    alone = Alone(copied(worker.job, to), worker.data, machine)
    worker.prepare()
    for number in (1, 2):
        request = train(number, trained_rounds=number - 1)
        ours, theirs = worker.ask(request)[0], alone.ask(request)
        assert isinstance(ours, Result), ours
        assert (ours.num_tokens, ours.deviations) == (theirs.num_tokens, ())
        assert ours.evaluation.num_tokens == theirs.evaluation.num_tokens == 512
        assert abs(ours.evaluation.loss_sum_fixed - theirs.evaluation.loss_sum_fixed) <= 2
        assert abs(ours.train_loss_fixed - theirs.train_loss_fixed) <= 2
        assert_close(worker.job, alone.job, within)
    assert (worker.job / "out" / "delta").read_bytes() != (
        to / "out" / "delta"
    ).read_bytes()  # else this compared nothing
    alone.close()


def test_ranks_that_share_out_tensors_train_what_one_trains(tensor: Worker, machine: Machine, tmp_path: Path) -> None:
    two_rounds_train_what_one_trains(tensor, machine, tmp_path / "alone", 0.001)


def test_ranks_that_share_out_blocks_train_what_one_trains(pipeline: Worker, machine: Machine, tmp_path: Path) -> None:
    # The gradient of keys' biases is zero but for rounding, of which Adam makes steps; all else agrees to 1e-4.
    two_rounds_train_what_one_trains(pipeline, machine, tmp_path / "alone", 0.05)
    written = next((pipeline.job / "snapshots").glob("round-00000002-*"))
    names = [set(read_pieces(path, None)) for path in sorted(written.glob("*.safetensors"))]
    assert [f"weight.transformer.h.{rank}.attn.c_attn.weight" in names[rank] for rank in range(3)] == [True] * 3
    assert sum(map(len, names)) == len(names[0] | names[1] | names[2])
    assert "moment.transformer.wte.weight.exp_avg" in names[0]  # the table that the last stage uses, too


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({}, "worker.sharding tensor does not go with the plan's model gpt2, for which transformers has no plan of tensor "
             "parallelism."),
        ({"model": UNTIED | {"num_attention_heads": 3, "num_key_value_heads": 3, "hidden_size": 24}},
         "worker.sharding tensor: the plan's model has 3 key-value heads, which 2 ranks cannot share out evenly."),
        ({"model": UNTIED, "adapter": {"type": "lora", "r": 4}},
         "worker.sharding tensor does not go with the plan's adapter lora."),
        ({"model": UNTIED, "local": {"optimizer": {"type": "muon"}}},
         "worker.sharding tensor does not go with the plan's local.optimizer muon."),
    ],
)  # fmt: skip
def test_tensors_that_cannot_be_shared_out_are_refused(tensor: Worker, tmp_path: Path, plan: Any, message: str) -> None:
    _, answer = prepared(tensor, tmp_path / "made", **plan)
    assert (answer.code, answer.ending, answer.message) == ("invalid-configuration", False, message)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"model": BLOCKS | {"n_layer": 2}},
         "worker.sharding pipeline: the plan's model has 2 blocks, too few for 3 ranks."),
        ({"model": {"type": "transformer", "d_model": 16, "nhead": 2, "num_layers": 3, "dim_feedforward": 32}},
         "worker.sharding pipeline does not go with the plan's model xglm; expected one of gpt2, llama, mistral, qwen2, "
         "qwen3."),
        ({"model": BLOCKS, "adapter": {"type": "lora", "r": 4}},
         "worker.sharding pipeline does not go with the plan's adapter lora."),
    ],
)  # fmt: skip
def test_models_that_cannot_be_cut_are_refused(pipeline: Worker, tmp_path: Path, plan: Any, message: str) -> None:
    _, answer = prepared(pipeline, tmp_path / "made", **plan)
    assert (answer.code, answer.ending, answer.message) == ("invalid-configuration", False, message)


def test_tasks_on_rows_are_refused_by_a_pipeline(pipeline: Worker, tmp_path: Path) -> None:
    task = {"type": "sequence-classification", "labels": list(LABELS)}
    job, _ = make_job(tmp_path / "made", a_task_plan(task))
    data = make_records(tmp_path / "records", a_labelled_text, count=1)["clinic"]
    answer = pipeline.ask(Prepare(job=str(job), data=(DataSource(name="notes", folder=str(data)),)))[0]
    assert answer.message == "worker.sharding pipeline does not go with the plan's task sequence-classification."


LOCAL = {"steps": 24, "optimizer": {"type": "sgd", "momentum": "0.9"}, "max_gradient_norm": "0.2"}
"""A clip that binds, and an optimizer for which a gradient's length matters."""


def each_goes_on_from_the_others(worker: Worker, job: Path, data: Path, machine: Machine) -> Path:
    """The ranks from one rank's snapshot, then one rank from theirs, which is returned. The worker ends."""
    alone = Alone(copied(job, job.with_name("alone")), data, machine)
    assert isinstance(alone.ask(train()), Result)
    stopped = Alone(job, data, machine)
    stopped.agent.stop_at_step = 1
    with pytest.raises(StopRequested):
        stopped.ask(train())
    stopped.close()
    assert worker.ask(train(resume=True))[0].deviations == ("environment-changed",)
    assert_close(job, alone.job, 0.01)
    shutil.rmtree(job / "snapshots")
    begin(worker)
    worker.link.send(Snapshot())
    while not isinstance(worker.messages.get(timeout=60), SnapshotTaken):
        continue
    worker.link.stop(60)
    (written,) = (job / "snapshots").iterdir()
    written = copied(written, job.with_name("written"))
    shutil.rmtree(job / "out")
    one = Alone(job, data, machine)
    assert one.ask(train(resume=True)).deviations == ("environment-changed",)
    assert_close(job, alone.job, 0.01)
    one.close()
    alone.close()
    return written


def test_ranks_that_share_out_tensors_keep_parts_of_them(tensor: Worker, machine: Machine, tmp_path: Path) -> None:
    """`tensor` serves no test after this one."""
    job, answer = prepared(tensor, tmp_path / "made", model=UNTIED, local=LOCAL)
    assert isinstance(answer, Prepared)
    written = each_goes_on_from_the_others(tensor, job, tmp_path / "made" / "data" / "clinic", machine)
    record = json.loads((written / "snapshot.json").read_text())
    assert (record["ranks"], record["sharding"], 0 < record["step"] < LOCAL["steps"]) == (2, "tensor", True)
    pieces = [read_pieces(written / f"rank-0000{rank}.safetensors", record["parts"][rank]) for rank in (0, 1)]
    shapes = [one["weight.model.layers.0.mlp.down_proj.weight"].values.shape for one in pieces]
    assert shapes == [(16, 22), (16, 22)]
    assert sum("weight.model.norm.weight" in one for one in pieces) == 1


def test_stages_keep_their_blocks(pipeline: Worker, machine: Machine, tmp_path: Path) -> None:
    """`pipeline` serves no test after this one."""
    model = UNTIED | {"num_hidden_layers": 4}
    job, answer = prepared(pipeline, tmp_path / "made", model=model, local=LOCAL)
    assert isinstance(answer, Prepared)
    written = each_goes_on_from_the_others(pipeline, job, tmp_path / "made" / "data" / "clinic", machine)
    record = json.loads((written / "snapshot.json").read_text())
    assert (record["ranks"], record["sharding"], 0 < record["step"] < LOCAL["steps"]) == (3, "pipeline", True)
    names = [read_pieces(path, None).keys() for path in sorted(written.glob("*.safetensors"))]
    blocks = [{int(name.split(".")[3]) for name in some if ".layers." in name} for some in names]
    assert blocks == [{0, 1}, {2}, {3}]
