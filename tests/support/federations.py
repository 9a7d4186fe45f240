"""A coordinator and its participants as real processes over loopback, for end-to-end tests.

    with Federation(tmp_path, ("clinic", "bank", "laboratory")) as federation:
        run = federation.start_run(make_draft(tmp_path / "draft", rounds=2))
        record = federation.wait_until_ended(run)
        federation.blob(record.model)

Founding, invitations and joining happen in this process, by the functions that the commands call; the daemons are the
documented commands. Ports are free ones, written into coordinator.yaml, so that a restart keeps them. Every daemon hangs on a
lifeline: none outlives the test, however it ends. Workers are null workers unless another command is given.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from common.blobs.plain_file import open_as_blob
from common.blobs.reference import BlobRef
from common.clock import SystemClock
from common.identity.invitation import parse_invitation
from common.ledger.rules import admit, start
from common.ledger.state import LedgerState, RunRecord
from common.statements.envelope import Statement
from common.statements.kinds import Kind
from common.wire.messages import Purpose
from coordinator.api.client import OperatorSession
from coordinator.commands.connection import operator_session
from coordinator.members.founding import Founding, found
from llmasos.simulation.deployment import edit_line, module_command
from llmasos.simulation.processes import Child, Processes, failed
from participant.joining import Joining, join
from tests.support import null_worker
from tests.support.drafts import Draft as Draft
from tests.support.drafts import make_draft as make_draft

CONSORTIUM = "hospitals"
NAMES = ("bank", "clinic", "laboratory")
COORDINATOR = module_command("coordinator")
PARTICIPANT = module_command("participant")
PATIENCE_SECONDS = 90.0
"""A deadline for a loaded machine; nothing waits so long when all goes well."""
_CRASHING = (sys.executable, "-P", str(Path(__file__).with_name("crashing_coordinator.py")))
_TICK_SECONDS = 0.02


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """The first true value of `condition`.

    Raises:
        AssertionError: none came in time; says what was waited for.
    """
    pause, deadline = threading.Event(), time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found_value := condition():
            return found_value
        pause.wait(_TICK_SECONDS)
    raise AssertionError(f"waited {seconds:g} s in vain: {what}")


@dataclass(frozen=True)
class Entry:
    """One row of the coordinator's ledger."""

    index: int
    statement: Statement


class Federation:
    """The consortium's processes and homes, under one folder."""

    def __init__(
        self,
        folder: Path,
        names: Sequence[str] = NAMES,
        *,
        lease_seconds: float = 60.0,
        min_quorum: int = 3,
        worker: Sequence[str] | None = null_worker.COMMAND,
    ) -> None:
        self.folder = folder
        self.names = tuple(names)
        self.coordinator_home = folder / "coordinator"
        self.processes = Processes()
        self.coordinator: Child | None = None
        self.participants: dict[str, Child] = {}
        self._lease_seconds, self._min_quorum, self._worker = lease_seconds, min_quorum, worker
        self._entries: list[Entry] = []
        self._state: LedgerState | None = None

    def __enter__(self) -> Self:
        self.processes.__enter__()
        try:
            self.found()
            self.start_coordinator()
            self._pin_ports()
            for name in self.names:
                self.join(name)
        except BaseException:
            self.processes.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.processes.__exit__(kind, error, trace)

    # --- the coordinator -----------------------------------------------------------------------------------------------

    def found(self) -> None:
        """What `init` does."""
        founding = Founding(CONSORTIUM, work_address="127.0.0.1:0", enrolment_address="127.0.0.1:0")
        found(self.coordinator_home, founding, SystemClock())
        edit_line(
            self.coordinator_home / "coordinator.yaml", r"lease_seconds: \d+", f"lease_seconds: {self._lease_seconds}"
        )

    def start_coordinator(self, crash_at: tuple[str, int] | None = None) -> Child:
        """`llmasos-coordinator start`, until it listens; or one that is killed at a named step of a round."""
        home = str(self.coordinator_home)
        argv = (*COORDINATOR, "start", "--home", home)
        if crash_at is not None:
            argv = (*_CRASHING, home, crash_at[0], str(crash_at[1]))
        child = self.processes.start("coordinator", argv, log=self.log("coordinator"), lifeline=True)
        self.coordinator = child
        until(lambda: self._listens(child, may_die=crash_at is not None), "the coordinator listens")
        return child

    def _listens(self, child: Child, *, may_die: bool) -> bool:
        """Whether it listens, or is dead already where it was to die: its step may come before its addresses are written."""
        if may_die and child.exit_code is not None:
            return True
        return self._alive(child) and self.addresses().get("pid") == child.pid

    def addresses(self) -> dict[str, Any]:
        """addresses.json, or nothing while there is none."""
        path = self.coordinator_home / "addresses.json"
        return json.loads(path.read_bytes()) if path.exists() else {}

    def kill_coordinator(self) -> None:
        """kill -9."""
        assert self.coordinator is not None
        self._kill(self.coordinator)

    def operator(self) -> Any:
        """A session under the operator's certificate; a context manager."""
        return operator_session(self.coordinator_home)

    def _pin_ports(self) -> None:
        found_addresses = self.addresses()
        for key in ("work", "enrolment"):
            edit_line(
                self.coordinator_home / "coordinator.yaml", rf'{key}: "?127.0.0.1:0"?', f"{key}: {found_addresses[key]}"
            )
        edit_line(self.coordinator_home / "coordinator.yaml", r"bulk: auto", f"bulk: {found_addresses['bulk']}")

    # --- participants --------------------------------------------------------------------------------------------------

    def home(self, name: str) -> Path:
        return self.folder / name

    def data(self, name: str) -> Path:
        return self.folder / "data" / name

    def invite(self, name: str) -> str:
        """An armoured invitation. Who has no daemon here, such as a liar, is no witness: nobody would cosign for it."""
        roles = ("trainer", "evaluator", "witness") if name in NAMES else ("trainer", "evaluator")
        with self.operator() as session:
            return str(session.invite(name, expires_hours=1, roles=roles))

    def join(self, name: str) -> None:
        """What `join` does, with a text that only this institution has."""
        self.data(name).mkdir(parents=True, exist_ok=True)
        (self.data(name) / "text.txt").write_text(f"the text of {name}\n" * 50)
        join(self.home(name), parse_invitation(self.invite(name)), Joining(self.data(name)), SystemClock())
        if self._worker is not None:
            command = f"worker:\n  command: {json.dumps(list(self._worker))}"
            edit_line(self.home(name) / "participant.yaml", r"worker:", command)
        policy = self.home(name) / "policy.yaml"
        edit_line(policy, r"answer: ask", "answer: accept")
        edit_line(policy, r"metrics_visibility: pooled", "metrics_visibility: institution")
        if self._min_quorum != 3:
            edit_line(policy, r"min_quorum: 3", f"min_quorum: {self._min_quorum}")

    def start_participant(self, name: str) -> Child:
        """`llmasos-participant start`; does not wait."""
        argv = (*PARTICIPANT, "start", "--home", str(self.home(name)))
        self.participants[name] = self.processes.start(name, argv, log=self.log(name), lifeline=True)
        return self.participants[name]

    def start_participants(self) -> None:
        for name in self.names:
            self.start_participant(name)

    def kill_participant(self, name: str) -> None:
        """kill -9 of the agent; its worker ends by itself."""
        self._kill(self.participants[name])

    def hold(self, name: str) -> None:
        """From now on this institution's training waits."""
        (self.data(name) / "hold").touch()

    def release(self, *names: str) -> None:
        """Let it go on."""
        for name in names:
            (self.data(name) / "hold").unlink(missing_ok=True)

    def wait_until_holding(self, name: str, run: str, *, not_pid: int = 0) -> int:
        """Its worker's process id once it waits in the middle of training."""
        path = self.home(name) / "jobs" / run / "holding"

        def worker() -> int:
            text = path.read_text() if path.exists() else ""
            return int(text) if text and int(text) != not_pid else 0

        return int(until(worker, f"{name} waits in training"))

    # --- runs ------------------------------------------------------------------------------------------------------------

    def start_run(self, draft: Draft) -> str:
        """What `run start` does."""
        with self.operator() as session:
            for name, ref in (
                ("model.safetensors", draft.statement.initial.model),
                ("tokenizer.json", draft.statement.initial.tokenizer),
            ):
                with open_as_blob(draft.folder / name, ref.algorithm) as reader:
                    session.upload(reader, Purpose(plan=draft.statement.run))
            return _started(session, draft)

    def entries(self) -> list[Entry]:
        """The ledger in the coordinator's state.sqlite, each entry verified from the genesis on."""
        with closing(sqlite3.connect(self.coordinator_home / "state.sqlite", timeout=30)) as connection:
            rows = connection.execute(
                'SELECT "index", envelope FROM ledger WHERE "index" >= ? ORDER BY "index"', (len(self._entries),)
            ).fetchall()
        for index, envelope in rows:
            admission = start(envelope) if self._state is None else admit(self._state, envelope)
            assert admission.place.index == index
            self._state = admission.state
            self._entries.append(Entry(index, admission.statement))
        return self._entries

    def forget_ledger(self) -> None:
        """Read it from its beginning: another home is in the coordinator's place."""
        self._entries, self._state = [], None

    def state(self) -> LedgerState:
        """What the ledger says."""
        self.entries()
        assert self._state is not None
        return self._state

    def of_kind(self, kind: Kind) -> Iterator[Any]:
        """Predicates of one kind, in order."""
        return (entry.statement.predicate for entry in self.entries() if entry.statement.kind is kind)

    def run(self, run: str) -> RunRecord | None:
        return self.state().runs.get(run)

    def wait_for(self, condition: Callable[[LedgerState], Any], what: str) -> Any:
        """The first true value of `condition` over the ledger; fails at once when a daemon ended by itself."""

        def check() -> Any:
            for child in (self.coordinator, *self.participants.values()):
                if child is not None:
                    self._alive(child)
            return condition(self.state())

        return until(check, what)

    def wait_until_open(self, run: str, number: int) -> RunRecord:
        """The run once its round `number` is open."""

        def opened(state: LedgerState) -> RunRecord | None:
            record = state.runs.get(run)
            return record if record and record.current and record.current.number >= number else None

        found_run: RunRecord = self.wait_for(opened, f"round {number} of {run} is open")
        return found_run

    def wait_until_ended(self, run: str) -> RunRecord:
        """The run once it has ended."""

        def ended(state: LedgerState) -> RunRecord | None:
            record = state.runs.get(run)
            return record if record and record.ended else None

        found_run: RunRecord = self.wait_for(ended, f"run {run} has ended")
        return found_run

    def blob_path(self, ref: BlobRef) -> Path:
        """Where the coordinator keeps a blob."""
        return self.coordinator_home / "blobs" / ref.algorithm / ref.root[:2] / f"{ref.root}.blob"

    def blob(self, ref: BlobRef) -> bytes:
        return self.blob_path(ref).read_bytes()

    def log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def _alive(self, child: Child) -> bool:
        if child.exit_code is not None:
            raise AssertionError(str(failed(child)))
        return True

    def _kill(self, child: Child) -> None:
        child.kill()
        child.close()
        self.processes._forget(child)
        if child is self.coordinator:
            self.coordinator = None
        self.participants = {name: each for name, each in self.participants.items() if each is not child}


def _started(session: OperatorSession, draft: Draft) -> str:
    return session.start_run((draft.folder / "draft.json").read_bytes())
