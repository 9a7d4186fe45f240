"""A worker that must end in the middle of its work: soon, whatever it does, and the round goes on later with the same bits."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from common.ledger.state import Place, RunRecord
from common.statements.kinds import Kind, PlanStatement
from participant.bench import workbench as module
from participant.bench.workbench import BASE, DELTA, RoundOver, Workbench
from participant.bench.worker_protocol import Evaluate, Progress, Result, Train
from participant.config import CoordinatorAddresses, HomeLayout, ParticipantConfig
from participant.datasets import DataSet, add_data_set
from tests.support.federations import until
from tests.support.jobs import a_training_plan, make_job

pytestmark = pytest.mark.torch

FREE_SECONDS = 10.0
TRAIN = Train(round=1, trained_rounds=0, seed=5, base=BASE, delta=DELTA, resume=True)


class Bench:
    """A workbench with the real worker; `over` ends what it does."""

    def __init__(self, root: Path, **plan: Any) -> None:
        made, data = make_job(root / "made", a_training_plan(**plan))
        self._made = made
        layout = HomeLayout(root / "home")
        layout.home.mkdir()
        add_data_set(layout, DataSet(folder=data))
        addresses = CoordinatorAddresses(work="127.0.0.1:1", enrolment="127.0.0.1:2")
        config = ParticipantConfig(institution="north", consortium="hospitals", coordinator=addresses)
        self.workbench = Workbench(layout, config)
        statement = PlanStatement.model_validate_json((made / "plan.json").read_bytes())
        self.run = RunRecord(Place(2, "ab" * 32, Kind.PLAN), statement)
        self.over = threading.Event()
        self.progress: list[Progress] = []

    @property
    def pid(self) -> int:
        assert self.workbench.hello is not None
        return self.workbench.hello.pid

    def prepare(self) -> None:
        self.workbench.prepare(self.run, self._made / "tokenizer.json", self.over)
        copied = self._made / "placed.safetensors"
        shutil.copyfile(self._made / "base.safetensors", copied)
        self.workbench.place_base(self.run.run, copied)

    def train(self) -> tuple[Result, bytes]:
        """The answer without its time, and the delta's bytes."""
        result = self.workbench.train(TRAIN, self.over, self.progress.append)
        delta = (self.workbench.job(self.run.run) / DELTA).read_bytes()
        return result.model_copy(update={"seconds": 0.0}), delta

    def interrupt(self, work: Callable[[], object], when: Callable[[], bool]) -> float:
        """Begin the work, end it once `when` holds; seconds from then until no process of the worker is left."""
        pid, at = self.pid, [0.0]

        def end() -> None:
            until(when, "the worker is in the middle of its work", 60)
            at[0] = time.monotonic()
            self.over.set()

        ending = threading.Thread(target=end)
        ending.start()
        with pytest.raises(RoundOver):
            work()
        ending.join()
        assert gone(pid)
        self.over = threading.Event()
        return time.monotonic() - at[0]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**plan: Any) -> Bench:
        made.append(Bench(tmp_path / str(len(made)), **plan))
        return made[-1]

    yield make
    for one in made:
        one.workbench.close()


def test_an_interrupted_round_frees_the_machine_and_ends_with_the_bits_of_one_that_was_not(
    bench: Callable[..., Bench],
) -> None:
    whole, broken = bench(local={"steps": 150}), bench(local={"steps": 150})
    whole.prepare()
    expected = whole.train()
    broken.prepare()
    seconds = broken.interrupt(broken.train, lambda: bool(broken.progress) and broken.progress[-1].steps_done > 0)
    assert seconds < FREE_SECONDS
    stopped_at = broken.progress[-1].steps_done
    assert stopped_at < 150
    (snapshot,) = (broken.workbench.job(broken.run.run) / "snapshots").iterdir()
    assert int(snapshot.name.rpartition("-")[2]) >= stopped_at
    broken.progress.clear()
    broken.prepare()
    assert broken.train() == expected
    assert min(each.steps_done for each in broken.progress if each.activity == "training") > stopped_at


def test_an_interrupted_evaluation_ends_between_batches_and_is_measured_again(bench: Callable[..., Bench]) -> None:
    one = bench(evaluation={"max_tokens": 10_000_000, "held_out_fraction": "0.9"})
    one.prepare()
    message = Evaluate(round=1, base=BASE)
    expected = one.workbench.evaluate(message, one.over, one.progress.append).evaluation
    one.progress.clear()
    seconds = one.interrupt(
        lambda: [one.workbench.evaluate(message, one.over, one.progress.append) for _ in range(1000)],
        lambda: bool(one.progress),
    )
    assert seconds < FREE_SECONDS
    one.prepare()
    assert one.workbench.evaluate(message, one.over, one.progress.append).evaluation == expected


def test_a_worker_that_does_not_listen_is_ended_by_force(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STOP_SECONDS", 0.5)
    one = bench()
    one.prepare()
    os.kill(one.pid, signal.SIGSTOP)
    assert one.interrupt(one.train, lambda: True) < FREE_SECONDS


def test_watches_and_force_together_take_less_than_ten_seconds() -> None:
    from participant.watching import WATCH_SECONDS

    assert WATCH_SECONDS + module.WATCH_SECONDS + module.STOP_SECONDS < FREE_SECONDS - 2
