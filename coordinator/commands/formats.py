"""How the operator's commands write numbers, times and states: plain ASCII, the same on any terminal and in a log."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, tzinfo
from typing import Any

from common.clock import parse_rfc3339
from common.errors import UsageError
from common.wire.messages import TransferProgress
from common.wire.pacing import BYTES_PER_MBIT
from coordinator.ports import EvaluationView, ParticipantView, RefusalView, RoundView, RunView
from coordinator.watching import wording

LOSS_SCALE = 65536
"""Losses are integers: nats × 2^16."""
DIGEST_SHOWN = 16
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def as_data(view: RunView) -> dict[str, Any]:
    """A run's view as JSON."""
    data = asdict(view)
    data["model"] = view.model.model_dump() if view.model else None
    return data


# --- numbers ------------------------------------------------------------------------------------------------------------


def perplexity(entry: EvaluationView) -> float:
    """exp of the mean loss in nats."""
    return math.exp(min(700.0, entry.loss_sum_fixed / LOSS_SCALE / entry.num_tokens)) if entry.num_tokens else math.inf


def pooled(record: RoundView) -> float | None:
    """Perplexity over all institutions' held-out text of the model that a round started from, where it is shown."""
    return next(
        (perplexity(entry) for entry in record.evaluations if entry.scope == "pooled" and entry.num_tokens), None
    )


def bytes_text(count: float) -> str:
    """`1.2 MB`, in powers of ten."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def duration_text(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 20 min`, `2 d 4 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h"


def transfer_text(transfer: TransferProgress) -> str:
    """`30 % of 400.0 MB, 38 Mbit/s, 12 min left`."""
    share = 100 * transfer.bytes_done // transfer.bytes_total if transfer.bytes_total else 100
    parts = [f"{share} % of {bytes_text(transfer.bytes_total)}"]
    if transfer.bytes_per_second:
        parts.append(f"{transfer.bytes_per_second / BYTES_PER_MBIT:,.3g} Mbit/s")
    if transfer.eta_seconds:
        parts.append(f"{duration_text(transfer.eta_seconds)} left")
    return ", ".join(parts)


def parse_duration(text: str, option: str) -> float:
    """Seconds of `90s`, `30m`, `2h`, `7d`.

    Raises:
        UsageError: it is none; names the option.
    """
    match = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if match is None or int(match[1]) == 0:
        raise UsageError(f"{option} is {text!r}, expected a number and s, m, h or d, such as 2h.")
    return int(match[1]) * _SECONDS[match[2]]


# --- times --------------------------------------------------------------------------------------------------------------


def moment_text(text: str, *, now: datetime, zone: tzinfo | None = None) -> str:
    """`18:00`, or `Jan 3 18:00` where that is another day.

    Args:
        text: RFC 3339.
        zone: whose clock people read; None: this machine's.
    """
    try:
        moment = parse_rfc3339(text).astimezone(zone)
    except ValueError:
        return text
    if moment.date() == now.astimezone(zone).date():
        return f"{moment:%H:%M}"
    return f"{moment:%b} {moment.day} {moment:%H:%M}"


# --- states -------------------------------------------------------------------------------------------------------------


def state_text(view: ParticipantView, *, now: datetime, zone: tzinfo | None = None) -> str:
    """`training`, `outside-hours until 18:00`."""
    if not view.available_at:
        return view.state
    return f"{view.state} until {moment_text(view.available_at, now=now, zone=zone)}"


def steps_bar(done: int, total: int, width: int) -> str:
    """`[####----]`; empty where there is nothing to count."""
    if total <= 0:
        return ""
    filled = min(width, width * done // total)
    return f"[{'#' * filled}{'-' * (width - filled)}]"


def refusal_text(view: RefusalView) -> str:
    """What was refused, in neutral words, and where the evidence is."""
    text = wording.refused(view.code, round_number=view.round)
    where = f"round {view.round}, " if view.round else ""
    text += f", {where}{wording.attributed(view.attribution, view.institution)}, ledger {view.index}"
    return text + (f", sha256 {view.refused_sha256[:DIGEST_SHOWN]}" if view.refused_sha256 else "")


# --- a curve ------------------------------------------------------------------------------------------------------------


def curve(values: Sequence[float], *, width: int, height: int) -> list[str]:
    """Lines of a small chart, highest value on top, with its scale on the left, which is logarithmic: perplexities begin high.

    Args:
        values: finite and positive, in order; fewer than two give no chart, more than fit are thinned.
        width: columns, the scale's included.
        height: lines.
    """
    shown = [value for value in values if 0 < value < math.inf]
    labels = [f"{max(shown):.1f}", f"{min(shown):.1f}"] if shown else []
    left = max(map(len, labels), default=0)
    columns = width - left - 2
    if len(shown) < 2 or columns < 2:
        return []
    shown = _thinned(shown, columns)
    logs = [math.log(value) for value in shown]
    low, high = min(logs), max(logs)
    rows = [round((value - low) / (high - low) * (height - 1)) if high > low else 0 for value in logs]
    lines = []
    for row in range(height - 1, -1, -1):
        label = labels[0] if row == height - 1 else labels[1] if row == 0 else ""
        lines.append(f"{label:>{left}} |" + "".join("*" if at == row else " " for at in rows).rstrip())
    return lines


def _thinned(values: Sequence[float], columns: int) -> list[float]:
    """At most `columns` values: the first, the last, and evenly spread ones between them."""
    if len(values) <= columns:
        return list(values)
    return [values[round(index * (len(values) - 1) / (columns - 1))] for index in range(columns)]
