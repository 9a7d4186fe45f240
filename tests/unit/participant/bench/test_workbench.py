"""The agent's hands on its worker, with a null worker's real process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from common.errors import DeviceFailed, TooLittleData, WorkerFailed, WorkerKilled
from participant.bench.memory_kills import MemoryKills
from participant.bench.workbench import BASE, DELTA, RoundOver, Workbench
from participant.bench.worker_link import WorkerLink
from participant.bench.worker_protocol import Evaluate, Progress, Train
from participant.config import CoordinatorAddresses, HomeLayout, ParticipantConfig, WorkerSettings
from participant.datasets import DataSet, add_data_set
from tests.support import null_worker
from tests.support.agents import Institution
from tests.support.coordinators import TOKENIZER
from tests.support.federations import until
from tests.support.participants import RUN

TRAIN = Train(round=1, trained_rounds=0, seed=7, base=BASE, delta=DELTA, resume=True)


class Bench:
    """A workbench over a folder, with a run whose first round is open."""

    def __init__(self, folder: Path, north: Institution) -> None:
        self.folder, self.north, self.data = folder, north, folder / "text"
        self.data.mkdir(parents=True)
        (self.data / "a.txt").write_text("some text\n")
        self.tokenizer, self.model = folder / "tokenizer.json", folder / "model.blob"
        north.open_round()
        self.tokenizer.write_bytes(TOKENIZER)
        self.model.write_bytes(north.coordinator.blobs.path(north.run.model).read_bytes())
        config = ParticipantConfig(
            institution="north",
            consortium="hospitals",
            coordinator=CoordinatorAddresses(work="127.0.0.1:1", enrolment="127.0.0.1:2"),
            worker=WorkerSettings(command=null_worker.COMMAND),
        )
        layout = HomeLayout(folder)
        add_data_set(layout, DataSet(folder=self.data))
        self.workbench = Workbench(layout, config)
        self.over = threading.Event()
        self.progress: list[Progress] = []

    @property
    def pid(self) -> int:
        assert self.workbench.hello is not None
        return self.workbench.hello.pid

    def prepare(self) -> None:
        self.workbench.prepare(self.north.run, self.tokenizer, self.over)
        self.workbench.place_base(RUN, self.model)

    def train(self) -> np.ndarray:
        """The delta's numbers."""
        result = self.workbench.train(TRAIN, self.over, self.progress.append)
        assert (result.task, result.delta) == ("train", DELTA)
        return np.frombuffer((self.workbench.job(RUN) / DELTA).read_bytes()[-36 * 4 :], dtype="<f4")


@pytest.fixture
def bench(tmp_path: Path, north: Institution) -> Iterator[Bench]:
    made = Bench(tmp_path / "bench", north)
    yield made
    made.workbench.close()


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_worker_prepares_evaluates_and_trains_in_the_runs_job_folder(bench: Bench) -> None:
    bench.prepare()
    job = bench.workbench.job(RUN)
    assert job.stat().st_mode & 0o777 == 0o700
    assert (job / "tokenizer.json").read_bytes() == TOKENIZER
    assert (job / BASE).read_bytes() == bench.model.read_bytes()
    seed = null_worker.seed_of(null_worker.text_digest(bench.data), 1, job / BASE)
    assert bench.train().tobytes() == null_worker.values(seed, 0, 36).tobytes()
    assert [entry.steps_done for entry in bench.progress] == [2]
    evaluated = bench.workbench.evaluate(Evaluate(round=2, base=BASE), bench.over, bench.progress.append)
    assert (evaluated.task, evaluated.evaluation.num_tokens) == ("evaluate", 100)
    bench.workbench.close()
    assert gone(bench.pid)


def test_one_worker_serves_all_rounds_of_a_run_and_prepares_once(bench: Bench) -> None:
    bench.prepare()
    pid = bench.pid
    (bench.data / "fail").write_text("worker-failed")
    bench.prepare()
    assert bench.pid == pid


def test_a_resting_worker_is_gone_and_the_next_round_starts_another(bench: Bench) -> None:
    bench.workbench.rest()
    bench.prepare()
    pid = bench.pid
    bench.workbench.rest()
    assert gone(pid)
    assert not bench.workbench.is_ready_for(RUN)
    bench.prepare()
    assert bench.train().any()


def test_what_the_worker_refuses_reaches_the_agent_and_the_worker_stays(bench: Bench) -> None:
    (bench.data / "fail").write_text("too-little-data")
    with pytest.raises(TooLittleData, match=r"It fails as asked"):
        bench.prepare()
    pid = bench.pid
    (bench.data / "fail").unlink()
    bench.prepare()
    assert bench.pid == pid


def test_a_worker_whose_device_failed_is_ended_and_the_next_try_starts_another(bench: Bench) -> None:
    bench.prepare()
    pid = bench.pid
    (bench.data / "fail").write_text("device-failed")
    with pytest.raises(DeviceFailed, match=r"It fails as asked"):
        bench.train()
    assert gone(pid)
    (bench.data / "fail").unlink()
    bench.prepare()
    assert bench.pid != pid
    assert bench.train().any()


def test_after_two_kills_for_want_of_memory_the_next_worker_gets_half_the_micro_batch(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, sent = iter([*range(4)] * 2), []
    bench.workbench._memory = MemoryKills(lambda: next(kernel))
    send = WorkerLink.send
    monkeypatch.setattr(WorkerLink, "send", lambda link, message: (sent.append(message), send(link, message))[1])
    holding = bench.workbench.job(RUN) / "holding"
    for _ in range(2):
        bench.prepare()
        holding.unlink(missing_ok=True)
        (bench.data / "hold").touch()

        def kill() -> None:
            until(holding.exists, "the worker waits")
            os.kill(bench.pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(WorkerKilled):
            bench.train()
        killer.join()
        (bench.data / "hold").unlink()
    bench.prepare()
    assert bench.train().any()
    wanted = bench.north.run.statement.plan.local
    size = wanted.micro_batch_size or wanted.batch_size
    assert [each.micro_batch for each in sent if isinstance(each, Train)] == [None, None, size // 2]


def test_a_round_that_is_over_ends_the_worker_in_the_middle_of_its_work(bench: Bench) -> None:
    bench.prepare()
    pid = bench.pid
    (bench.data / "hold").touch()
    holding = bench.workbench.job(RUN) / "holding"

    def end() -> None:
        until(holding.exists, "the worker waits")
        bench.over.set()

    watch = threading.Thread(target=end)
    watch.start()
    with pytest.raises(RoundOver):
        bench.train()
    watch.join()
    assert gone(pid)


def test_a_worker_that_dies_at_work_is_an_error_and_the_next_try_starts_another(bench: Bench) -> None:
    bench.prepare()
    (bench.data / "hold").touch()
    holding = bench.workbench.job(RUN) / "holding"

    def kill() -> None:
        until(holding.exists, "the worker waits")
        os.kill(bench.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(WorkerFailed, match=r"The worker was ended by SIGKILL in the middle of its work"):
        bench.train()
    killer.join()
    (bench.data / "hold").unlink()
    bench.prepare()
    assert bench.train().any()


def test_a_worker_that_died_between_rounds_is_replaced_without_an_error(bench: Bench) -> None:
    bench.prepare()
    pid = bench.pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: not bench.workbench._link or not bench.workbench._link.alive(), "the worker is gone")
    bench.prepare()
    assert bench.pid != pid
    assert bench.train().any()


def test_where_no_link_can_be_made_the_base_model_is_copied(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_source: object, _target: object) -> None:
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", refused)
    bench.prepare()
    placed = bench.workbench.job(RUN) / BASE
    assert placed.read_bytes() == bench.model.read_bytes()
    assert placed.stat().st_nlink == 1


def test_a_command_that_is_no_worker_says_where_to_look(tmp_path: Path, bench: Bench) -> None:
    bench.workbench._config = bench.workbench._config.model_copy(
        update={"worker": WorkerSettings(command=("/bin/false",))}
    )
    with pytest.raises(WorkerFailed, match=r"ended with code 1 before it was ready\..*worker\.log"):
        bench.prepare()


def test_the_job_folder_of_an_ended_run_is_removed_and_others_stay(bench: Bench) -> None:
    bench.prepare()
    other = bench.workbench.job("other-0a1b2c")
    other.mkdir()
    bench.workbench.forget_runs(known={RUN, "other-0a1b2c", "never-seen"}, keep={RUN})
    assert bench.workbench.job(RUN).is_dir()
    assert not other.exists()
    pid = bench.pid
    bench.workbench.forget_runs(known={RUN}, keep=())
    assert not bench.workbench.job(RUN).exists()
    until(lambda: gone(pid), "the worker that had the folder open to end")


def test_personal_layers_stay_when_the_run_has_ended(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.prepare()
    own = bench.workbench.job(RUN) / "personal"
    own.mkdir()
    (own / "round-00000001.safetensors").write_bytes(b"layers")
    with caplog.at_level("INFO"):
        for _ in range(3):
            bench.workbench.forget_runs(known={RUN}, keep=())
    assert [path.name for path in bench.workbench.job(RUN).iterdir()] == ["personal"]
    assert (own / "round-00000001.safetensors").read_bytes() == b"layers"
    assert caplog.messages.count("job folder removed") == 1
