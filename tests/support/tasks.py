"""Tiny models for each head, and what tests of tasks train with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.plan.model import Plan
from llmasos.tokenizers import bytes_tokenizer, save, vocab_size_of
from llmasos.tokenizers.special import add_special
from llmasos.training.corpus import Corpus, Source, prepare_corpus
from llmasos.training.loop import LocalTraining, RoundSums, RoundWork, StepDone
from tests.support.jobs import a_training_plan

if TYPE_CHECKING:
    import torch

    from llmasos.tasks.base import Batch
    from llmasos.training.device import Machine

SEQUENCE = 32
BERT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def a_task_plan(task: dict[str, Any], **changes: Any) -> Plan:
    """As `a_training_plan`, of that task."""
    return a_training_plan(task=task, **changes)


def tokenizer_for(plan: Plan, path: Path) -> Path:
    """Bytes and the task's special tokens."""
    tokenizer = bytes_tokenizer()
    add_special(tokenizer, plan.task.special_tokens)
    save(tokenizer, path)
    return path


def tiny_model(plan: Plan, tokenizer: Path) -> torch.nn.Module:
    """A model with the task's head, its weights drawn by torch under a seed."""
    import torch
    import transformers as hf

    from llmasos.tokenizers import load

    size = vocab_size_of(load(tokenizer))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        match plan.task.head:
            case "seq2seq-lm":
                config = hf.T5Config(
                    vocab_size=size, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2, dropout_rate=0.0
                )
                model: Any = hf.T5ForConditionalGeneration(config)
            case "sequence-classification":
                config = hf.BertConfig(vocab_size=size, num_labels=plan.task.num_labels, **BERT, **NO_DROPOUT)
                model = hf.BertForSequenceClassification(config)
            case other:
                raise NotImplementedError(other)
    found: torch.nn.Module = model.train()
    return found


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
        return tiny_model(self.plan, self.tokenizer)

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
