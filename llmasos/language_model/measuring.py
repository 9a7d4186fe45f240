"""A model measured on a split: loss, perplexity, bits per byte, accuracy, tokens a second, and the task's own measures."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from common.plan.model import Plan
from common.plan.tasks import CausalLM, Preference, QuestionAnswering, SequenceClassification, Task
from llmasos.charts import table_html
from llmasos.datasets.loading import Split
from llmasos.evaluation.metrics import likelihood
from llmasos.evaluation.perplexity import LOSS_SCALE, evaluate
from llmasos.tasks.base import Batch, Data, Objective, Tensors
from llmasos.tasks.causal_lm import TOKENS
from llmasos.tasks.encoding import ATTENTION, LABELS, NO_LABEL
from llmasos.tasks.question_answering import END, START
from llmasos.tasks.registry import objective_of
from llmasos.tasks.scores import scores


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a model does on a split. A target is what the task predicts: a token, a hidden token, a label."""

    split: str
    loss: float
    """Mean cross entropy, nats a target."""
    perplexity: float
    """exp(loss). To be compared between models of one tokenizer only."""
    bits_per_byte: float | None
    """The loss in bits over bytes of text: to be compared between tokenizers, too. Of causal language models only."""
    accuracy: float | None
    """Share of targets to which the model gave the highest probability, 0 to 1; None where the task has no such thing."""
    tokens: int
    """Targets measured."""
    seconds: float
    scores: Mapping[str, float] = field(default_factory=dict)
    """The task's own measures, shares of 1 (llmasos.tasks.scores): macro_f1 and micro_f1 of labels, exact_match and f1 of
    answers, accuracy of preferences. Empty where accuracy says all."""

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else math.inf

    def to_dict(self) -> dict[str, Any]:
        """All of it by name, as transformers' Trainer.evaluate returns it."""
        own = {name: value for name, value in asdict(self).items() if name != "scores"}
        return {**own, "tokens_per_second": self.tokens_per_second, **self.scores}

    def _repr_html_(self) -> str:
        values = self.to_dict()
        return table_html([values], list(values))


def measure(
    model: torch.nn.Module, split: Split, plan: Plan, *, batch_size: int, with_scores: bool = True
) -> Evaluation:
    """The model on the whole split; of text, in windows of the plan's sequence length that lie end to end.

    Args:
        with_scores: the task's own measures, too, which take a second pass. `seconds` are those of the first.

    Raises:
        TooLittleData: the split is empty.
        WorkerFailed: a loss is not finite.
    """
    counted = _Counting(objective_of(plan.task))
    started = time.monotonic()
    with split.opened(plan) as data, counted.listening(model):
        sums = evaluate(model, counted, data.measured_rows(), batch_size=batch_size)
        seconds = time.monotonic() - started
        own = _scores(plan.task, model, split, data, batch_size) if with_scores else {}
    loss = sums.loss_sum_fixed / LOSS_SCALE / sums.num_tokens
    return Evaluation(
        split=split.name,
        loss=loss,
        perplexity=sums.perplexity,
        bits_per_byte=_bits_per_byte(loss, split, plan),
        accuracy=counted.correct / counted.judged if counted.judged else own.get("accuracy"),
        tokens=sums.num_tokens,
        seconds=seconds,
        scores=own,
    )


def _scores(task: Task, model: torch.nn.Module, split: Split, data: Data, batch_size: int) -> dict[str, float]:
    if not isinstance(task, SequenceClassification | QuestionAnswering | Preference):
        return {}
    return scores(task, model, data.measured_rows(), split.tokenizer, batch_size=batch_size)


def _bits_per_byte(loss: float, split: Split, plan: Plan) -> float | None:
    """Of all the split's tokens at the mean loss: the first, which nothing predicts, is taken for an average one."""
    if not isinstance(plan.task, CausalLM):
        return None
    tokens = split.written(plan).tokens
    return likelihood(nats=loss * tokens, tokens=tokens, words=0, text_bytes=split.num_bytes).bits_per_byte


class _Counting:
    """An objective that also counts the targets which the model found likeliest, from the logits of the same pass."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._output: Any = None
        self.correct = 0
        self.judged = 0

    @contextmanager
    def listening(self, model: torch.nn.Module) -> Iterator[None]:
        """While it lasts, the model's logits are seen as they come."""

        def take(module: torch.nn.Module, args: Any, output: Any) -> None:
            self._output = output

        handle = model.register_forward_hook(take)
        try:
            yield
        finally:
            handle.remove()

    def targets(self, batch: Batch) -> int:
        return self._objective.targets(batch)

    def nats(self, model: torch.nn.Module, batch: Tensors) -> torch.Tensor:
        nats_N = self._objective.nats(model, batch)
        for logits, expected in self._predicted(batch):
            judged = expected != NO_LABEL
            self.correct += int(((logits.argmax(-1) == expected) & judged).sum())
            self.judged += int(judged.sum())
        return nats_N

    def _predicted(self, batch: Tensors) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Logits and what should be the highest of them; none where a task has no such thing."""
        if TOKENS in batch:
            yield self._output.logits, batch[TOKENS][:, 1:]
        elif LABELS in batch:
            found = getattr(self._output, "logits", None)
            logits = self._output.prediction_logits if found is None else found
            if logits.shape[:-1] == batch[LABELS].shape:  # a preference is between two rows, and no label
                yield logits, batch[LABELS]
        elif START in batch:
            padding_BL = batch[ATTENTION] == 0
            yield self._output.start_logits.masked_fill(padding_BL, -torch.inf), batch[START].flatten()
            yield self._output.end_logits.masked_fill(padding_BL, -torch.inf), batch[END].flatten()
