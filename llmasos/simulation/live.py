"""Progress on a terminal: one view, redrawn; 80 columns are enough, and NO_COLOR is honoured (rich reads it)."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import IO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from llmasos.simulation.progress import BaselineState, LineProgress, Progress, size
from llmasos.simulation.watch import Participant, Round, RunView

ROUNDS_SHOWN = 10
EVENTS_SHOWN = 4
REDRAWS_PER_SECOND = 4


class LiveProgress:
    """A title, the rounds, the participants or the baselines, and the newest events."""

    def __init__(self, stream: IO[str], elapsed: Callable[[], float], *, title: str) -> None:
        console = Console(file=stream, width=None)
        self._elapsed = elapsed
        self._title = title
        self._stage = ""
        self._events: list[str] = []
        self._view: RunView | None = None
        self._baselines: dict[str, BaselineState] = {}
        self._live = Live(
            console=console, get_renderable=self._render, refresh_per_second=REDRAWS_PER_SECOND, transient=False
        )

    def __enter__(self) -> LiveProgress:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def stage(self, text: str) -> None:
        self._stage = text

    def event(self, text: str) -> None:
        self._events.append(text)

    def run(self, view: RunView) -> None:
        self._view = view

    def baseline(self, state: BaselineState) -> None:
        self._baselines[state.name] = state

    def _render(self) -> RenderableType:
        minutes, seconds = divmod(int(self._elapsed()), 60)
        parts: list[RenderableType] = [Text(f"{self._title}  {minutes:02d}:{seconds:02d}  {self._stage}", style="bold")]
        if self._view is not None:
            parts.append(rounds_table(self._view))
        if self._view is not None and not self._view.ended:
            parts.append(participants_table(self._view.participants))
        if self._baselines:
            parts.append(baselines_table(self._baselines))
        parts.extend(Text(event, style="yellow") for event in self._events[-EVENTS_SHOWN:])
        return Group(*parts)


def _table(*columns: str) -> Table:
    """First column to the left, others to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index == 0 else "right", no_wrap=index > 0, overflow="fold")
    return table


def rounds_table(view: RunView) -> Table:
    """The newest rounds. Perplexity is that of the model that the round started from."""
    table = _table("round", "outcome", "perplexity before", "contributed", "seconds", "up", "down")
    for entry in view.rounds[-ROUNDS_SHOWN:]:
        table.add_row(*_round_cells(entry, view.rounds_planned))
    return table


def _round_cells(entry: Round, planned: int) -> tuple[str, ...]:
    return (
        f"{entry.round}/{planned}" if entry.task == "train" else "final",
        entry.outcome,
        "" if entry.pooled is None else f"{entry.pooled:,.2f}",
        f"{len(entry.contributors)} of {len(entry.cohort)}",
        f"{entry.seconds:.1f}",
        size(entry.bytes_up),
        size(entry.bytes_down),
    )


def participants_table(participants: tuple[Participant, ...]) -> Table:
    table = _table("institution", "activity", "steps", "loss", "tokens/s", "up", "down")
    for entry in participants:
        table.add_row(
            entry.institution,
            entry.state,
            f"{entry.steps_done}/{entry.steps_total}" if entry.steps_total else "",
            "" if entry.loss is None else f"{entry.loss:.3f}",
            f"{entry.tokens_per_second:,.0f}" if entry.tokens_per_second else "",
            size(entry.bytes_up),
            size(entry.bytes_down),
        )
    return table


def baselines_table(baselines: dict[str, BaselineState]) -> Table:
    table = _table("for comparison", "steps", "loss")
    for state in baselines.values():
        steps = f"{state.steps_done}/{state.steps_total}" if state.steps_total else ""
        table.add_row(state.name, "done" if state.done else steps, "" if state.loss is None else f"{state.loss:.3f}")
    return table


def open_progress(stream: IO[str], elapsed: Callable[[], float], *, title: str) -> Progress:
    """A live table where `stream` is a terminal that can show one, else lines."""
    if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return LiveProgress(stream, elapsed, title=title)
    return LineProgress(stream, elapsed)
