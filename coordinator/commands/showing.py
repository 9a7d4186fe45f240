"""`run list` and `run show` for people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, tzinfo
from textwrap import wrap

from rich.table import Table

from common.terminal import WIDTH, printable, table
from coordinator.commands.formats import (
    bytes_text,
    duration_text,
    moment_text,
    perplexity,
    pooled,
    refusal_text,
    state_text,
)
from coordinator.ports import ParticipantView, RoundView, RunView

ROUNDS_SHOWN = 40
LABEL = 8


def runs_table(views: Sequence[RunView]) -> Table:
    """Every run, one line each."""
    rows = [
        [
            view.run,
            view.plan_name,
            view.phase,
            f"{view.round}/{view.rounds_planned + 1}",
            _newest_perplexity(view),
            view.end_reason,
        ]
        for view in views
    ]
    columns = ["RUN", "PLAN", "PHASE", "ROUND", "PERPLEXITY", "ENDED"]
    return table(columns, rows, right=frozenset({"ROUND", "PERPLEXITY"}))


def run_text(view: RunView, now: datetime, zone: tzinfo | None = None) -> str:
    """A run in full: plan, cohort, rounds, refusals."""
    lines = _labelled("run", view.run) + _labelled("plan", f"{view.plan_name}, {view.rounds_planned} training rounds")
    lines += _labelled("quorum", f"{view.quorum} contributions")
    lines += _labelled("version", f"{view.protocol_version} of the protocol")
    lines += _labelled("phase", view.phase + (f": {view.end_reason}" if view.end_reason else ""))
    if view.opened_at and view.deadline:
        opened, until = (moment_text(each, now=now, zone=zone) for each in (view.opened_at, view.deadline))
        lines += _labelled("round", f"{view.round}, opened {opened}, deadline {until}")
    if view.rounds:
        lines += _labelled("cohort", " ".join(view.rounds[-1].cohort))
    if view.eta_seconds:
        lines += _labelled("left", f"about {duration_text(view.eta_seconds)}")
    if view.model is not None:
        lines += _labelled("model", f"{view.model.algorithm}:{view.model.root}")
        lines += _labelled("", bytes_text(view.model.size))
    people = [_participant(each, now, zone) for each in view.participants]
    lines += ["", "Institutions", *(people or ["  none is enrolled as a trainer"])]
    lines += ["", *_rounds(view.rounds)]
    if view.refusals:
        lines += ["", "Refusals"]
        for refusal in view.refusals:
            text = printable(f"{refusal.institution}: {refusal_text(refusal)}")
            lines += wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    ")
    return "\n".join(line.rstrip() for line in lines)


def _participant(view: ParticipantView, now: datetime, zone: tzinfo | None) -> str:
    text = f"  {view.institution:<20} {state_text(view, now=now, zone=zone)}"
    return printable(f"{text}: {' '.join(view.reasons)}" if view.reasons else text)


def _rounds(rounds: Sequence[RoundView]) -> list[str]:
    if not rounds:
        return ["No round was opened yet."]
    lines = [f"{'ROUND':>5}  {'TASK':<8}  {'OUTCOME':<9}  {'IN':>7}  {'TOOK':>10}  {'BYTES':>9}  {'PERPLEXITY':>10}"]
    if len(rounds) > ROUNDS_SHOWN:
        lines.append(f"  ... {len(rounds) - ROUNDS_SHOWN} before; all of them with --format json")
    for record in rounds[-ROUNDS_SHOWN:]:
        measured = pooled(record)
        taken = duration_text(record.seconds) if record.outcome != "open" else ""
        lines.append(
            f"{record.round:>5}  {record.task:<8}  {record.outcome:<9}  "
            f"{f'{len(record.contributors)}/{len(record.cohort)}':>7}  {taken:>10}  "
            f"{bytes_text(record.bytes_down + record.bytes_up):>9}  {'-' if measured is None else f'{measured:.2f}':>10}"
        )
        if record.outcome == "abandoned":
            lines.append(f"         abandoned: {record.reason}")
        if len(record.evaluations) > 1:
            each = ", ".join(
                f"{one.scope} {perplexity(one):.2f}" for one in record.evaluations if one.scope != "pooled"
            )
            lines += wrap(each, WIDTH, initial_indent="         ", subsequent_indent="         ")
    lines.append("Perplexity is of the model that a round started from, pooled over institutions.")
    return lines


def _newest_perplexity(view: RunView) -> str:
    found = (pooled(record) for record in reversed(view.rounds))
    return next((f"{value:.1f}" for value in found if value is not None), "-")


def _labelled(label: str, text: str) -> list[str]:
    indent = " " * LABEL
    return wrap(printable(text), WIDTH, initial_indent=f"{label:<{LABEL}}", subsequent_indent=indent)
