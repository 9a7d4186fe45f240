"""A model on the rows of any task: units a row, and for labels what it said, from one pass."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from common.errors import TooLittleData, WorkerFailed
from common.plan.tasks import Plugin, Preference, Task
from llmasos.evaluation.units import Units, column
from llmasos.tasks.base import Batch, Tensors, rows_in, stacked, tensors_of
from llmasos.tasks.causal_lm import TOKENS
from llmasos.tasks.encoding import ATTENTION, LABELS, NO_LABEL
from llmasos.tasks.next_sentence import NEXT
from llmasos.tasks.question_answering import END, START
from llmasos.tasks.registry import objective_of


@dataclass(slots=True)
class RowsFound:
    """Sums of each row, and of a classification the labels in the rows' order."""

    nats: list[float] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    hits: list[int] = field(default_factory=list)
    judged: list[int] = field(default_factory=list)
    said: list[int] = field(default_factory=list)
    wanted: list[int] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def units(self) -> Units:
        return Units.of(column(self.nats), column(self.targets), column(self.hits), column(self.judged))


def measure_rows(model: torch.nn.Module, task: Task, rows: Iterable[Batch], *, batch_size: int) -> RowsFound:
    """Measure `model`, in evaluation mode, on all rows, each a batch of one.

    Raises:
        TooLittleData: no row.
        WorkerFailed: a loss is not finite.
    """
    found, objective, device = RowsFound(), objective_of(task), next(model.parameters()).device
    was_training = model.training
    model.eval()
    started = time.perf_counter()
    with torch.no_grad(), _Heard().listening(model) as heard:
        for batch in stacked(rows, batch_size):
            tensors = tensors_of(batch, device)
            nats_N = objective.nats(model, tensors).double()
            _add_losses(found, nats_N, _rows_of_targets(task, tensors), rows_in(batch))
            if isinstance(task, Preference):  # below ln 2 the better answer gained more on the reference
                _add_hits(found, [(nats_N < math.log(2))[:, None]], [torch.ones_like(nats_N).bool()[:, None]])
            elif isinstance(task, Plugin):  # nobody knows here what its rows' arrays are
                _add_hits(found, [], [])
            else:
                _add_answers(found, heard.output, tensors)
    found.seconds = time.perf_counter() - started
    model.train(was_training)
    _check(found, task)
    return found


def _rows_of_targets(task: Task, batch: Tensors) -> torch.Tensor | None:
    """The row of each loss, in the order in which the task's objective gives them: int64, shape (targets,). None of a plugin's,
    whose order nobody knows here: its rows' sums are those of their batch, in equal parts."""
    rows_B = torch.arange(len(next(iter(batch.values()))))
    if isinstance(task, Plugin):
        return None
    if isinstance(task, Preference):
        return rows_B
    if TOKENS in batch:
        return rows_B.repeat_interleave(batch[TOKENS].shape[1] - 1)
    if START in batch:
        return rows_B.repeat(2)
    if batch[LABELS].dim() == 1:
        return rows_B
    of_tokens = (batch[LABELS] != NO_LABEL).nonzero()[:, 0].cpu()
    return torch.cat([of_tokens, rows_B]) if NEXT in batch else of_tokens


def _add_losses(found: RowsFound, nats_N: torch.Tensor, rows_N: torch.Tensor | None, count: int) -> None:
    if rows_N is None:
        found.nats += [float(nats_N.sum()) / count] * count
        found.targets += [nats_N.numel() // count + (row < nats_N.numel() % count) for row in range(count)]
        return
    found.nats += torch.zeros(count, dtype=torch.float64).index_add(0, rows_N, nats_N.cpu()).tolist()
    found.targets += torch.bincount(rows_N, minlength=count).tolist()


def _add_answers(found: RowsFound, output: Any, batch: Tensors) -> None:
    """What was likeliest, from the logits of the same pass."""
    pairs = list(_predicted(output, batch))
    _add_hits(
        found,
        [(logits.argmax(-1) == wanted).reshape(len(wanted), -1) for logits, wanted in pairs],
        [(wanted != NO_LABEL).reshape(len(wanted), -1) for _, wanted in pairs],
    )
    if LABELS in batch and batch[LABELS].dim() == 1:
        found.said += [int(one) for logits, _ in pairs for one in logits.argmax(-1).tolist()]
        found.wanted += [int(one) for _, wanted in pairs for one in wanted.tolist()]


def _add_hits(found: RowsFound, right: list[torch.Tensor], judged: list[torch.Tensor]) -> None:
    """Each bool, shape (B, things to judge)."""
    missing = [0] * (len(found.nats) - len(found.hits))
    found.hits += (
        torch.cat([a & b for a, b in zip(right, judged, strict=True)], 1).sum(1).tolist() if right else missing
    )
    found.judged += torch.cat(judged, 1).sum(1).tolist() if judged else missing


def _predicted(output: Any, batch: Tensors) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Logits and what should be the highest of them; none where a task has no such thing."""
    if TOKENS in batch:
        yield output.logits, batch[TOKENS][:, 1:]
    elif START in batch:
        padding_BL = batch[ATTENTION] == 0
        yield output.start_logits.masked_fill(padding_BL, -torch.inf), batch[START].flatten()
        yield output.end_logits.masked_fill(padding_BL, -torch.inf), batch[END].flatten()
    elif LABELS in batch:
        found = getattr(output, "logits", None)
        logits = output.prediction_logits if found is None else found
        if logits.shape[:-1] == batch[LABELS].shape:
            yield logits, batch[LABELS]


class _Heard:
    """A model's newest output, taken as it comes: an objective keeps it to itself."""

    output: Any = None

    @contextmanager
    def listening(self, model: torch.nn.Module) -> Iterator[_Heard]:
        def take(module: torch.nn.Module, args: Any, output: Any) -> None:
            self.output = output

        handle = model.register_forward_hook(take)
        try:
            yield self
        finally:
            handle.remove()


def _check(found: RowsFound, task: Task) -> None:
    if not sum(found.targets):
        raise TooLittleData(
            f"None of the data holds anything to measure for task {task.type} within the length of a sequence.",
            "Name more data, or a longer sequence_length.",
        )
    total = math.fsum(found.nats)
    if not math.isfinite(total):
        raise WorkerFailed(
            f"The model's loss over {sum(found.targets):,} targets is {total}, expected a finite number.",
            "The model holds weights that are not finite or far too large: train it anew, with a lower learning rate.",
        )
