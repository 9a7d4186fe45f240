"""A coordinator without network: its real parts over a folder, a clock that a test moves, institutions with real keys.

    coordinator = Coordinator(tmp_path)                          # founded; east, north and south are enrolled
    run = coordinator.start_run(rounds=1)
    coordinator.play()                                           # everyone takes part until the run ends
    coordinator["north"].contribute(num_tokens=10**12)           # one lie
    coordinator.restart()                                        # everything from disk again, as after kill -9

No torch and no threads: commands run on the test's thread, and `coordinator.advance()` is the engine's turn.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from common import strict_json
from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.blobs.store import FolderBlobStore
from common.clock import ManualClock
from common.identity.authority import Authority
from common.identity.certificates import enrol_proof_message
from common.identity.invitation import Invitation, parse_invitation
from common.identity.keys import SigningKey, TlsKey
from common.ledger.rules import admit, start
from common.ledger.state import LedgerState, RoundRecord, RunRecord
from common.statements.envelope import Parent, Statement, sign
from common.statements.kinds import Answer, Contribution, Member, PlanStatement, Predicate, Role
from coordinator.access import BlobAccess
from coordinator.aggregation import Aggregation
from coordinator.board import Board
from coordinator.config import HomeLayout
from coordinator.desk import CommandDesk, DeskPorts
from coordinator.enrolment import EnrolmentDesk, EnrolmentSettings
from coordinator.founding import Founding, found
from coordinator.ledger import Ledger
from coordinator.metrics import StoredMeasurements
from coordinator.ports import Enrolled, EnrolmentOffer, Metrics, UploadPurpose
from coordinator.rounds.engine import Engine, EnginePorts
from coordinator.rounds.phases import LOSS_SCALE
from coordinator.rounds.ports import NoSteps, Step, Steps
from coordinator.store.database import Database, file_url
from coordinator.views import OperatorViews
from tests.support.blobs import delta_bytes, leaves_and_ref, model_bytes, put_blob, random_arrays, tensor_manifest
from tests.support.plans import a_plan

CONSORTIUM = "hospitals"
NAMES = ("east", "north", "south")
RUN = "tiny-0a1b2c"
MANIFEST = tensor_manifest(trainable={"embedding": (8, 4), "bias": (4,)}, frozen={"positions": (3,)})
BASE = model_bytes(MANIFEST, random_arrays(MANIFEST, seed=1))
TOKENIZER = b'{"model": "bytes"}'
LEASE_SECONDS = 60.0
TOKENS = 1000
"""Held-out tokens of each measurement."""

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


class Coordinator:
    """Every part of a coordinator but its listeners."""

    def __init__(
        self,
        home: Path,
        *,
        names: Sequence[str] = NAMES,
        steps: Steps | None = None,
        engine: type[Engine] = InlineEngine,
    ) -> None:
        self.layout = HomeLayout(home)
        self.clock = ManualClock()
        self.steps: Steps = steps or NoSteps()
        self.participants: dict[str, FakeParticipant] = {}
        self._engine_class = engine
        found(home, Founding(CONSORTIUM), self.clock)
        self._open()
        for name in names:
            self.enrol(name)

    def __getitem__(self, name: str) -> FakeParticipant:
        return self.participants[name]

    def _open(self) -> None:
        layout, clock = self.layout, self.clock
        self.genesis = layout.genesis.read_bytes()
        self.database = Database(file_url(layout.state))
        self.ledger = Ledger(self.database, SigningKey.load(layout.statement_key), clock, self.genesis)
        self.blobs = FolderBlobStore(layout.blobs)
        self.board = Board(self.ledger, clock, LEASE_SECONDS)
        self.measurements = StoredMeasurements(self.ledger, self.database)
        self.aggregation = Aggregation(self.blobs)
        self.engine = self._engine_class(
            EnginePorts(self.ledger, self.aggregation, self.board, self.measurements, self.steps, clock)
        )
        settings = EnrolmentSettings(365, lambda: "127.0.0.1:7444", lambda: "127.0.0.1:7443")
        self.enrolment = EnrolmentDesk(self.ledger, self.database, Authority.load(layout.identity), clock, settings)
        self.desk = CommandDesk(
            DeskPorts(self.ledger, self.engine, self.enrolment, self.blobs, clock, genesis=self.genesis)
        )
        self.access = BlobAccess(self.ledger, max_plan_blob_bytes=2**20)
        self.views = OperatorViews(self.ledger, self.engine, self.board, self.database, clock)

    def close(self) -> None:
        self.blobs.close()
        self.database.close()

    def restart(self) -> None:
        """Everything from disk again."""
        self.close()
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
        participant = FakeParticipant(self, name)
        participant.join(self.invite(name, roles))
        self.participants[name] = participant
        return participant

    def draft(self, **plan: Any) -> PlanStatement:
        """A plan with its blobs here, as after the operator's upload; arguments change the plan's fields."""
        model, tokenizer = put_blob(self.blobs, BASE), put_blob(self.blobs, TOKENIZER)
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


class FakeParticipant:
    """An institution with the real signer and the real rules. It trains nothing and lies where a test wants."""

    def __init__(self, coordinator: Coordinator, name: str) -> None:
        self.name = name
        self.key, self.tls = SigningKey.generate(), TlsKey.generate()
        self.perplexity: Callable[[int], float] = lambda number: 100.0 / number
        self._coordinator = coordinator
        self._state = start(coordinator.genesis).state

    @property
    def member(self) -> Member:
        """Its newest roster entry, as the interceptor finds it for its connection."""
        found = self._coordinator.state.member(self.name)
        assert found is not None
        return found

    def offer(self, invitation: Invitation, **changes: Any) -> EnrolmentOffer:
        """What `join` sends; arguments spoil it."""
        fingerprint = bytes.fromhex(start(invitation.genesis).statement.digest)
        csr = changes.pop("csr_der", None) or self.tls.csr(self.name)
        proof = self.key.sign(enrol_proof_message(fingerprint, invitation.invitation_id, csr, b""))
        fields: dict[str, Any] = {
            "invitation_id": invitation.invitation_id,
            "secret": invitation.secret,
            "csr_der": csr,
            "signing_key": bytes.fromhex(self.key.public.public),
            "proof": proof,
            "encryption_key": None,
        }
        return EnrolmentOffer(**fields | changes)

    def join(self, invitation: Invitation) -> Enrolled:
        return self._coordinator.desk.enrol(self.offer(invitation))

    def follow(self) -> LedgerState:
        """Its own copy of the ledger's state, every entry checked by the rules."""
        ledger = self._coordinator.ledger
        while (found := ledger.slice(self._state.size, max_bytes=2**20, wait_seconds=0)).envelopes:
            for envelope in found.envelopes:
                self._state = admit(self._state, envelope).state
        return self._state

    @property
    def round(self) -> RoundRecord:
        """The newest round that it knows of."""
        current = self.follow().runs[RUN].current
        assert current is not None, "no round was opened"
        return current

    def sign(self, predicate: Predicate, parent_kind: str, parent: str) -> Statement:
        return sign(predicate, parent=Parent(parent_kind, parent), key=self.key)

    def submit(self, statement: Statement | bytes, metrics: Metrics | None = None) -> int:
        """Send on its own connection."""
        envelope = statement if isinstance(statement, bytes) else statement.envelope
        return self._coordinator.desk.submit(self.member, envelope, metrics)

    # --- answers -----------------------------------------------------------------------------------------------------

    def an_answer(self, **changes: Any) -> Statement:
        plan = self.follow().runs[RUN].place.digest
        nonce = hashlib.sha256(self.name.encode()).hexdigest()
        fields: dict[str, Any] = {"institution": self.name, "run": RUN, "accept": True, "nonce": nonce}
        return self.sign(Answer(**fields | changes), "plan", plan)

    def answer(self, **changes: Any) -> int:
        return self.submit(self.an_answer(**changes))

    # --- contributions -----------------------------------------------------------------------------------------------

    def delta(self) -> bytes:
        """Small numbers that depend on institution and round alone."""
        seed = int.from_bytes(hashlib.sha256(f"{self.name}/{self.round.number}".encode()).digest()[:4], "big")
        return delta_bytes(MANIFEST, random_arrays(MANIFEST, seed=seed, scale=0.01))

    def send(self, content: bytes) -> BlobRef:
        """A blob to the coordinator for the open round, as the blob servicer would take it."""
        leaves, ref = leaves_and_ref(content)
        coordinator = self._coordinator
        coordinator.access.check_write(self.member, ref, UploadPurpose(round_opened=self.round.place.digest))
        upload = coordinator.blobs.begin(ref, leaves, owner=self.name)
        for first, count in upload.missing():
            for chunk in range(first, first + count):
                upload.write(chunk, content[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES])
        assert upload.finish()
        return ref

    def metrics(self, perplexity: float | None = None, tokens: int = TOKENS) -> Metrics:
        nats = math.log(perplexity or self.perplexity(self.round.number))
        measured = {"loss_sum_fixed": round(nats * tokens * LOSS_SCALE), "num_tokens": tokens}
        content = strict_json.dumps({"evaluation": dict(measured), "train_loss_fixed": None})
        return Metrics(content, hashlib.sha256(self.name.encode()).digest())

    def contribution(self, ref: BlobRef | None = None, metrics: Metrics | None = None, **changes: Any) -> Statement:
        """Signed for the newest round; sends nothing."""
        current, beside = self.round, metrics or self.metrics()
        train = current.opened.task == "train"
        num_tokens = changes.pop("num_tokens", 10 + len(self.name) if train else 0)
        parent = changes.pop("parent", current.place.digest)
        fields: dict[str, Any] = {
            "institution": self.name,
            "run": RUN,
            "round": current.number,
            "blobs": {"delta": ref} if ref else {},
            "weight": {"mode": "clear", "num_tokens": num_tokens},
            "metrics_commitment": hashlib.sha256(beside.salt + beside.content).hexdigest(),
        }
        return self.sign(Contribution(**fields | changes), "round-opened", parent)

    def contribute(self, content: bytes | None = None, metrics: Metrics | None = None, **changes: Any) -> int:
        """Send a delta (in a training round) and the contribution with its metrics."""
        ref = self.send(content or self.delta()) if self.round.opened.task == "train" else None
        beside = metrics or self.metrics()
        return self.submit(self.contribution(ref, beside, **changes), beside)

    def act(self) -> None:
        """What is to do now, if anything."""
        run = self.follow().runs[RUN]
        if self.name not in run.answers:
            self.answer()
        current = run.open_round
        if current is not None and self.name in current.missing:
            self.contribute()


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
