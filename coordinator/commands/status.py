"""llmasos-coordinator status: how the coordinator itself is."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

from common.clock import SystemClock, parse_rfc3339
from common.terminal import FormatOption, HomeOption, OutputFormat, Terminal, resolve_home
from coordinator.commands.connection import operator_session
from coordinator.commands.formats import bytes_text, duration_text
from coordinator.ports import CoordinatorStatus

LABEL = 14
CLOCKS_DIFFER_SECONDS = 5.0


def status(home: HomeOption = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """Show ledger, members, disk, certificates, clock."""
    with operator_session(resolve_home(home, "coordinator")) as session:
        found = session.status()
        address = session.address
    text = status_text(found, address, SystemClock().now())
    Terminal(output).result(text, data={**asdict(found), "work_address": address}, quiet="running")


def status_text(found: CoordinatorStatus, address: str, here: datetime) -> str:
    """For people, at most 80 columns."""
    now = parse_rfc3339(found.now)
    rows = [
        ("consortium", found.consortium),
        ("fingerprint", found.fingerprint),
        ("address", address),
        ("release", f"{found.version}, running for {_since(found.started_at, now)}"),
        *([("recovering", found.recovering)] if found.recovering else []),
        ("ledger", f"{found.ledger_size:,} statements"),
        ("members", f"{found.members_active} active, {found.trainers_connected} trainers seen in the last minute"),
        ("runs", f"{found.runs_active} active"),
        ("calls", f"{found.open_calls} in progress"),
        ("blobs", f"{bytes_text(found.blob_bytes)}, {bytes_text(found.disk_free_bytes)} free"),
        ("certificate", f"until {_until(found.certificate_expires_at, now)}"),
        ("authority", f"until {_until(found.authority_expires_at, now)}"),
        ("clock", _clock(now, here)),
    ]
    return "\n".join(f"{label:<{LABEL}}{text}" for label, text in rows)


def _since(text: str, now: datetime) -> str:
    return duration_text(max(0.0, (now - parse_rfc3339(text)).total_seconds()))


def _until(text: str, now: datetime) -> str:
    left = (parse_rfc3339(text) - now).total_seconds()
    return f"{text[:10]}, " + (f"in {left / 86400:,.0f} days" if left > 0 else "EXPIRED")


def _clock(now: datetime, here: datetime) -> str:
    differs = abs((now - here).total_seconds())
    note = f", {duration_text(differs)} apart from this machine's" if differs > CLOCKS_DIFFER_SECONDS else ""
    return f"{now:%Y-%m-%d %H:%M:%S} UTC{note}"
