"""What every task is to the training loop and to evaluation: rows, and a loss in nats for each target in them.

    batch = corpus.batch(seed=7, step=0)                   # {"tokens": int64, shape (B, 129)}
    objective = objective_of(plan.task)
    objective.targets(batch)                               # how many targets: the batch's num_tokens
    objective.nats(model, tensors_of(batch, device))       # their losses, shape (targets,)

A batch's mean loss is the sum of its nats over its targets, whatever the micro-batches it is taken in; held-out loss is the
same sum over all held-out rows. So every task is weighted, measured and compared in the same unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

Batch = Mapping[str, npt.NDArray[np.int64]]
"""Arrays of a task's own names, each shape (B, …): row b of all of them belongs together."""
Tensors = Mapping[str, torch.Tensor]
"""The same on a device."""


class Objective(Protocol):
    """A task's loss. Pure: everything random of a row was drawn when its batch was."""

    def targets(self, batch: Batch) -> int:
        """How many targets the batch holds: tokens to predict, labels to find. At most batch_size × sequence_length."""
        ...

    def nats(self, model: torch.nn.Module, batch: Tensors) -> torch.Tensor:
        """The loss of each target, given what the row lets the model see: float32, shape (targets,), nats, ≥ 0."""
        ...


def rows_in(batch: Batch) -> int:
    """B."""
    return len(next(iter(batch.values())))


def tensors_of(batch: Batch, device: torch.device | str) -> dict[str, torch.Tensor]:
    """The batch on a device."""
    return {name: torch.from_numpy(values).to(device) for name, values in batch.items()}


def split(batch: Tensors, size: int) -> Iterator[dict[str, torch.Tensor]]:
    """Micro-batches of at most `size` rows, in order."""
    names = list(batch)
    for parts in zip(*(torch.split(batch[name], size) for name in names), strict=True):
        yield dict(zip(names, parts, strict=True))


def stacked(rows: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Consecutive rows of the same shapes together, at most `size` of them. Each of `rows` is a batch of one row."""
    for _, same in groupby(rows, key=_shapes):
        while some := list(islice(same, size)):
            yield together(some)


def together(batches: Sequence[Batch]) -> Batch:
    """The batches' rows, one below the other."""
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def _shapes(row: Batch) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, values.shape[1:]) for name, values in row.items())
