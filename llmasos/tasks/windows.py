"""Tasks on running text: documents packed one after the other, and windows of them.

A batch's windows and what is measured are those of llmasos.datasets.tokens; what a task makes of a window is its `row`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from common.errors import TooLittleData, UnreadableData
from common.plan.model import Plan
from llmasos.datasets.draws import Dice
from llmasos.datasets.source import Source
from llmasos.datasets.text import Document, split_documents, survey
from llmasos.datasets.tokens import TokenFile, batches, held_out_windows, write_tokens
from llmasos.tasks.base import Batch, Facts, Written, together
from llmasos.tokenizers import vocab_size_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class WindowTask(Protocol):
    """What a task makes of a window of tokens."""

    @property
    def window(self) -> int:
        """Tokens a window."""
        ...

    @property
    def most_targets(self) -> int:
        """Targets that a window can have, at most."""
        ...

    def row(self, window_T: npt.NDArray[np.int64], dice: Dice) -> Batch:
        """A batch of one row. Only the last held-out window may be shorter than `window`."""
        ...


@dataclass(frozen=True, slots=True)
class Windows:
    """One side of the split, open for reading."""

    file: TokenFile
    task: WindowTask
    plan: Plan

    @property
    def path(self) -> Path:
        return self.file.path

    def batch(self, *, seed: int, step: int) -> Batch:
        windows_BT = batches(
            self.file,
            seed=seed,
            step=step,
            batch_size=self.plan.local.batch_size,
            sequence_length=self.task.window - 1,
        )
        return together([self.task.row(window_T, Dice(seed, step, row)) for row, window_T in enumerate(windows_BT)])

    def measured_rows(self) -> Iterator[Batch]:
        length = self.task.window - 1
        tokens = max(1, self.plan.evaluation.max_tokens * length // self.task.most_targets)
        windows = held_out_windows(self.file, length, tokens)
        return (self.task.row(window_T, Dice(0, 0, row)) for row, window_T in enumerate(windows))

    def close(self) -> None:
        self.file.close()


@dataclass(frozen=True, slots=True)
class WindowRecipe:
    """From folders of text to windows."""

    task: WindowTask
    plan: Plan
    tokenizer: Tokenizer
    suffix: str = ".tokens"

    def survey(self, source: Source) -> Iterator[Path | Document | UnreadableData]:
        return survey(source.folder, text_column=source.text_column, unit_field=source.unit_field)

    def split(self, things: Iterable[Document], names: str) -> tuple[list[Document], list[Document]]:
        return split_documents(things, self.plan.evaluation.held_out_fraction, seed=self.plan.seed, source=names)

    def write(self, things: Sequence[Document], path: Path) -> Written:
        return Written(len(things), write_tokens(things, self.tokenizer, path))

    def open(self, path: Path) -> Windows:
        return Windows(TokenFile.open(path), self.task, self.plan)

    def check(self, facts: Facts, names: str) -> None:
        needed = self.task.window
        if facts.train_tokens < needed:
            raise TooLittleData(
                f"{names} holds {facts.train_tokens:,} tokens to train on in {facts.documents:,} documents, "
                f"the plan needs at least {needed:,}."
            )
        if facts.held_out_tokens < 2:
            raise TooLittleData(
                f"{names} holds {facts.held_out_tokens} held-out tokens in {facts.documents:,} documents, "
                "at least 2 are needed."
            )

    def sample(self, seed: int) -> Batch:
        shape = (self.plan.local.batch_size, self.task.window)
        drawn_BT = np.random.default_rng(seed).integers(0, vocab_size_of(self.tokenizer), size=shape, dtype=np.int64)
        return together([self.task.row(window_T, Dice(0, 0, row)) for row, window_T in enumerate(drawn_BT)])
