"""`run start --dry-run`: ask the institutions, measure a few steps where torch is, and say what the run would cost.

Nothing is sent but the inquiry, and nothing is appended to the ledger.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from textwrap import wrap
from typing import Any

from common.clock import Clock
from common.statements.kinds import PlanStatement
from common.terminal import WIDTH, Terminal, printable
from coordinator.api.client import OperatorSession
from coordinator.commands.forecast import Forecast, InstitutionForecast, Measurement, Measuring, forecast
from coordinator.commands.formats import bytes_text, duration_text

MEASURE_SECONDS = 900.0
ACCEPTED, TOO_FEW = 0, 3
LABEL = 12


def dry_run(
    session: OperatorSession, draft: PlanStatement, text: bytes, measuring: Measuring, wait_seconds: float, clock: Clock
) -> Forecast:
    """Asks every institution and puts the answers together.

    Raises:
        MalformedStatement, TooManyRequests, CoordinatorUnreachable: from the coordinator.
    """
    estimates = session.inquire(text, wait_seconds=wait_seconds)
    free = session.status().disk_free_bytes
    return forecast(draft, estimates, measuring, free, clock.now())


def measure(prepared: Path, steps: int, terminal: Terminal) -> Measuring:
    """Runs `llmasos plan measure` as a process: training is not this program's to import."""
    if steps == 0:
        return Measuring(reason="--measure-steps is 0")
    if any(find_spec(package) is None for package in ("llmasos", "torch", "transformers")):
        return Measuring(reason="torch is not installed here: pip install 'llmasos[train]'")
    terminal.progress(f"measuring {steps} steps on this machine")
    command = [sys.executable, "-m", "llmasos.cli", "plan", "measure", str(prepared), "--steps", str(steps)]
    try:
        done = subprocess.run(
            [*command, "--format", "json"], capture_output=True, text=True, timeout=MEASURE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Measuring(reason=f"{steps + 1} steps took longer than {duration_text(MEASURE_SECONDS)}")
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        return Measuring(reason=f"`llmasos plan measure` failed: {said[0] if said else f'exit {done.returncode}'}")
    return _measurement(done.stdout)


def _measurement(text: str) -> Measuring:
    try:
        found = json.loads(text)
        return Measuring(
            Measurement(
                device=str(found["device"]),
                seconds_per_round=float(found["seconds_per_round"]),
                tokens_per_second=float(found["tokens_per_second"]),
                peak_memory_bytes=int(found["peak_memory_bytes"]),
                peak_device_bytes=int(found["peak_device_bytes"]),
            )
        )
    except (ValueError, KeyError, TypeError) as err:
        return Measuring(reason=f"`llmasos plan measure` printed something else than a measurement: {err}")


def exit_code(found: Forecast) -> int:
    """0 where enough would accept or ask, else 3."""
    return ACCEPTED if found.enough else TOO_FEW


def as_data(found: Forecast) -> dict[str, Any]:
    """The forecast as JSON."""
    return {**asdict(found), "enough": found.enough}


def in_words(found: Forecast) -> str:
    """The forecast for people, at most 80 columns."""
    lines = [
        f"{found.run}: {found.rounds} rounds, quorum {found.quorum}. Nothing was started.",
        "",
        *_table(found.institutions),
        "",
    ]
    lines += _facts(found)
    if found.warnings:
        lines += ["", "Warnings"]
        for warning in found.warnings:
            lines += wrap(printable(warning), WIDTH, initial_indent="  - ", subsequent_indent="    ")
    lines += ["", _verdict(found)]
    return "\n".join(line.rstrip() for line in lines)


def _table(institutions: tuple[InstitutionForecast, ...]) -> list[str]:
    if not institutions:
        return ["No institution is enrolled as a trainer.", "Next: llmasos-coordinator institution invite NAME"]
    column = max(len("INSTITUTION"), *(len(each.institution) for each in institutions))
    indent = " " * min(column + 2, 26)
    lines = [f"{'INSTITUTION':<{column}}  {'WOULD':<7}  A ROUND"]
    for each in institutions:
        lines.append(f"{each.institution:<{column}}  {each.verdict:<7}  {_round_text(each)}")
        for label, values in (("codes: ", each.codes), ("available: ", each.availability)):
            if values:
                text = printable(label + ", ".join(values))
                lines += wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ")
    return lines


def _round_text(each: InstitutionForecast) -> str:
    if each.verdict in {"silent", "refuse"}:
        return "-"
    if not each.seconds_per_round:
        return "unknown"
    return duration_text(each.seconds_per_round) + (
        ", measured there" if each.measured_there else ", as on this machine"
    )


def _facts(found: Forecast) -> list[str]:
    traffic, measured = found.traffic, found.measurement
    rows = [
        (
            "a round",
            f"each of {found.cohort} institutions fetches {bytes_text(traffic.round_down)} and sends "
            f"{bytes_text(traffic.round_up)}"
            + (f"; the first fetches {bytes_text(traffic.model)}" if traffic.round_down < traffic.model else ""),
        ),
        (
            "in all",
            f"an institution fetches {bytes_text(traffic.institution_down)}, sends {bytes_text(traffic.institution_up)}; "
            f"the coordinator sends {bytes_text(traffic.coordinator_down)}, takes {bytes_text(traffic.coordinator_up)}",
        ),
        ("disk", f"{bytes_text(found.disk_bytes)} at the coordinator, {bytes_text(found.disk_free_bytes)} free"),
        (
            "memory",
            f"coordinator under {bytes_text(found.coordinator_memory_bytes)}, whatever the model; "
            + (
                f"a worker {bytes_text(found.worker_memory_bytes)}, measured"
                if found.worker_memory_measured
                else f"a worker {bytes_text(found.worker_memory_bytes)} and its activations, not measured"
            ),
        ),
    ]
    if measured is not None:
        device = f", {bytes_text(measured.peak_device_bytes)} of its memory" if measured.peak_device_bytes else ""
        rows.append(
            (
                "measured",
                f"{duration_text(measured.seconds_per_round)} of training a round here ({printable(measured.device)}{device}, "
                f"{measured.tokens_per_second:,.0f} tokens/s)",
            )
        )
    else:
        rows.append(("measured", f"not on this machine: {printable(found.not_measured)}"))
    if found.seconds:
        text = f"about {duration_text(found.seconds)} of training with the slowest, without transfers and evaluation"
    else:
        text = "unknown: nobody measured"
    rows.append(("time", text))
    lines = []
    for label, text in rows:
        lines += wrap(text, WIDTH, initial_indent=f"{label:<{LABEL}}", subsequent_indent=" " * LABEL)
    return lines


def _verdict(found: Forecast) -> str:
    word = "Enough" if found.enough else "Too few"
    return f"{word}: {found.accept} would accept, {found.ask} would ask, quorum {found.quorum}."
