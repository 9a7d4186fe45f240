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
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict

from common.errors import UnreadableData
from llmasos.datasets.source import Source
from llmasos.datasets.text import Splittable

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


class Facts(BaseModel):
    """How much data an institution has for a task. A `token` is a number in a token file or row file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    documents: int
    """Documents, or records with fields."""
    train_tokens: int
    held_out_documents: int
    held_out_tokens: int
    train_rows: int = 0
    """What the documents became, where a task makes rows of them."""
    held_out_rows: int = 0
    shortened: int = 0
    """Documents of which something was cut off, since a row holds so many tokens and no more."""
    left_out: int = 0
    """Those in which there was nothing to learn, since no target was left within a row."""
    parts: tuple[Facts, ...] = ()
    """Of a mixture, each task's."""

    @classmethod
    def of(cls, train: Written, held_out: Written) -> Facts:
        """What both sides came to."""
        return cls(
            documents=train.documents + held_out.documents,
            train_tokens=train.tokens,
            held_out_documents=held_out.documents,
            held_out_tokens=held_out.tokens,
            train_rows=train.rows,
            held_out_rows=held_out.rows,
            shortened=train.shortened + held_out.shortened,
            left_out=train.left_out + held_out.left_out,
            parts=tuple(cls.of(*sides) for sides in zip(train.parts, held_out.parts, strict=True)),
        )


@dataclass(frozen=True, slots=True)
class Written:
    """What one side of the split came to; see Facts."""

    documents: int
    tokens: int
    rows: int = 0
    shortened: int = 0
    left_out: int = 0
    parts: tuple[Written, ...] = ()


class Data(Protocol):
    """One side of the split as a task wrote it, open for reading."""

    @property
    def path(self) -> Path:
        """The file."""
        ...

    def batch(self, *, seed: int, step: int) -> Batch:
        """What step `step` of a round with that seed trains on: a pure function of the file and both."""
        ...

    def measured_rows(self) -> Iterator[Batch]:
        """What every model is measured on, each a batch of one row; at most the plan's `evaluation.max_tokens` targets, but
        one row at least."""
        ...

    def close(self) -> None: ...


class Recipe(Protocol):
    """From an institution's data to a task's batches. What goes in and out of `split` and `write` is what `survey` yields."""

    @property
    def suffix(self) -> str:
        """Of its files."""
        ...

    def survey(self, source: Source) -> Iterator[Path | Splittable | UnreadableData]:
        """Each file and what is in it, and what is wrong as a value, so that all of it can be told; what is empty is passed
        over.

        Raises:
            UsageError, StorageFailure: the folder does not exist, or a file cannot be read.
        """
        ...

    def split(self, things: Iterable[Any], names: str) -> tuple[list[Any], list[Any]]:
        """(train, held-out); no unit is on both sides.

        Raises:
            TooLittleData: there is not enough for two sides; says `names`.
        """
        ...

    def write(self, things: Sequence[Any], path: Path) -> Written:
        """Encode one side.

        Raises:
            StorageFailure: the file cannot be written.
        """
        ...

    def open(self, path: Path) -> Data:
        """
        Raises:
            StorageFailure: the file cannot be read, or was cut short.
        """
        ...

    def check(self, facts: Facts, names: str) -> None:
        """
        Raises:
            TooLittleData: there is not enough to train on or to measure on; says `names`.
        """
        ...

    def sample(self, seed: int) -> Batch:
        """A batch of the shapes that training has, of random tokens: time and memory depend on shapes alone."""
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
