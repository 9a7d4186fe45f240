"""Plans of each task with the smallest model that it can have, and what tests of tasks train with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.plan.model import Plan
from llmasos.models.build import model_of
from llmasos.tokenizers import bytes_tokenizer, load, save
from llmasos.tokenizers.special import add_special
from llmasos.training.corpus import Corpus, Source, prepare_corpus
from llmasos.training.loop import LocalTraining, RoundSums, RoundWork, StepDone
from tests.support.jobs import a_training_plan

if TYPE_CHECKING:
    import torch

    from llmasos.tasks.base import Batch
    from llmasos.training.device import Machine

_BERT = {
    "type": "bert",
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
}
_T5 = {"type": "t5", "num_layers": 1, "num_heads": 2, "d_model": 32, "d_kv": 16, "d_ff": 64}
MODELS: dict[str, dict[str, Any]] = {
    "masked-lm": _BERT,
    "question-answering": _BERT,
    "sequence-classification": _BERT,
    "seq2seq": _T5,
}
"""The smallest model for each task; the others' is `a_training_plan`'s."""


def a_task_plan(task: dict[str, Any], **changes: Any) -> Plan:
    """As `a_training_plan`, of that task."""
    model = {"model": MODELS[task["type"]]} if task["type"] in MODELS else {}
    return a_training_plan(task=task, **(model | changes))


def tokenizer_for(plan: Plan, path: Path) -> Path:
    """Bytes and the task's special tokens."""
    tokenizer = bytes_tokenizer()
    add_special(tokenizer, plan.task.special_tokens)
    save(tokenizer, path)
    return path


@dataclass
class Learner:
    """One institution's data for a task, and a way to train on them."""

    corpus: Corpus
    tokenizer: Path
    machine: Machine

    @property
    def plan(self) -> Plan:
        return self.corpus.plan

    def model(self) -> torch.nn.Module:
        return model_of(self.plan, load(self.tokenizer))

    def training(self) -> LocalTraining:
        return LocalTraining(self.plan, self.model(), self.machine)

    def draw(self, step: int) -> Batch:
        return self.corpus.batch(seed=5, step=step)

    def run(
        self, training: LocalTraining, *, steps: int | None = None, done: RoundSums | None = None
    ) -> list[StepDone]:
        """Train a round; every step boundary."""
        boundaries: list[StepDone] = []
        work = RoundWork(trained_rounds=0, seed=5, steps=steps, done=done or RoundSums())
        training.run_round(work, self.draw, boundaries.append)
        return boundaries


def a_learner(root: Path, folder: Path, plan: Plan, machine: Machine) -> Learner:
    tokenizer = tokenizer_for(plan, root / "tokenizer.json")
    return Learner(prepare_corpus([Source(folder)], tokenizer, root / "tokens", plan), tokenizer, machine)
