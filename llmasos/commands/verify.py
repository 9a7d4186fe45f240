"""`llmasos verify FOLDER`: everything that a simulation left, verified from every party's side, by their own commands."""

from __future__ import annotations

import json
import subprocess
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from common.errors import NotInitialised, OperationError
from common.terminal import WIDTH, FormatOption, OutputFormat, Terminal, table
from common.verify.report import NOT_PROVEN, Outcome, worst
from llmasos.simulation.deployment import module_command
from llmasos.simulation.layout import MARKER, Layout

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
    def row(self) -> list[str]:
        rounds = "; ".join(check["examined"] for check in self.report["checks"] if check["name"] == "rounds")
        return [self.who, self.outcome, str(self.report["entries"]), rounds]


def verify(
    folder: Annotated[Path, typer.Argument(help="What `llmasos demo` or `llmasos simulate` wrote.")],
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Verify a simulation's folder: ledger, contributions, and every round recomputed, from every party's side.

    Exit 0: verified; 4: verified with gaps; 1: failed.
    """
    layout = Layout(folder.absolute())
    if not (layout.root / MARKER).exists():
        raise NotInitialised(f"{folder} is not a simulation's folder.", "Make one: llmasos demo --quick --out FOLDER.")
    sides = [_side("coordinator", (*module_command("coordinator"), "verify"), layout.coordinator)]
    blobs = ("--blobs", str(layout.coordinator / "blobs"))
    for home in sorted(layout.participant("any").parent.iterdir()):
        sides.append(_side(home.name, (*module_command("participant"), "verify", *blobs), home))
    forks = _forks(sides)
    outcome = worst([*(side.outcome for side in sides), *[Outcome.FAILED for _ in forks]])
    data = {"result": outcome, "forks": forks, "sides": {side.who: side.report for side in sides}}
    terminal = Terminal(output)
    terminal.result(
        table(["SIDE", "RESULT", "ENTRIES", "ROUNDS"], [side.row for side in sides]), data=data, quiet=outcome
    )
    if output is OutputFormat.HUMAN:
        terminal.result("\n".join([*_failures(sides), *forks, "", *textwrap.wrap(NOT_PROVEN, WIDTH)]), data=None)
    raise typer.Exit(outcome.exit_code)


def _side(who: str, command: tuple[str, ...], home: Path) -> Side:
    """
    Raises:
        OperationError: the command ended without a report.
    """
    done = subprocess.run(
        [*command, "--home", str(home), "--format", "json"], capture_output=True, text=True, check=False
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode not in _CODES or not lines:
        raise OperationError(f"The verification of {who} gave no report: {done.stderr.strip()[-400:]}")
    return Side(who, json.loads(lines[-1]))


def _forks(sides: list[Side]) -> list[str]:
    """Parties that hold as many entries as another, and other ones."""
    roots: dict[int, dict[str, str]] = {}
    for side in sides:
        roots.setdefault(side.report["entries"], {})[side.report["root"]] = side.who
    return [
        f"FAILED  {' and '.join(found.values())} hold two histories of {size} entries."
        for size, found in roots.items()
        if len(found) > 1
    ]


def _failures(sides: list[Side]) -> list[str]:
    return [
        f"{finding['outcome']}  {side.who}, leaf {finding['leaf']}: {finding['text']}"
        for side in sides
        for check in side.report["checks"]
        for finding in check["findings"]
    ]
