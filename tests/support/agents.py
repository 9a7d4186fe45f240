"""A participant's agent without network and worker process: its real parts over a folder, beside a coordinator in memory.

    north = Institution(tmp_path, Coordinator(tmp_path / "coordinator"), "north")
    north.agent.answer(north.run)                   # signs, sends; the mirror then holds what came of it
    north.session.failures = [CoordinatorUnreachable("…")]
    north.restart()                                 # everything from disk again, as after kill -9

All on the test's thread, save the agent's own reporter and watch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from common.blobs.reader import chunk_buffer
from common.blobs.reference import BlobRef
from common.blobs.store import FolderBlobStore
from common.clock import rfc3339
from common.errors import InvalidConfiguration, LLMasOSError
from common.ledger.state import RoundRecord, RunRecord
from common.wire.messages import ActivityReport, Cosignature, Estimate, LedgerEntries, MetricsRecord, Purpose
from common.wire.transfer import TransferOptions, WholeBlob
from coordinator.ports import Activity, Metrics, UploadPurpose
from participant.agent import Agent
from participant.bench.workbench import RoundOver
from participant.bench.worker_protocol import Evaluate, EvaluationSums, Hello, Progress, Result, Train
from participant.datasets import DataSet
from participant.encoding import DeltaEncoder
from participant.hours.pausing import Gatekeeper
from participant.memory.journal import Journal
from participant.memory.mirror import Mirror
from participant.memory.orders import Decision, Order, Orders
from participant.memory.records import Records
from participant.policy import LoadedPolicy, Policy, Usage
from participant.ports import AgentPorts
from participant.residuals import Residuals
from participant.sending import REPORTS, Outbox, OutboxPorts
from participant.witnessing import Witnessing, WitnessingPorts
from tests.support.blobs import delta_bytes, random_arrays
from tests.support.coordinators import Coordinator
from tests.support.participants import MANIFEST, RUN
from tests.support.signing_log import SigningLog


class DirectSession:
    """common.wire.session.Session, by calls into the coordinator; what was appended is seen at once, as by a quick follower.

    `failures` are raised by the next calls that move bytes, one each; `before_submit` runs before a statement goes.
    """

    address = "memory"

    def __init__(
        self, coordinator: Coordinator, log: SigningLog, name: str, mirror: Mirror, witnessing: Witnessing
    ) -> None:
        self._coordinator, self._log, self._name = coordinator, log, name
        self._mirror, self._witnessing = mirror, witnessing
        self.failures: list[LLMasOSError] = []
        self.submitted: list[bytes] = []
        self.reports: list[ActivityReport] = []
        self.estimates: list[Estimate] = []
        self.round_open: bool | None = None
        self.before_submit: Callable[[], object] = lambda: None

    def follow(
        self,
        *,
        from_index: int,
        wait_seconds: float,
        cosignature: Cosignature | None = None,
        cosigned_size: int = 0,
    ) -> LedgerEntries:
        if cosignature is not None:
            self._log.take(self._name, cosignature)
        return self._log.reply(from_index, cosigned_size=cosigned_size, wait_seconds=wait_seconds)

    def catch_up(self) -> None:
        """What the follower does, and once more where that made a cosignature."""
        for _ in range(2):
            witnessing, cosignature = self._witnessing, self._witnessing.waiting
            entries = self.follow(
                from_index=self._mirror.state.size,
                wait_seconds=0,
                cosignature=cosignature,
                cosigned_size=witnessing.covered,
            )
            if cosignature is not None:
                witnessing.sent(cosignature)
            if entries.envelopes:
                self._mirror.admit(entries.first_index, entries.envelopes)
            witnessing.heard(entries)

    def submit(self, envelope: bytes, metrics: MetricsRecord | None = None) -> int:
        self.before_submit()
        self._fail()
        self.submitted.append(envelope)
        beside = Metrics(metrics.content, metrics.salt) if metrics else None
        index = self._coordinator.desk.submit(self._coordinator[self._name].member, envelope, beside)
        self.catch_up()
        return index

    def report(self, report: ActivityReport) -> bool:
        self.reports.append(report)
        activity = Activity(report.run, report.round, report.activity, report.steps_done, report.steps_total)
        if self.round_open is not None:
            return self.round_open
        return self._coordinator.board.report(self._coordinator[self._name].member, activity)

    def estimate(self, estimate: Estimate) -> None:
        self._fail()
        self.estimates.append(estimate)

    def upload(self, blob: WholeBlob, purpose: Purpose, options: TransferOptions | None = None) -> bool:
        options, member = options or TransferOptions(), self._coordinator[self._name].member
        self._coordinator.access.check_write(member, blob.ref, UploadPurpose(round_opened=purpose.round_opened))
        upload = self._coordinator.blobs.begin_own(blob.ref, blob.leaves, owner=self._name)
        buffer = chunk_buffer(blob.ref)
        for first, count in upload.missing():
            for chunk in range(first, first + count):
                content = blob.read_chunk(chunk, buffer)
                options.on_bytes(len(content))
                self._fail()
                upload.write(chunk, bytes(content))
                if options.stop is not None and options.stop.is_set():
                    return False
        assert upload.finish()
        return True

    def download(
        self, ref: BlobRef, store: FolderBlobStore, owner: str, options: TransferOptions | None = None
    ) -> bool:
        self._fail()
        self._coordinator.access.check_read(self._coordinator[self._name].member, ref)
        with store.writer(ref.algorithm) as writer:
            writer.write(self._coordinator.blobs.path(ref).read_bytes())
            assert writer.commit() == ref
        (options or TransferOptions()).on_bytes(ref.size)
        return True

    def leaves(self, ref: BlobRef) -> bytes:
        self._fail()
        self._coordinator.access.check_read(self._coordinator[self._name].member, ref)
        return self._coordinator.blobs.leaves(ref)

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)


class FakeWorkbench:
    """participant.bench.workbench.Workbench without a process.

    `failure` is raised by the next preparation or round, once. While `hold` is set, a round waits, and `holding` is set.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.prepared: list[str] = []
        self.asked: list[Train | Evaluate] = []
        self.failure: LLMasOSError | None = None
        self.hello: Hello | None = None
        self.holding = threading.Event()
        self.hold = False
        self.forgotten: set[str] = set()
        self.rested = 0

    def is_ready_for(self, run: str) -> bool:
        return False

    def rest(self) -> None:
        self.rested += 1

    def close(self) -> None:
        self.rested += 1

    def job(self, run: str) -> Path:
        return self._root / run

    def prepare(self, run: RunRecord, tokenizer: Path, over: threading.Event) -> None:
        self._fail()
        self.job(run.run).mkdir(parents=True, exist_ok=True)
        assert tokenizer.exists()
        self.hello = Hello(pid=1, device="cpu", threads=2, capability="AVX2", versions={}, isolated=False)
        self.prepared.append(run.run)

    def forget_runs(self, *, known: Collection[str], keep: Collection[str]) -> None:
        self.forgotten = set(known) - set(keep)

    def remove_base(self, run: str) -> None:
        (self.job(run) / "base.safetensors").unlink(missing_ok=True)

    def place_base(self, run: str, model: Path) -> None:
        (self.job(run) / "base.safetensors").write_bytes(model.read_bytes())

    def place_state(self, run: str, state: Path | None) -> None:
        (self.job(run) / "server-state.safetensors").unlink(missing_ok=True)
        if state is not None:
            (self.job(run) / "server-state.safetensors").write_bytes(state.read_bytes())

    def train(self, message: Train, over: threading.Event, on_progress: Callable[[Progress], None]) -> Result:
        self._work(message, over, on_progress)
        delta = delta_bytes(MANIFEST, random_arrays(MANIFEST, seed=message.round, scale=0.01))
        (self.job(RUN) / message.delta).write_bytes(delta)
        if message.control is not None:
            control = delta_bytes(MANIFEST, random_arrays(MANIFEST, seed=100 + message.round, scale=0.1))
            (self.job(RUN) / message.control).write_bytes(control)
        return Result(
            round=message.round,
            task="train",
            evaluation=EvaluationSums(loss_sum_fixed=2**20, num_tokens=100),
            delta=message.delta,
            num_tokens=20,
            train_loss_fixed=3 * 2**16,
        )

    def evaluate(self, message: Evaluate, over: threading.Event, on_progress: Callable[[Progress], None]) -> Result:
        self._work(message, over, on_progress)
        sums = EvaluationSums(loss_sum_fixed=2**19, num_tokens=100)
        return Result(round=message.round, task="evaluate", evaluation=sums)

    def _work(self, message: Train | Evaluate, over: threading.Event, on_progress: Callable[[Progress], None]) -> None:
        self.asked.append(message)
        self._fail()
        on_progress(Progress(round=message.round, activity="training", steps_done=2, steps_total=2, tokens_done=64))
        if self.hold:
            self.holding.set()
            assert over.wait(30)
            raise RoundOver

    def _fail(self) -> None:
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure


class FakeFollower:
    """What the agent looks at of the follower."""

    failure: LLMasOSError | None = None
    recovering = False
    recoveries = 0


class FakeStatus:
    """What the agent said it does."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.workers: list[dict[str, str | int | bool]] = []
        self.told: dict[str, Any] = {}

    def doing(self, activity: str, **fields: str | int) -> None:
        self.said.append(activity)

    def worker(self, **fields: str | int | bool) -> None:
        self.workers.append(fields)

    def tell(self, **fields: Any) -> None:
        self.told |= fields


class FakePolicy:
    """A PolicySource whose policy the test sets; `problem` without a policy is what cannot be read."""

    def __init__(self, policy: Policy | None) -> None:
        self.policy = policy
        self.problem = ""

    def current(self) -> LoadedPolicy:
        if self.policy is None:
            raise InvalidConfiguration("policy.yaml:3: expected accept, refuse or ask.")
        return LoadedPolicy(self.policy, {}, str(hash(self.policy.model_dump_json())))


class FakeMembership:
    """Notes what the agent asked for."""

    def __init__(self) -> None:
        self.ticks = 0
        self.done: list[str] = []
        self.failures: list[LLMasOSError] = []
        self.on_rotate: Callable[[], object] = lambda: None

    def tick(self) -> None:
        self.ticks += 1

    def rotate(self) -> None:
        self.done.append("rotate")
        self.on_rotate()

    def leave(self, stopping: threading.Event) -> bool:
        if self.failures:
            raise self.failures.pop(0)
        self.done.append("leave")
        return True


class Institution:
    """One institution's agent with everything that it uses."""

    def __init__(self, folder: Path, coordinator: Coordinator, name: str = "north") -> None:
        self.folder, self.coordinator, self.name = folder, coordinator, name
        self.source = FakePolicy(Policy(answer="accept"))
        self.used = Usage()
        self.load: float | None = None
        self.data = [DataSet(folder=folder / "text")]
        self.log = SigningLog(coordinator)
        folder.mkdir(exist_ok=True)
        self._open()

    def _open(self) -> None:
        self.journal = Journal(self.folder / "journal.sqlite")
        self.mirror = Mirror(self.journal, self.coordinator.genesis)
        clock: Any = self.coordinator.clock

        def key() -> Any:
            return self.coordinator[self.name].key

        self.witnessing = Witnessing(WitnessingPorts(self.name, self.mirror, self.journal, key, clock))
        self.blobs = FolderBlobStore(self.folder / "blobs")
        self.session = DirectSession(self.coordinator, self.log, self.name, self.mirror, self.witnessing)
        self.workbench, self.status, self.follower = FakeWorkbench(self.folder / "jobs"), FakeStatus(), FakeFollower()
        self.orders = Orders(self.folder / "journal.sqlite")
        self.records = Records(self.folder / "journal.sqlite")
        self.membership = FakeMembership()
        self.membership.on_rotate = lambda: self.orders.clear("rotate")
        session: Any = self.session
        checkpoint = self.witnessing.checkpoint_for
        self.residuals = Residuals(self.folder / "residuals")
        encoder = DeltaEncoder(self.name, self.blobs, self.residuals, "blake3")
        self.outbox = Outbox(OutboxPorts(self.name, session, self.journal, self.blobs, encoder, key, clock, checkpoint))
        self.gatekeeper = Gatekeeper(self.source, self.orders, self.records, clock, lambda: self.load)
        stand_ins: dict[str, Any] = {"follower": self.follower, "workbench": self.workbench, "status": self.status}
        self.agent = Agent(
            AgentPorts(
                institution=self.name,
                session=session,
                mirror=self.mirror,
                witnesses=self.witnessing,
                outbox=self.outbox,
                blobs=self.blobs,
                residuals=self.residuals,
                policy=self.source,
                usage=lambda run: self.used,
                gatekeeper=self.gatekeeper,
                orders=self.orders,
                records=self.records,
                data=lambda: self.data,
                membership=self.membership,
                clock=clock,
                **stand_ins,
            )
        )
        self.session.catch_up()

    def close(self) -> None:
        self.blobs.close()
        for part in (self.orders, self.records, self.journal):
            part.close()

    def restart(self) -> None:
        """Everything from disk again."""
        self.close()
        self._open()

    @property
    def run(self) -> RunRecord:
        """The run, as this institution sees it now."""
        self.session.catch_up()
        return self.mirror.state.runs[RUN]

    @property
    def round(self) -> RoundRecord:
        record = self.run.open_round
        assert record is not None
        return record

    def open_round(self, **plan: Any) -> RoundRecord:
        """A run whose first round is open for this institution and all others; everyone accepted."""
        self.coordinator.start_run(**plan)
        self.agent.answer(self.run)
        self.others_act()
        return self.round

    def others_act(self) -> None:
        """The other institutions do what they have to do, and the engine then."""
        for name, other in self.coordinator.participants.items():
            if name != self.name:
                other.act()
        self.coordinator.advance()
        self.session.catch_up()

    @property
    def policy(self) -> Policy:
        assert self.source.policy is not None
        return self.source.policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        self.source.policy = policy

    def change_policy(self, **fields: Any) -> None:
        self.policy = Policy.model_validate(self.policy.model_dump() | fields)

    def order(self, kind: Any, **payload: Any) -> None:
        """What a person ordered, by a command."""
        self.orders.give(Order(kind, payload, rfc3339(self.coordinator.clock.now())))

    def decide(self, *, accept: bool, agreement: str = "", reasons: tuple[str, ...] = ()) -> None:
        """What a person decided about the run's plan."""
        now = rfc3339(self.coordinator.clock.now())
        self.orders.decide(Decision(self.run.place.digest, accept, agreement, reasons, now))

    def egress(self) -> list[tuple[str, int]]:
        """Kind and bytes of everything that left; without reports, whose number depends on time."""
        return [(entry.kind, entry.bytes) for entry in self.journal.egress() if entry.kind != REPORTS]
