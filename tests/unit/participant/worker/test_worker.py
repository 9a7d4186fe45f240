"""The worker process, end to end through the agent's link; one process serves all tests."""

from __future__ import annotations

import json
import os
import queue
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from safetensors.numpy import load_file

from common.statements.kinds import PlanStatement
from llmasos.evaluation import perplexity
from participant.bench import worker_protocol
from participant.bench.worker_link import WorkerLink, WorkerSettings
from participant.bench.worker_protocol import (
    DataSource,
    Evaluate,
    Hello,
    Prepare,
    Prepared,
    Progress,
    Result,
    Snapshot,
    SnapshotTaken,
    Train,
    WorkerError,
)
from participant.worker.isolation import LIFELINE_EXIT
from tests.support.jobs import a_training_plan, make_job

pytestmark = pytest.mark.torch


class Worker:
    """A worker and a job for it."""

    def __init__(self, root: Path, *, ranks: int = 1, sharding: Any = "none", **plan: Any) -> None:
        self.job, self.data = make_job(root, a_training_plan(**plan))
        self.messages: queue.Queue[Any] = queue.Queue()
        self.settings = WorkerSettings(
            self.job, root / "logs" / "worker.log", ranks=ranks, sharding=sharding, snapshot_seconds=300.0
        )
        self.link = WorkerLink(self.settings, on_message=self.messages.put, on_exit=self.messages.put)
        self.hello: Hello = self.link.start()

    def ask(self, message: Any) -> tuple[Any, list[Any]]:
        """The answer, and what came before it."""
        self.link.send(message)
        before = []
        while not isinstance(answer := self.messages.get(timeout=120), (Prepared, Result, WorkerError)):
            assert not isinstance(answer, int), f"the worker ended with {answer}: {self.settings.log_path.read_text()}"
            before.append(answer)
        return answer, before

    def prepare(self, data: Path | None = None) -> Any:
        source = DataSource(name="notes", folder=str(data or self.data))
        return self.ask(Prepare(job=str(self.job), data=(source,)))[0]


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    one = Worker(tmp_path_factory.mktemp("worker"))
    yield one
    one.link.stop()


def train(round_number: int = 1, **changes: Any) -> Train:
    fields = {"round": round_number, "trained_rounds": 0, "seed": 5, "base": "base.safetensors", "delta": "out/delta"}
    return Train.model_validate(fields | changes)


def test_hello_says_what_bits_depend_on(worker: Worker) -> None:
    assert worker.hello.threads == 1
    assert worker.hello.device.startswith(("cpu: ", "cuda: "))
    assert {"torch", "transformers", "numpy", "python"} <= set(worker.hello.versions)
    assert not worker.hello.isolated


def test_a_round_is_measured_trained_and_written(worker: Worker) -> None:
    prepared = worker.prepare()
    assert (prepared.documents, prepared.held_out_documents) == (8, 1)
    result, before = worker.ask(train())
    assert result.num_tokens == 6 * 4 * 32
    assert result.evaluation.num_tokens == 512
    assert result.evaluation.loss_sum_fixed / 512 / worker_protocol.LOSS_SCALE == pytest.approx(5.55, abs=0.05)
    assert 0 < result.train_loss_fixed < 6 * worker_protocol.LOSS_SCALE
    assert next(one.activity for one in before if isinstance(one, Progress)) == "evaluating"
    last = [one for one in before if isinstance(one, Progress)][-1]
    assert (last.steps_done, last.steps_total, last.tokens_done) == (6, 6, 6 * 4 * 32)
    delta = load_file(worker.job / "out" / "delta")
    manifest = PlanStatement.model_validate_json((worker.job / "plan.json").read_bytes()).manifest
    assert set(delta) == {tensor.name for tensor in manifest}
    assert any(np.abs(value).max() > 0 for value in delta.values())


def test_an_error_names_the_file_and_the_worker_stays_usable(worker: Worker) -> None:
    worker.prepare()
    answer, _ = worker.ask(train(base="absent.safetensors"))
    assert answer.code == "storage-failure"
    assert "absent.safetensors: No such file or directory" in answer.message
    answer, _ = worker.ask(train(delta="../outside"))
    assert (answer.code, answer.message) == ("malformed-message", "'../outside' is not a path inside the job folder.")
    assert isinstance(worker.ask(train())[0], Result)


def test_a_broken_model_file_is_refused(worker: Worker) -> None:
    worker.prepare()
    (worker.job / "broken.safetensors").write_bytes(b"\0" * 100)
    assert worker.ask(Evaluate(round=1, base="broken.safetensors"))[0].code == "wrong-tensors"


def test_an_unexpected_failure_tells_its_type_alone(worker: Worker) -> None:
    worker.prepare()
    answer, _ = worker.ask(Prepare(job="/\0secret", data=()))
    assert answer.code == "worker-failed"
    assert answer.message == "The worker failed at prepare with ValueError; its log holds the details."
    assert "Traceback" in worker.settings.log_path.read_text()


def test_a_wanted_snapshot_is_taken_at_a_step_boundary(worker: Worker) -> None:
    worker.prepare()
    worker.link.send(Snapshot())
    worker.link.send(train(4))
    taken, answer = [], None
    while not isinstance(answer, Result):
        answer = worker.messages.get(timeout=120)
        taken += [answer] if isinstance(answer, SnapshotTaken) else []
    assert taken == [SnapshotTaken(round=4, step=1)]
    records = [json.loads(path.read_text()) for path in (worker.job / "snapshots").glob("*/snapshot.json")]
    assert {"format", "ranks", "run", "round", "step", "tokens", "threads", "capability", "versions", "base"} <= set(
        records[0]
    )


def test_the_closing_of_the_lifeline_ends_the_worker() -> None:
    read, write = os.pipe()
    with socket.socket(socket.AF_UNIX) as listener:
        path = f"/tmp/llmasos-test-{os.getpid()}.sock"
        listener.bind(path)
        try:
            listener.listen(1)
            words = [sys.executable, "-m", "participant.worker", "--socket", path, "--lifeline-fd", str(read)]
            with subprocess.Popen([*words, "--threads", "1"], pass_fds=(read,), stderr=subprocess.DEVNULL) as process:
                os.close(read)
                connection, _ = listener.accept()
                with connection:
                    os.close(write)
                    assert process.wait(120) == LIFELINE_EXIT
        finally:
            os.unlink(path)


def test_both_sides_count_losses_in_one_scale() -> None:
    assert worker_protocol.LOSS_SCALE == perplexity.LOSS_SCALE
