"""`run watch` on a terminal: one panel that stays in place, at most 80 columns of plain characters.

    tiny-3f2a90  collecting                              round 3 of 8 (train)
    opened 10:02, 41 s ago; deadline 11:02; about 6 min left    3 of 4 in, quorum 3

    east        contributed
    north       training   [######----]  15/25    1,204 tokens/s  12.1 MB
    south       outside-hours until 18:00

    perplexity  41.2 |*
                     |  *
                23.9 |    * *
    refused     north: contribution refused: non-finite-delta (usually a bug), …

It uses no colour and nothing dim, so it reads on light and dark backgrounds alike. What it shows is decided by `panel_lines`,
a pure function of view, clock and width; rich only puts it on the screen again and again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, tzinfo
from textwrap import wrap
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from common.clock import parse_rfc3339
from common.terminal import WIDTH, printable
from coordinator.commands.formats import (
    LOSS_SCALE,
    bytes_text,
    curve,
    duration_text,
    moment_text,
    perplexity,
    pooled,
    refusal_text,
    state_text,
    steps_bar,
    transfer_text,
)
from coordinator.ports import ParticipantView, RunView

REFRESH_PER_SECOND = 2.0
INSTITUTIONS_SHOWN = 16
REFUSALS_SHOWN = 3
CURVE_LINES = 5
BAR = 12
LABEL = 12
"""Width of the left column."""
_ORDER = ("silent", "training", "evaluating", "preparing", "fetching", "sending", "waiting", "idle")


class LivePanel:
    """The panel on a terminal, while inside; the last state stays there afterwards."""

    def __init__(self, console: Console, now: Callable[[], datetime], zone: tzinfo | None = None) -> None:
        self._console = console
        self._now, self._zone = now, zone
        self._view: RunView | None = None
        self._live = Live(
            console=console,
            get_renderable=self._renderable,
            refresh_per_second=REFRESH_PER_SECOND,
            vertical_overflow="ellipsis",
        )

    def show(self, view: RunView) -> None:
        """This view from now on."""
        self._view = view

    def say(self, text: str) -> None:
        """One line above the panel."""
        self._console.print(Text(printable(text)))

    def _renderable(self) -> RenderableType:
        if self._view is None:
            return Text("waiting for the coordinator")
        lines = panel_lines(self._view, self._now(), width=min(WIDTH, self._console.width), zone=self._zone)
        text = Text("\n".join(lines), no_wrap=True, overflow="crop")
        text.stylize("bold", 0, len(lines[0]))
        return text

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()


def panel_lines(view: RunView, now: datetime, *, width: int, zone: tzinfo | None = None) -> list[str]:
    """The panel's lines, none longer than `width`.

    Args:
        zone: whose clock people read; None: this machine's.
    """
    lines = [_title(view, width), *_progress(view, now, zone), ""]
    lines += _institutions(view, now, zone)
    lines += _curve(view, width)
    lines += _losses(view)
    lines += _refusals(view, width)
    return [printable(line)[:width].rstrip() for line in lines]


def _title(view: RunView, width: int) -> str:
    task = next((record.task for record in reversed(view.rounds) if record.round == view.round), "")
    right = f"round {view.round} of {view.rounds_planned + 1}" + (f" ({task})" if task else "")
    left = f"{view.run}  {view.phase}" + (f": {view.end_reason}" if view.end_reason else "")
    return f"{left}{right:>{max(len(right) + 2, width - len(left))}}"


def _progress(view: RunView, now: datetime, zone: tzinfo | None) -> list[str]:
    parts = []
    if view.opened_at and view.deadline:
        since = max(0.0, (now - parse_rfc3339(view.opened_at)).total_seconds())
        parts.append(f"opened {moment_text(view.opened_at, now=now, zone=zone)}, {duration_text(since)} ago")
        parts.append(f"deadline {moment_text(view.deadline, now=now, zone=zone)}")
    if view.eta_seconds:
        parts.append(f"about {duration_text(view.eta_seconds)} left")
    counted = _counted(view)
    return [line for line in ("; ".join(parts), counted) if line]


def _counted(view: RunView) -> str:
    """How many answered, or contributed, against the quorum."""
    current = next((record for record in view.rounds if record.outcome == "open"), None)
    if current is not None:
        return (
            f"{len(current.contributors)} of {len(current.cohort)} contributed, quorum {view.quorum}; "
            f"{bytes_text(current.bytes_down)} fetched, {bytes_text(current.bytes_up)} sent"
        )
    if view.phase == "answering":
        accepted = sum(participant.state == "accepted" for participant in view.participants)
        answered = sum(participant.state != "asked" for participant in view.participants)
        return f"{answered} of {len(view.participants)} answered, {accepted} accepted, quorum {view.quorum}"
    return ""


# --- institutions --------------------------------------------------------------------------------------------------------


def _institutions(view: RunView, now: datetime, zone: tzinfo | None) -> list[str]:
    shown, rest = _chosen(view.participants)
    column = min(24, max((len(each.institution) for each in shown), default=0)) + 1
    lines = [_institution(each, column, now, zone) for each in shown]
    if rest:
        states = Counter(each.state for each in rest)
        counts = ", ".join(f"{count} {state}" for state, count in states.most_common())
        lines.append(f"and {len(rest)} more: {counts}")
    return lines


def _chosen(participants: Sequence[ParticipantView]) -> tuple[list[ParticipantView], list[ParticipantView]]:
    """Those that get a line, and the others: whoever is at work, or missed, comes first where not all fit."""
    if len(participants) <= INSTITUTIONS_SHOWN:
        return list(participants), []
    rank = {state: position for position, state in enumerate(_ORDER)}
    ranked = sorted(participants, key=lambda each: (rank.get(each.state, len(rank)), each.institution))
    return ranked[: INSTITUTIONS_SHOWN - 1], ranked[INSTITUTIONS_SHOWN - 1 :]


def _institution(view: ParticipantView, column: int, now: datetime, zone: tzinfo | None) -> str:
    name = view.institution if len(view.institution) < column else f"{view.institution[: column - 2]}~"
    text = f"{name:<{column}} {state_text(view, now=now, zone=zone):<12}"
    if view.reasons:
        return f"{text} {' '.join(view.reasons)}"
    if view.transfer is not None:
        return f"{text} {transfer_text(view.transfer)}"
    if view.steps_total and not view.available_at:
        bar = steps_bar(view.steps_done, view.steps_total, BAR)
        text += f" {bar} {f'{view.steps_done}/{view.steps_total}':>9}"
    if view.tokens_per_second:
        text += f" {view.tokens_per_second:>8,.0f} tok/s"
    if view.bytes_down or view.bytes_up:
        text += f" {bytes_text(view.bytes_down + view.bytes_up):>9}"
    return text


# --- what was measured and refused ---------------------------------------------------------------------------------------


def _curve(view: RunView, width: int) -> list[str]:
    """Pooled perplexity of the models that rounds started from, and of the last one."""
    values = [value for record in view.rounds if (value := pooled(record)) is not None]
    chart = curve(values, width=width - LABEL, height=CURVE_LINES)
    if not chart:
        return ["", f"{'perplexity':<{LABEL}}{values[-1]:.2f} pooled"] if values else []
    last = f"{'':<{LABEL}}{values[-1]:.2f} now, {values[0]:.2f} at first; pooled over institutions"
    return ["", *(f"{'perplexity' if row == 0 else '':<{LABEL}}{line}" for row, line in enumerate(chart)), last]


def _losses(view: RunView) -> list[str]:
    """Single institutions' perplexities; the coordinator sends them only where the plan's visibility is `institution`."""
    newest = next((record for record in reversed(view.rounds) if len(record.evaluations) > 1), None)
    training = [
        f"{each.institution} {each.loss_fixed / LOSS_SCALE:.3f}"
        for each in view.participants
        if each.loss_fixed is not None and each.state == "training"
    ]
    lines = []
    if newest is not None:
        each = ", ".join(
            f"{entry.scope} {perplexity(entry):.2f}" for entry in newest.evaluations if entry.scope != "pooled"
        )
        lines += _labelled("of each", f"{each} (round {newest.round})")
    if training:
        lines += _labelled("train loss", ", ".join(training))
    return lines


def _refusals(view: RunView, width: int) -> list[str]:
    if not view.refusals:
        return []
    lines = [""]
    for refusal in view.refusals[-REFUSALS_SHOWN:]:
        lines += _labelled("refused", f"{refusal.institution}: {refusal_text(refusal)}", width)
    if len(view.refusals) > REFUSALS_SHOWN:
        lines.append(f"{'':<{LABEL}}and {len(view.refusals) - REFUSALS_SHOWN} before; see `run show`")
    return lines


def _labelled(label: str, text: str, width: int = WIDTH) -> list[str]:
    return wrap(text, width, initial_indent=f"{label:<{LABEL}}", subsequent_indent=" " * LABEL)
