"""A coordinator without network: its real parts over a folder, a clock that a test moves, institutions with real keys.

    coordinator = Coordinator(tmp_path)                          # founded; east, north and south are enrolled
    run = coordinator.start_run(rounds=1)
    coordinator.play()                                           # everyone takes part until the run ends
    coordinator["north"].contribute(num_tokens=10**12)           # one lie
    coordinator.restart()                                        # everything from disk again, as after kill -9

No torch and no threads: commands run on the test's thread, and `coordinator.advance()` is the engine's turn.
"""

from __future__ import annotations

import atexit
import hashlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from common.blobs.store import FolderBlobStore
from common.clock import ManualClock
from common.errors import ApprovalPending
from common.identity.authority import Authority
from common.identity.invitation import Invitation, parse_invitation
from common.identity.keys import SigningKey
from common.ledger.heads import log_key
from common.ledger.state import LedgerState, RoundRecord, RunRecord
from common.statements.envelope import Statement
from common.statements.kinds import Member, PlanStatement, Predicate, Role
from coordinator.access import BlobAccess
from coordinator.aggregation import Aggregation
from coordinator.config import HomeLayout
from coordinator.cosignatures import Cosignatures
from coordinator.desk import CommandDesk, DeskPorts
from coordinator.inspections import Inspections
from coordinator.ledger import Ledger
from coordinator.log import HeadFile, Log
from coordinator.members.enrolment import EnrolmentDesk, EnrolmentPorts, EnrolmentSettings
from coordinator.members.founding import Founding, found
from coordinator.members.membership import MembershipDesk, MembershipPorts
from coordinator.members.proposals import ProposalPorts, Proposals
from coordinator.recovery.recovering import Recovery, RecoveryPorts
from coordinator.rounds.engine import Engine, EnginePorts
from coordinator.rounds.ports import NoSteps, Step, Steps
from coordinator.run_desk import InitialBlobs
from coordinator.store.database import Database, file_url
from coordinator.views import Host, OperatorViews
from coordinator.watching.board import Board
from coordinator.watching.metrics import StoredMeasurements
from coordinator.witnesses import Witnesses, WitnessPorts
from tests.support.blobs import model_bytes, put_blob, random_arrays
from tests.support.participants import MANIFEST, RUN, FakeParticipant
from tests.support.plans import a_plan

CONSORTIUM = "hospitals"
NAMES = ("east", "north", "south")
BASE = model_bytes(MANIFEST, random_arrays(MANIFEST, seed=1))
TOKENIZER = b'{"model": "bytes"}'
LEASE_SECONDS = 60.0

T = TypeVar("T")


class Crash(Exception):
    """Stands for kill -9: nothing here catches it."""


class CrashAt:
    """Steps that end the process once, at one step of one round."""

    def __init__(self, step: Step, round_number: int) -> None:
        self._armed: tuple[Step, int] | None = (step, round_number)
        self.crashed = False

    def reached(self, step: Step, run: str, round_number: int) -> None:
        if self._armed == (step, round_number):
            self._armed, self.crashed = None, True
            raise Crash(f"{step} of round {round_number} of {run}")


class InlineEngine(Engine):
    """Commands run at once, on the thread that asks: a test is its own engine thread."""

    def call(self, action: Callable[[], T]) -> T:
        return action()

    def post(self, action: Callable[[], None]) -> None:
        action()


Approvals = Mapping[Literal["roster", "plan", "release"], int]


@cache
def _founded(
    *approvals: tuple[Literal["roster", "plan", "release"], int],
) -> tuple[Path, Mapping[str, FakeParticipant]]:
    """A home in which NAMES are enrolled, made once a process, and who they are: tests begin with a copy."""
    folder = Path(tempfile.mkdtemp(prefix="llmasos-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = Coordinator(folder / "home", names=(), approvals=dict(approvals))
    for name in NAMES:
        made.enrol(name)
    made.close()
    return folder / "home", made.participants


class Coordinator:
    """Every part of a coordinator but its listeners."""

    def __init__(
        self,
        home: Path,
        *,
        names: Sequence[str] = NAMES,
        steps: Steps | None = None,
        approvals: Approvals | None = None,
    ) -> None:
        self.layout = HomeLayout(home)
        self.clock = ManualClock()
        self.steps: Steps = steps or NoSteps()
        self.participants: dict[str, FakeParticipant] = {}
        self._engine_class: type[Engine] = InlineEngine
        if names == NAMES:
            template, known = _founded(*(approvals or {}).items())
            shutil.copytree(template, home)
        else:
            known = {}
            found(home, Founding(CONSORTIUM, approvals=approvals or {}), self.clock)
        self._open()
        for name in names:
            self.participants[name] = known[name].moved_to(self) if known else self.enrol(name)

    def __getitem__(self, name: str) -> FakeParticipant:
        return self.participants[name]

    def _open(self) -> None:
        layout, clock = self.layout, self.clock
        self.genesis = layout.genesis.read_bytes()
        self.database = Database(file_url(layout.state))
        self.ledger = Ledger(self.database, SigningKey.load(layout.statement_key), clock, self.genesis)
        cosignatures, head = Cosignatures(), HeadFile(layout.log_head)
        self.blobs = FolderBlobStore(layout.blobs)
        self.recovery = Recovery(
            RecoveryPorts(
                layout.home,
                self.ledger,
                self.database,
                self.blobs,
                clock,
                LEASE_SECONDS,
                head.beyond(self.ledger.state.size, log_key(self.ledger.state.genesis)),
                call=lambda work: self.engine.call(work),  # noqa: PLW0108  made after what it asks
                resumed=lambda: self.witnesses.recall(),  # noqa: PLW0108
            )
        )
        self.log = Log(self.ledger, SigningKey.load(layout.log_key), head, cosignatures)
        self.board = Board(self.ledger, clock, LEASE_SECONDS)
        self.measurements = StoredMeasurements(self.ledger, self.database)
        self.proposals = Proposals(
            ProposalPorts(self.ledger, self.database, InitialBlobs(self.ledger, self.blobs), clock)
        )
        self.aggregation = Aggregation(self.blobs, self.proposals.awaited_blobs)
        authority = Authority.load(layout.identity)
        self.membership = MembershipDesk(
            MembershipPorts(
                self.ledger, self.database, authority, self.aggregation, self.proposals, clock, certificate_days=365
            )
        )
        self.engine = self._engine_class(
            EnginePorts(
                self.ledger,
                self.aggregation,
                self.board,
                self.measurements,
                self.steps,
                clock,
                self.membership,
                holds=self.recovery.holds,
            )
        )
        self.witnesses = Witnesses(
            WitnessPorts(self.ledger, self.log, cosignatures, self.database, post=self.engine.post)
        )
        settings = EnrolmentSettings(365, 72, lambda: "127.0.0.1:7444", lambda: "127.0.0.1:7443")
        self.enrolment = EnrolmentDesk(
            EnrolmentPorts(self.ledger, self.database, authority, self.proposals, clock), settings
        )
        self.desk = CommandDesk(
            DeskPorts(
                self.ledger,
                self.engine,
                self.enrolment,
                self.membership,
                self.blobs,
                Inspections(self.ledger, self.blobs),
                clock,
                genesis=self.genesis,
                measurements=self.measurements,
                proposals=self.proposals,
            )
        )
        self.access = BlobAccess(self.ledger, max_plan_blob_bytes=2**20, recovery=self.recovery.check_upload)
        host = Host(layout, self.blobs, started_at=clock.now(), open_calls=lambda: 7, version="0.0.0")
        self.views = OperatorViews(self.ledger, self.engine, self.board, self.database, clock, host=host)

    def close(self) -> None:
        self.blobs.close()
        self.database.close()

    def restart(self, *, engine: type[Engine] | None = None) -> None:
        """Everything from disk again, with another engine if one is given."""
        self.close()
        self._engine_class = engine or self._engine_class
        self._open()

    # --- what a test does with it ------------------------------------------------------------------------------------

    @property
    def state(self) -> LedgerState:
        return self.ledger.state

    @property
    def run(self) -> RunRecord:
        """The one run."""
        return self.state.runs[RUN]

    @property
    def operator(self) -> Member:
        member = self.state.member("operator")
        assert member is not None
        return member

    def invite(self, name: str, roles: tuple[Role, ...] = ("trainer", "evaluator"), hours: int = 72) -> Invitation:
        return parse_invitation(self.desk.invite(name, expires_hours=hours, roles=roles))

    def enrol(self, name: str, roles: tuple[Role, ...] = ("trainer", "evaluator")) -> FakeParticipant:
        """Its invitation redeemed, and approved by as many as have to, in the order of their names."""
        participant, invitation = FakeParticipant(self, name), self.invite(name, roles)
        try:
            participant.join(invitation)
        except ApprovalPending:
            self.approve_all()
            participant.join(invitation)
        self.participants[name] = participant
        return participant

    def approve_all(self) -> None:
        """Every open draft gets the approvals that it needs, one after the other: each roster makes the others anew."""
        while proposals := self.desk.proposals():
            digest = hashlib.sha256(proposals[0].payload).hexdigest()
            for participant in list(self.participants.values())[: proposals[0].approvals_needed]:
                participant.approve(digest)
            assert len(self.desk.proposals()) < len(proposals)

    def draft(self, *, base: bytes = BASE, **plan: Any) -> PlanStatement:
        """A plan with its blobs here, as after the operator's upload; arguments change the plan's fields."""
        model, tokenizer = put_blob(self.blobs, base), put_blob(self.blobs, TOKENIZER)
        return PlanStatement.model_validate(
            {
                "run": RUN,
                "plan": a_plan(**plan),
                "manifest": MANIFEST,
                "initial": {"model": model, "tokenizer": tokenizer},
            }
        )

    def start_run(self, **plan: Any) -> str:
        return self.desk.start_run(self.draft(**plan).model_dump_json().encode())

    def open_round(self, **plan: Any) -> RoundRecord:
        """A run whose first round is open; everyone accepted."""
        self.start_run(**plan)
        for participant in self.participants.values():
            if "trainer" in participant.member.roles:
                participant.answer()
        self.advance()
        record = self.run.open_round
        assert record is not None, "no round was opened"
        return record

    def advance(self) -> None:
        self.engine.advance_all()

    def play(self, *, turns: int = 40) -> RunRecord:
        """Everyone takes part until the run ends."""
        for _ in range(turns):
            self.advance()
            if self.run.ended is not None:
                return self.run
            for participant in self.participants.values():
                participant.act()
        raise AssertionError(f"the run did not end in {turns} turns")

    def append(self, predicate: Predicate, parent: Statement | str) -> int:
        """A statement of the coordinator's after the statement of that digest."""
        digest = parent if isinstance(parent, str) else parent.digest
        return self.ledger.append(predicate, self.state.places[digest]).index

    def envelopes(self) -> list[bytes]:
        """The ledger as it is stored."""
        return [row.envelope for row in self.database.envelopes(0)]

    def refusals(self) -> list[tuple[str, int | None, str, str]]:
        """Institution, round, code and attribution of every refusal in the ledger."""
        return [(each.institution, each.round, each.code, each.attribution) for _, each in self.state.refusal_list]


class EngineThread:
    """The real engine on a thread of its own, while inside."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._thread = threading.Thread(target=engine.run, name="engine")

    def __enter__(self) -> EngineThread:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.stop()
        self._thread.join(30)
        assert not self._thread.is_alive()
