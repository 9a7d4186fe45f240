"""Progress where somebody watches: a bar in a terminal or a notebook, nothing in a pipe, a file or a test."""

from __future__ import annotations

import sys
from typing import Protocol

from llmasos.extras import in_notebook, require_train


class Bar(Protocol):
    """What a fit tells of itself; tqdm's interface."""

    def update(self, n: float = 1) -> bool | None: ...

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None: ...

    def close(self) -> None: ...


def open_bar(*, total: int, done: int, what: str, shown: bool | None) -> Bar:
    """A bar over `total` steps, `done` of them done.

    Args:
        shown: True or False; None shows it where standard error is a terminal, or in a notebook.

    Raises:
        MissingExtra: tqdm is not installed.
    """
    require_train("tqdm", task="show progress")
    from tqdm.auto import tqdm

    hidden = not (is_watched() if shown is None else shown)
    bar: Bar = tqdm(total=total, initial=done, desc=what, unit="step", dynamic_ncols=True, disable=hidden)
    return bar


def is_watched() -> bool:
    """Whether standard error is a terminal, or the program is a notebook's cell."""
    return in_notebook() or sys.stderr.isatty()
