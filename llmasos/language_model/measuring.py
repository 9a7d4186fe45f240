"""A model measured on a split: loss, perplexity, bits per byte, accuracy, tokens a second."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from common.plan.model import Plan
from llmasos.charts import table_html
from llmasos.datasets.loading import Split
from llmasos.evaluation.perplexity import LOSS_SCALE, evaluate
from llmasos.tasks.base import Batch, Objective, Tensors
from llmasos.tasks.causal_lm import NextTokenWindows
from llmasos.tasks.registry import objective_of
from llmasos.tasks.windows import Windows
from llmasos.training.corpus import Corpus, Facts


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a model does on a split."""

    split: str
    loss: float
    """Mean cross entropy, nats a target."""
    perplexity: float
    """exp(loss). To be compared between models of one tokenizer only."""
    bits_per_byte: float
    """The loss in bits over bytes of text: to be compared between tokenizers, too."""
    accuracy: float
    """Share of targets to which the model gave the highest probability, 0 to 1."""
    tokens: int
    """Targets measured."""
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else math.inf

    def to_dict(self) -> dict[str, Any]:
        """All of it by name, as transformers' Trainer.evaluate returns it."""
        return {**asdict(self), "tokens_per_second": self.tokens_per_second}

    def _repr_html_(self) -> str:
        values = self.to_dict()
        return table_html([values], list(values))


def measure(model: torch.nn.Module, split: Split, plan: Plan, *, batch_size: int) -> Evaluation:
    """The model on the whole split, in windows of the plan's sequence length that lie end to end.

    Raises:
        TooLittleData: the split is empty.
        WorkerFailed: a loss is not finite.
    """
    counted = _Counting(objective_of(plan.task))
    started = time.monotonic()
    with counted.listening(model):
        sums = evaluate(model, counted, corpus_of(split, plan).held_out_rows(), batch_size=batch_size)
    seconds = time.monotonic() - started
    loss = sums.loss_sum_fixed / LOSS_SCALE / sums.num_tokens
    bytes_a_token = split.num_bytes / split.num_tokens
    return Evaluation(
        split=split.name,
        loss=loss,
        perplexity=sums.perplexity,
        bits_per_byte=loss / math.log(2) / bytes_a_token,
        accuracy=counted.correct / sums.num_tokens,
        tokens=sums.num_tokens,
        seconds=seconds,
    )


def corpus_of(split: Split, plan: Plan) -> Corpus:
    """The split as the loop and evaluation read an institution's text. It stays open as long as the split lives."""
    facts = Facts(
        documents=len(split),
        train_tokens=split.num_tokens,
        held_out_documents=len(split),
        held_out_tokens=split.num_tokens,
    )
    windows = Windows(split.tokens, NextTokenWindows(plan.local.sequence_length), plan)
    return Corpus(facts, windows, windows, plan)


class _Counting:
    """An objective that also counts the targets which the model found likeliest, from the logits of the same pass."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._logits_BLV: torch.Tensor | None = None
        self.correct = 0

    @contextmanager
    def listening(self, model: torch.nn.Module) -> Iterator[None]:
        """While it lasts, the model's logits are seen as they come."""

        def take(module: torch.nn.Module, args: Any, output: Any) -> None:
            self._logits_BLV = output.logits

        handle = model.register_forward_hook(take)
        try:
            yield
        finally:
            handle.remove()

    def targets(self, batch: Batch) -> int:
        return self._objective.targets(batch)

    def nats(self, model: torch.nn.Module, batch: Tensors) -> torch.Tensor:
        nats_N = self._objective.nats(model, batch)
        if self._logits_BLV is None:
            raise RuntimeError("the model computed no logits")
        likeliest_BL = self._logits_BLV.argmax(-1)
        self.correct += int((likeliest_BL == batch["tokens"][:, 1:]).sum())
        return nats_N
