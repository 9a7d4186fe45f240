"""`run watch` for people: one line an event, so that it reads the same on a terminal, in a pipe and in a log."""

from __future__ import annotations

import math

from common.terminal import Terminal
from coordinator.ports import ParticipantView, RoundView, RunView


class Watcher:
    """Prints what changed since the view before."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._phase = ""
        self._states: dict[str, str] = {}
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
            state = participant.state
            if self._states.get(participant.institution) != state:
                self._states[participant.institution] = state
                self._say(f"{where}  {participant.institution:<20} {_participant_line(participant)}")
        for refusal in view.refusals:
            if refusal.index not in self._refusals:
                self._refusals.add(refusal.index)
                self._say(
                    f"refused  {refusal.institution}: {refusal.code} ({refusal.attribution}, ledger {refusal.index})"
                )
        if view.phase != self._phase:
            self._phase = view.phase
            self._say(f"{view.run}  {view.phase}" + (f": {view.end_reason}" if view.end_reason else ""))

    def _say(self, line: str) -> None:
        self._terminal.result(line, data=line)


def _participant_line(view: ParticipantView) -> str:
    parts = [view.state]
    if view.reasons:
        parts.append(" ".join(view.reasons))
    if view.steps_total:
        parts.append(f"{view.steps_done}/{view.steps_total} steps")
    if view.tokens_per_second:
        parts.append(f"{view.tokens_per_second:,.0f} tokens/s")
    return "  ".join(parts)


def _closed_line(record: RoundView) -> str:
    text = f"round {record.round} {record.outcome} ({record.task}, {record.reason}) "
    text += f"{len(record.contributors)}/{len(record.cohort)} in {record.seconds:.1f} s, "
    text += f"{(record.bytes_down + record.bytes_up) / 1e6:,.1f} MB"
    for entry in record.evaluations:
        if entry.scope == "pooled" and entry.num_tokens:
            text += (
                f"; base model's perplexity {math.exp(min(700.0, entry.loss_sum_fixed / 65536 / entry.num_tokens)):.2f}"
            )
    return text
