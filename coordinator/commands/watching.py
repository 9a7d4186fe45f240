"""`run watch` where nobody looks at a terminal: one line an event, so that it reads the same in a pipe and in a log."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, tzinfo

from common.terminal import Terminal
from coordinator.commands.formats import bytes_text, pooled, refusal_text, state_text, transfer_text
from coordinator.ports import ParticipantView, RoundView, RunView

LONG_SECONDS = 60.0
"""A transfer that takes longer has a line for each quarter."""


class Watcher:
    """Prints what changed since the view before."""

    def __init__(self, terminal: Terminal, now: Callable[[], datetime], zone: tzinfo | None = None) -> None:
        self._terminal = terminal
        self._now, self._zone = now, zone
        self._phase = ""
        self._states: dict[str, tuple[str, str, int]] = {}
        self._closed: set[int] = set()
        self._refusals: set[int] = set()

    def show(self, view: RunView) -> None:
        """Print every event of this view that was not printed yet."""
        where = f"round {view.round}/{view.rounds_planned + 1}"
        for record in view.rounds:
            if record.outcome != "open" and record.round not in self._closed:
                self._closed.add(record.round)
                self._say(_closed_line(record))
        for participant in view.participants:
            before = self._states.get(participant.institution, ("", "", 0))
            again = before[2] if before[0] == participant.state else 0
            state = (participant.state, participant.available_at, max(again, _quarter(participant)))
            if before != state:
                self._states[participant.institution] = state
                self._say(f"{where}  {participant.institution:<20} {self._participant_line(participant)}")
        for refusal in view.refusals:
            if refusal.index not in self._refusals:
                self._refusals.add(refusal.index)
                self._say(f"refused  {refusal.institution}: {refusal_text(refusal)}")
        if view.phase != self._phase:
            self._phase = view.phase
            self._say(f"{view.run}  {view.phase}" + (f": {view.end_reason}" if view.end_reason else ""))

    def _say(self, line: str) -> None:
        self._terminal.result(line, data=line)

    def _participant_line(self, view: ParticipantView) -> str:
        parts = [state_text(view, now=self._now(), zone=self._zone)]
        if view.reasons:
            parts.append(" ".join(view.reasons))
        if view.transfer is not None:
            return "  ".join([*parts, transfer_text(view.transfer)])
        if view.steps_total:
            parts.append(f"{view.steps_done}/{view.steps_total} steps")
        if view.tokens_per_second:
            parts.append(f"{view.tokens_per_second:,.0f} tokens/s")
        return "  ".join(parts)


def _quarter(view: ParticipantView) -> int:
    """How many quarters of a transfer are done, where it takes long enough to be worth a line each."""
    moving = view.transfer
    if moving is None or moving.bytes_total < LONG_SECONDS * moving.bytes_per_second or not moving.bytes_per_second:
        return 0
    return 4 * moving.bytes_done // moving.bytes_total


def _closed_line(record: RoundView) -> str:
    text = f"round {record.round} {record.outcome} ({record.task}, {record.reason}) "
    text += f"{len(record.contributors)}/{len(record.cohort)} in {record.seconds:.1f} s, "
    text += bytes_text(record.bytes_down + record.bytes_up)
    measured = pooled(record)
    return text + (f"; base model's perplexity {measured:.2f}" if measured is not None else "")
