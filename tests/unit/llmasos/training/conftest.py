"""What training tests share: a machine with one thread, and a corpus with a model for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from common.plan.model import Plan  # noqa: E402
from llmasos.models.build import build_model  # noqa: E402
from llmasos.tokenizers import bytes_tokenizer, save  # noqa: E402
from llmasos.training.corpus import Corpus, Source, prepare_corpus  # noqa: E402
from llmasos.training.device import Machine, set_up  # noqa: E402
from llmasos.training.loop import LocalTraining, RoundWork, StepDone  # noqa: E402
from tests.support.jobs import a_training_plan  # noqa: E402
from tests.support.texts import make_institutions  # noqa: E402


@pytest.fixture(scope="session")
def machine() -> Machine:
    return set_up(1, allow_cuda=False)


@dataclass
class Trainee:
    """One institution's text and a way to train on it."""

    corpus: Corpus
    machine: Machine

    @property
    def plan(self) -> Plan:
        return self.corpus.plan

    def model(self) -> torch.nn.Module:
        return build_model(self.plan.model, adapter=self.plan.adapter, vocab_size=257, seed=self.plan.seed)

    def training(self) -> LocalTraining:
        return LocalTraining(self.plan, self.model(), self.machine)

    def draw(self, step: int) -> Any:
        return self.corpus.batch(seed=5, step=step)

    def run(self, training: LocalTraining, work: RoundWork | None = None) -> list[StepDone]:
        """Train a round; every step boundary."""
        boundaries: list[StepDone] = []
        training.run_round(work or RoundWork(trained_rounds=0, seed=5), self.draw, boundaries.append)
        return boundaries


@pytest.fixture
def trainee(tmp_path: Path, machine: Machine) -> Iterator[Callable[..., Trainee]]:
    """Makes trainees by `a_training_plan`'s arguments."""
    made: list[Corpus] = []
    folder = make_institutions(tmp_path / "data", count=1)["clinic"]
    save(bytes_tokenizer(), tmp_path / "tokenizer.json")

    def make(**changes: Any) -> Trainee:
        plan = a_training_plan(**changes)
        made.append(prepare_corpus([Source(folder)], tmp_path / "tokenizer.json", tmp_path / "tokens", plan))
        return Trainee(made[-1], machine)

    yield make
    for corpus in made:
        corpus.close()
