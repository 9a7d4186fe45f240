"""Live progress on standard error: a table on a terminal, else one line an event.

Both forms show the same: stages, rounds, each participant's activity, steps, loss, tokens a second and bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Protocol

from llmasos.simulation.watch import Participant, Round, RunView

TOLD_STATES = frozenset({"refused", "training", "contributed", "late", "silent"})
"""States of a participant worth a line of a log; a terminal shows all."""
NAMES_TOLD = 32
UNITS = ("B", "kB", "MB", "GB", "TB")


@dataclass(frozen=True, slots=True)
class BaselineState:
    """A training without a federation, as far as it has come. `loss` is its newest step's, nats."""

    name: str
    steps_done: int = 0
    steps_total: int = 0
    loss: float | None = None
    done: bool = False


class Progress(Protocol):
    """Where a simulation says how far it is."""

    def __enter__(self) -> Progress: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def stage(self, text: str) -> None:
        """A new part of the work begins."""
        ...

    def event(self, text: str) -> None:
        """Something happened that a person should know of."""
        ...

    def run(self, view: RunView) -> None:
        """The run's newest view."""
        ...

    def baseline(self, state: BaselineState) -> None:
        """A baseline's newest state."""
        ...


class LineProgress:
    """One line an event: for logs and pipes."""

    def __init__(self, stream: IO[str], elapsed: Callable[[], float]) -> None:
        self._stream = stream
        self._elapsed = elapsed
        self._view: RunView | None = None
        self._baselines: dict[str, BaselineState] = {}

    def __enter__(self) -> LineProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.flush()

    def stage(self, text: str) -> None:
        self._line(text)

    def event(self, text: str) -> None:
        self._line(text)

    def run(self, view: RunView) -> None:
        for text in changes(self._view, view):
            self._line(text)
        self._view = view

    def baseline(self, state: BaselineState) -> None:
        before = self._baselines.get(state.name)
        self._baselines[state.name] = state
        if before is None or state.done:
            self._line(f"{state.name}: " + (f"{state.steps_done} steps done" if state.done else "training"))

    def _line(self, text: str) -> None:
        self._stream.write(f"{self._elapsed():7.1f} s  {text}\n")
        self._stream.flush()


def changes(before: RunView | None, now: RunView) -> Iterator[str]:
    """What happened between two views, one line each."""
    states = {entry.institution: entry.state for entry in before.participants} if before else {}
    outcomes: Mapping[int, str] = {entry.round: entry.outcome for entry in before.rounds} if before else {}
    told_refusals = len(before.refusals) if before else 0
    if before is None:
        yield f"run {now.run}: {now.rounds_planned} rounds planned"
    for entry in now.rounds:
        if entry.round not in outcomes:
            yield f"round {entry.round} opened to {names(entry.cohort)}: {entry.task}"
    for participant in now.participants:
        if participant.state in TOLD_STATES and participant.state != states.get(participant.institution):
            yield describe_participant(participant)
    for refusal in now.refusals[told_refusals:]:
        yield f"refusal {refusal.code}: {refusal.institution}, round {refusal.round}"
    for entry in now.rounds:
        if entry.outcome != "open" and outcomes.get(entry.round) in {None, "open"}:
            yield describe_round(entry)
    if now.ended and not (before and before.ended):
        yield f"run {now.run} ended: {now.end_reason}"


def names(cohort: tuple[str, ...]) -> str:
    """All of them, or how many, where that is more than a line."""
    return ", ".join(cohort) if len(cohort) <= NAMES_TOLD else f"{len(cohort):,} institutions"


def describe_participant(entry: Participant) -> str:
    """`tools: contributed, 25/25 steps, loss 4.312, 910 tokens/s`."""
    parts = [entry.state]
    if entry.reasons:
        parts.append(f"({', '.join(entry.reasons)})")
    if entry.steps_done:
        parts.append(f"{entry.steps_done}/{entry.steps_total} steps")
    if entry.loss is not None and entry.steps_done:
        parts.append(f"loss {entry.loss:.3f}")
    if entry.tokens_per_second and entry.steps_done:
        parts.append(f"{entry.tokens_per_second:,.0f} tokens/s")
    return f"{entry.institution}: {', '.join(parts)}"


def describe_round(entry: Round) -> str:
    """`round 3 committed: 4 of 4 contributed, started from perplexity 24.10, 9.2 s, 2.1 MB up, 8.4 MB down`."""
    measured = f", started from perplexity {entry.pooled:,.2f}" if entry.pooled is not None else ""
    reason = f" ({entry.reason})" if entry.outcome == "abandoned" and entry.reason else ""
    return (
        f"round {entry.round} {entry.outcome}{reason}: {len(entry.contributors)} of {len(entry.cohort)} contributed"
        f"{measured}, {entry.seconds:.1f} s, {size(entry.bytes_up)} up, {size(entry.bytes_down)} down"
    )


def size(count: float) -> str:
    """Bytes with a decimal unit: `2.1 MB`."""
    for unit in UNITS[:-1]:
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} {UNITS[-1]}"
