"""Everything that a simulation left, verified from every party's side, by their own commands."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import OperationError
from common.verify.report import Outcome, worst
from llmasos.simulation.cores import usable_cores
from llmasos.simulation.deployment import Commands
from llmasos.simulation.layout import Layout

_CODES = {outcome.exit_code for outcome in Outcome}


@dataclass(frozen=True, slots=True)
class Side:
    """One party's verification: its report as JSON."""

    who: str
    report: dict[str, Any]

    @property
    def outcome(self) -> Outcome:
        return Outcome(self.report["result"])

    @property
    def rounds(self) -> str:
        """What was recomputed, in words."""
        return "; ".join(check["examined"] for check in self.report["checks"] if check["name"] == "rounds")

    @property
    def findings(self) -> Iterator[str]:
        for check in self.report["checks"]:
            for finding in check["findings"]:
                yield f"{finding['outcome']}  {self.who}, leaf {finding['leaf']}: {finding['text']}"


@dataclass(frozen=True, slots=True)
class Verification:
    """All parties' reports, the coordinator's first."""

    sides: tuple[Side, ...]

    @property
    def forks(self) -> tuple[str, ...]:
        """Parties that hold as many entries as another, and other ones."""
        roots: dict[int, dict[str, str]] = {}
        for side in self.sides:
            roots.setdefault(side.report["entries"], {})[side.report["root"]] = side.who
        return tuple(
            f"FAILED  {' and '.join(found.values())} hold two histories of {size} entries."
            for size, found in roots.items()
            if len(found) > 1
        )

    @property
    def outcome(self) -> Outcome:
        return worst([*(side.outcome for side in self.sides), *[Outcome.FAILED for _ in self.forks]])

    @property
    def findings(self) -> tuple[str, ...]:
        """What is wrong or could not be verified, with whose side it is."""
        return (*(line for side in self.sides for line in side.findings), *self.forks)


def verify_sides(layout: Layout, commands: Commands | None = None) -> Verification:
    """Each party verifies its own part; participants read the coordinator's blobs beside their own, so that every round can
    be computed again from their side.

    Raises:
        OperationError: a verification ended without a report.
    """
    commands = commands or Commands()
    blobs = ("--blobs", str(layout.coordinator / "blobs"), "--no-fetch")
    asked: list[tuple[str, tuple[str, ...], Path]] = [
        ("coordinator", (*commands.coordinator, "verify"), layout.coordinator)
    ]
    for home in sorted(layout.participant("any").parent.iterdir()):
        asked.append((home.name, (*commands.participant, "verify", *blobs), home))
    with ThreadPoolExecutor(usable_cores()) as pool:
        return Verification(tuple(pool.map(_side, asked)))


def _side(asked: tuple[str, Sequence[str], Path]) -> Side:
    who, command, home = asked
    done = subprocess.run(
        [*command, "--home", str(home), "--format", "json"], capture_output=True, text=True, check=False
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode not in _CODES or not lines:
        raise OperationError(f"The verification of {who} gave no report: {done.stderr.strip()[-400:]}")
    return Side(who, json.loads(lines[-1]))
