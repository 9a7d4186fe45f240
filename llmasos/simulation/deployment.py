"""A consortium on this machine: the commands of its operator and of its institutions, as processes.

Each step is one documented command; nothing is done here that somebody could not type. Ports are free ones of 127.0.0.1,
written by the coordinator into addresses.json and from there into its configuration, so that a restart by hand keeps them.

    operator                                   institution
    init, start
    institution invite NAME  ── invitation ─▶  join --invitation-file …
                                               start
    run start, run watch, run export
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from common.errors import OperationError, UsageError
from common.plan.model import Plan
from llmasos.simulation.layout import Layout
from llmasos.simulation.processes import Child, Processes, failed

READY_SECONDS = 60.0
POLL_SECONDS = 0.05
COMMAND_SECONDS = 120.0
TRANSFER_SECONDS = 3600.0
"""For commands that move a whole model."""
ANY_PORT = "127.0.0.1:0"
SHIPPED_MIN_QUORUM = 3
_WITHOUT_BUDGETS = {
    "max_parameters": "10000000000",
    "max_rounds": "1000000",
    **dict.fromkeys(("gpu_hours", "cpu_hours", "memory_gb", "disk_gb", "traffic_gb"), "null"),
}
"""Lines of policy.yaml as somebody writes them who owns all the machines: here that is whoever simulates."""


@dataclass(frozen=True, slots=True)
class InstitutionFolder:
    """An institution's name and its folder of text; `text_column` names the field of .jsonl and .csv files."""

    name: str
    folder: Path
    text_column: str | None = None


def parse_institution(text: str) -> InstitutionFolder:
    """`NAME=DIR` or `NAME=DIR:COLUMN`, as --institution takes it. A DIR that exists as it stands may hold colons.

    Raises:
        UsageError: another form, or no such folder.
    """
    name, sign, rest = text.partition("=")
    if not (name and sign and rest):
        raise UsageError(f"--institution expected NAME=DIR or NAME=DIR:COLUMN, got {text!r}.")
    whole = Path(rest).expanduser()
    before, colon, column = rest.rpartition(":")
    folder = whole if whole.exists() or not colon else Path(before).expanduser()
    if not folder.is_dir():
        raise UsageError(f"--institution {name}: expected a folder of text, but {folder} is none.")
    return InstitutionFolder(name, folder, None if folder == whole else column)


def module_command(module: str) -> tuple[str, ...]:
    """How to run a console script's module with this interpreter; -P keeps the working directory from shadowing modules."""
    return (sys.executable, "-P", "-m", module)


@dataclass(frozen=True, slots=True)
class Commands:
    """The two programs. Tests put others in their place."""

    coordinator: tuple[str, ...] = module_command("coordinator")
    participant: tuple[str, ...] = module_command("participant")


class Deployment:
    """One coordinator and its institutions' participants, started one by one and stopped in order.

    Leaving the `with` block stops participants first, then the coordinator.
    """

    def __init__(
        self, layout: Layout, processes: Processes, *, consortium: str = "simulation", commands: Commands | None = None
    ) -> None:
        self.layout = layout
        self.processes = processes
        self.consortium = consortium
        self.commands = commands or Commands()
        self.coordinator: Child | None = None
        self.participants: dict[str, Child] = {}

    def __enter__(self) -> Deployment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start_coordinator(self) -> None:
        """`init` and `start`; returns when both listeners are open.

        Raises:
            OperationError: it ended, or did not listen within READY_SECONDS.
        """
        ports = ("--work-address", ANY_PORT, "--enrolment-address", ANY_PORT)
        self._operator("init", "--consortium", self.consortium, *ports)
        argv = (*self.commands.coordinator, "start", "--home", str(self.layout.coordinator))
        self.coordinator = self.processes.start("coordinator", argv, log=self.layout.log("coordinator"), lifeline=True)
        addresses = self._wait_for_addresses(self.coordinator)
        _pin_ports(self.layout.coordinator / "coordinator.yaml", addresses)

    def join(self, institution: InstitutionFolder, *, threads: int) -> None:
        """Invite an institution and let it join, as two people would."""
        invitation = self.layout.invitation(institution.name)
        text = self._operator("institution", "invite", institution.name)
        _write_private(invitation, text)
        home = self.layout.participant(institution.name)
        column = ("--text-column", institution.text_column) if institution.text_column else ()
        argv = (*self.commands.participant, "join", "--invitation-file", str(invitation), "--home", str(home))
        data = ("--data", str(institution.folder.resolve()), *column, "--threads", str(threads))
        log = self.layout.log(institution.name)
        self.processes.run(f"llmasos-participant join ({institution.name})", (*argv, *data), log=log)
        # On one machine institutions share its GPUs: each of them would take all.
        edit_line(home / "participant.yaml", r"\branks: auto", "ranks: 1")

    def accept_runs(self, name: str, plan: Plan) -> None:
        """Have the institution's policy accept runs of this plan without asking anybody, as its owner would write it."""
        policy = self.layout.participant(name) / "policy.yaml"
        lines = {"answer": "accept", **_WITHOUT_BUDGETS}
        if plan.quorum < SHIPPED_MIN_QUORUM:
            lines["min_quorum"] = str(plan.quorum)
        if plan.metrics_visibility == "institution":
            lines["metrics_visibility"] = plan.metrics_visibility
        if plan.contributions_visibility == "operator":
            lines["contributions_visibility"] = plan.contributions_visibility
        if plan.delta_audience:
            lines["allow_delta_audience"] = json.dumps(plan.delta_audience)
        if plan.rule.type == "operator":
            lines["allow_operator_rule"] = "true"
        for field, value in lines.items():
            edit_line(policy, rf"\b{field}: (?:\[[^\]]*\]|\S+)", f"{field}: {value}")

    def start_participant(self, name: str) -> None:
        """The institution's daemon, in the foreground of a process of its own."""
        argv = (*self.commands.participant, "start", "--home", str(self.layout.participant(name)))
        self.participants[name] = self.processes.start(name, argv, log=self.layout.log(name), lifeline=True)

    def start_run(self, prepared: Path) -> str:
        """Send the prepared plan; the run's id."""
        return self._operator("run", "start", str(prepared), seconds=TRANSFER_SECONDS).split()[-1]

    def watch_run(self, run: str) -> Child:
        """`run watch`, its lines on captured standard output; ends with the run."""
        argv = (*self.commands.coordinator, "run", "watch", run, "--format", "json")
        home = ("--home", str(self.layout.coordinator))
        return self.processes.start("run watch", (*argv, *home), log=self.layout.log("watch"), capture=True)

    def export_model(self, run: str, file: Path) -> None:
        """The final model's tensors."""
        self._operator("run", "export", run, "--out", str(file), seconds=TRANSFER_SECONDS)

    def stop_participants(self) -> None:
        self.processes.stop(self.participants.values())
        self.participants = {}

    def stop(self) -> None:
        """End everything in order; calling it again does nothing."""
        self.stop_participants()
        if self.coordinator is not None:
            self.processes.stop([self.coordinator])
            self.coordinator = None

    def _operator(self, *arguments: str, seconds: float = COMMAND_SECONDS) -> str:
        """A command of the operator; what it printed."""
        words = [word for word in arguments[:2] if not word.startswith("-")]
        argv = (*self.commands.coordinator, *arguments, "--home", str(self.layout.coordinator))
        name = " ".join(["llmasos-coordinator", *words])
        return self.processes.run(name, argv, log=self.layout.log("operator"), seconds=seconds)

    def _wait_for_addresses(self, coordinator: Child) -> dict[str, object]:
        file = self.layout.coordinator / "addresses.json"
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if coordinator.exit_code is not None:
                raise failed(coordinator)
            found = _read_addresses(file)
            if found.get("pid") == coordinator.pid:
                return found
            time.sleep(POLL_SECONDS)
        raise OperationError(
            f"The coordinator did not listen within {READY_SECONDS:.0f} s.", f"Look at {coordinator.log}."
        )


def _read_addresses(file: Path) -> dict[str, object]:
    """The file's content; nothing while it is not, or not wholly, written."""
    try:
        found = json.loads(file.read_bytes())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _pin_ports(configuration: Path, addresses: dict[str, object]) -> None:
    """Write the ports found into coordinator.yaml: participants know these addresses, so a restart must keep them."""
    for key in ("work", "enrolment"):
        edit_line(configuration, rf'\b{key}: "?{re.escape(ANY_PORT)}"?', f'{key}: "{addresses[key]}"')
    edit_line(configuration, r"\bbulk: auto\b", f'bulk: "{addresses["bulk"]}"')


def edit_line(file: Path, pattern: str, replacement: str) -> None:
    """Change a setting as an editor would: the first match of `pattern` becomes `replacement`, comments stay.

    Raises:
        OperationError: the file holds nothing like it.
    """
    text, changed = re.subn(pattern, lambda _: replacement, file.read_text(encoding="utf-8"), count=1)
    if not changed:
        raise OperationError(
            f"{file} holds no line like {pattern!r}.", "The simulation and the commands must be of one release."
        )
    file.write_text(text, encoding="utf-8")


def _write_private(file: Path, text: str) -> None:
    """An invitation holds a secret: readable by its owner only, from its first byte on."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
