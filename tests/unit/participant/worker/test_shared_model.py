"""Ranks that share out what is computed of each row: they train what one trains, and go on from each other's snapshots."""

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
ACCUMULATED = {"micro_batch_size": 1, "fedprox_mu": "0.1"}


@pytest.fixture(scope="module")
def machine() -> Machine:
    return set_up(1, allow_cuda=False)


@pytest.fixture(scope="module")
def tensor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    worker = Worker(tmp_path_factory.mktemp("tensor"), ranks=2, sharding="tensor", model=TIED, local=ACCUMULATED)
    yield worker
    worker.link.stop()


def prepared(worker: Worker, root: Path, **plan: Any) -> tuple[Path, Any]:
    """Another job for a worker, and what it answers."""
    job, data = make_job(root, a_training_plan(**plan))
    return job, worker.ask(Prepare(job=str(job), data=(DataSource(name="notes", folder=str(data)),)))[0]


def test_two_ranks_that_share_out_tensors_train_what_one_trains(
    tensor: Worker, machine: Machine, tmp_path: Path
) -> None:
    alone = Alone(copied(tensor.job, tmp_path / "alone"), tensor.data, machine)
    tensor.prepare()
    for number in (1, 2):  # the second from moments
        request = train(number, trained_rounds=number - 1)
        ours, theirs = tensor.ask(request)[0], alone.ask(request)
        assert (ours.num_tokens, ours.deviations) == (theirs.num_tokens, ())
        assert ours.evaluation.num_tokens == theirs.evaluation.num_tokens == 512
        assert abs(ours.evaluation.loss_sum_fixed - theirs.evaluation.loss_sum_fixed) <= 2
        assert abs(ours.train_loss_fixed - theirs.train_loss_fixed) <= 2
        assert_close(tensor.job, alone.job, 0.01)
    first = (tensor.job / "out" / "delta").read_bytes()
    assert first != (alone.job / "out" / "delta").read_bytes()  # else this compared nothing
    alone.close()


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
def test_what_cannot_be_shared_out_is_refused(tensor: Worker, tmp_path: Path, plan: Any, message: str) -> None:
    _, answer = prepared(tensor, tmp_path / "made", **plan)
    assert (answer.code, answer.ending, answer.message) == ("invalid-configuration", False, message)


def test_each_rank_keeps_its_part_and_others_go_on_from_it(tensor: Worker, machine: Machine, tmp_path: Path) -> None:
    """`tensor` serves no test after this one."""
    local = {"steps": 24, "optimizer": {"type": "sgd", "momentum": "0.9"}, "max_gradient_norm": "0.2"}
    job, answer = prepared(tensor, tmp_path / "made", model=UNTIED, local=local)
    assert isinstance(answer, Prepared)
    data = tmp_path / "made" / "data" / "clinic"
    alone = Alone(copied(job, tmp_path / "alone"), data, machine)
    assert isinstance(alone.ask(train()), Result)
    stopped = Alone(job, data, machine)
    stopped.agent.stop_at_step = 1
    with pytest.raises(StopRequested):
        stopped.ask(train())
    stopped.close()
    assert tensor.ask(train(resume=True))[0].deviations == ("environment-changed",)
    assert_close(job, alone.job, 0.01)
    shutil.rmtree(job / "snapshots")
    begin(tensor)
    tensor.link.send(Snapshot())
    while not isinstance(tensor.messages.get(timeout=60), SnapshotTaken):
        continue
    tensor.link.stop(60)
    (written,) = (job / "snapshots").iterdir()
    record = json.loads((written / "snapshot.json").read_text())
    assert (record["ranks"], record["sharding"], 0 < record["step"] < local["steps"]) == (2, "tensor", True)
    pieces = [read_pieces(written / f"rank-0000{rank}.safetensors", record["parts"][rank]) for rank in (0, 1)]
    shapes = [one["weight.model.layers.0.mlp.down_proj.weight"].values.shape for one in pieces]
    assert shapes == [(16, 22), (16, 22)]
    assert sum("weight.model.norm.weight" in one for one in pieces) == 1
    shutil.rmtree(job / "out")
    one = Alone(job, data, machine)
    assert one.ask(train(resume=True)).deviations == ("environment-changed",)
    assert_close(job, alone.job, 0.01)
    one.close()
    alone.close()
