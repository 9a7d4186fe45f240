"""One round at this institution: fetch, measure, train, sign, send (docs/protocol.md#round); to be stopped and gone on with."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from common.blobs.reference import BlobRef
from common.clock import rfc3339
from common.errors import CorruptChunk
from common.ledger.cohort import local_seed
from common.ledger.staleness import is_awaited
from common.ledger.state import LedgerState, RoundRecord, RunRecord
from common.logs import get_logger
from common.tensors import delta_size
from common.wire.messages import TransferProgress
from common.wire.transfer import TransferOptions
from participant.bench.workbench import BASE, CONTROL, DELTA, SERVER_STATE, SPARE, RoundOver
from participant.bench.worker_protocol import Evaluate, Progress, Result, Train
from participant.downlink import Downlink
from participant.hours.pausing import Gatekeeper
from participant.memory.records import Measurement, Work
from participant.ports import AgentPorts
from participant.reporter import RoundReporter
from participant.residuals import LOSSLESS, starting_round
from participant.sending import REPORTS
from participant.watching import End, Interrupted, Watch

log = get_logger(__name__)

SEEN_SECONDS = 10.0
BEFORE_ROUNDS = 0
"""What the preparation of data is booked on: it serves all rounds."""


class Preparation:
    """The institution's data, read and tokenised for a run: before the answer, and again where a worker is new."""

    def __init__(self, ports: AgentPorts) -> None:
        self._ports = ports

    def prepare(self, run: RunRecord, over: threading.Event) -> None:
        """
        Raises:
            LLMasOSError: too little or unreadable data, or a worker that does not start.
            RoundOver: `over` was set.
        """
        bench = self._ports.workbench
        if bench.is_ready_for(run.run):
            return
        tokenizer = self.fetch(run.statement.initial.tokenizer, TransferOptions(stop=over))
        with self.booked(run.run, BEFORE_ROUNDS):
            bench.prepare(run, tokenizer, over)
        hello = bench.hello
        if hello is not None:
            self._ports.status.worker(
                device=hello.device,
                ranks=hello.ranks,
                threads=hello.threads,
                capability=hello.capability,
                isolated=hello.isolated,
            )

    def fetch(self, ref: BlobRef, options: TransferOptions) -> Path:
        """A blob's file, downloaded where it is not here yet."""
        ports = self._ports
        if not ports.blobs.contains(ref) and not ports.session.download(ref, ports.blobs, ports.institution, options):
            raise RoundOver
        return ports.blobs.path(ref)

    @contextmanager
    def booked(self, run: str, number: int) -> Iterator[Booking]:
        """Book the worker's time, however the block ends."""
        ports, booking = self._ports, Booking()
        started_at, started = rfc3339(ports.clock.now()), ports.clock.monotonic()
        try:
            yield booking
        finally:
            seconds = ports.clock.monotonic() - started
            if ports.workbench.hello is not None:
                device = device_name(ports.workbench.hello.device)
                ports.records.worked(Work(run, number, started_at, seconds, device, booking.tokens))


class Booking:
    """What a stretch of work came to; `tokens` are a whole round's, booked with its last stretch."""

    tokens: int = 0


class Rounds:
    """Works on rounds; used by the agent's thread."""

    def __init__(self, ports: AgentPorts, preparation: Preparation, tidy: Callable[[], None]) -> None:
        self._ports = ports
        self._preparation = preparation
        self._tidy = tidy
        self._downlink = Downlink(ports.institution, ports.blobs, ports.session)
        self._stopping = threading.Event()

    def begin(self, stopping: threading.Event) -> None:
        """From now on work ends when that event is set."""
        self._stopping = stopping

    def work(self, run: RunRecord, record: RoundRecord) -> None:
        """One round at this institution, docs/protocol.md#round: fetch, measure, train, sign, send.

        Raises:
            Interrupted: it goes on later, from the worker's snapshot.
            RoundOver: the round takes no contribution of ours any more, or this process ends.
            LLMasOSError: what keeps it from being done or sent.
        """
        shows_loss = run.statement.plan.metrics_visibility == "institution"
        reporter = RoundReporter(
            self._ports.session, run.run, record.number, shows_loss=shows_loss, show=self._show_transfer
        )
        try:
            with reporter, Watch(self._ports.mirror, reporter.over, lambda state: self._end(state, record)) as watch:
                try:
                    index = self._contribute(run, record, reporter)
                except RoundOver:
                    if watch.why == "interrupted":
                        raise Interrupted from None
                    raise
        finally:
            self._ports.outbox.book(REPORTS, reporter.bytes_told, record.place.digest)
        self._ports.mirror.wait_beyond(index, SEEN_SECONDS)

    def _contribute(self, run: RunRecord, record: RoundRecord, reporter: RoundReporter) -> int:
        """Ledger index of the contribution; what was signed before is sent as it is."""
        outbox = self._ports.outbox
        signed = outbox.contributed(record)
        if signed is None:
            result = self._compute(run, record, reporter)
            reporter.activity("sending")
            signed = outbox.sign_contribution(run, record, result, self._delta_file(run, result))
        reporter.activity("sending")
        self._tell("sending", run, record)
        return outbox.send_contribution(record, signed, reporter)

    def _end(self, state: LedgerState, record: RoundRecord) -> End | None:
        """Why the work on a round is to end."""
        if self._stopping.is_set():
            return "stopping"
        if self._ports.follower.failure is not None:
            return "over"  # revoked, or another history: whatever comes of it, nobody takes it
        found = state.round_by_opening(record.place.digest)
        if found is not None and not is_awaited(found[0], record.number):
            return "over"
        leave = self._ports.orders.get("leave")
        if leave is not None and not leave.payload.get("after_round", True):
            return "over"
        signed = self._ports.outbox.contributed(record) is not None
        return "interrupted" if stops_now(self._ports.gatekeeper, signed=signed) else None

    def _compute(self, run: RunRecord, record: RoundRecord, reporter: RoundReporter) -> Result:
        """The round's own work: base model, measurement, training."""
        bench = self._ports.workbench
        self._tell("fetching the model", run, record)
        reporter.activity("fetching")
        model = self._fetch_base(run, record, reporter)
        self._tidy()
        reporter.activity("preparing")
        self._preparation.prepare(run, reporter.over)
        bench.place_base(run.run, model)
        if run.statement.plan.corrects and record.opened.task == "train":
            bench.place_state(run.run, self._fetch_state(record, reporter))
        self._tell(f"{record.opened.task} round", run, record)

        def on_progress(progress: Progress) -> None:
            self._ports.membership.tick()  # a round may outlast the certificate
            reporter.progress(
                progress.activity, progress.steps_done, progress.steps_total, progress.tokens_done, progress.loss_fixed
            )

        with self._preparation.booked(run.run, record.number) as booking, self._discarding_damaged(run, record):
            if record.opened.task == "evaluate":
                result = bench.evaluate(self._evaluate_message(run, record), reporter.over, on_progress)
            else:
                result = bench.train(self._train_message(run, record), reporter.over, on_progress)
            booking.tokens = result.num_tokens
        self._measured(run, record, result)
        return result

    @contextmanager
    def _discarding_damaged(self, run: RunRecord, record: RoundRecord) -> Iterator[None]:
        """A base model that the worker found damaged goes, so that the next try fetches it again."""
        try:
            yield
        except CorruptChunk as err:
            model = record.opened.inputs.model
            log.warning("blob damaged on disk", extra={"root": model.root, "error": err.message})
            self._ports.workbench.remove_base(run.run)
            self._ports.blobs.delete(model)
            raise

    def _train_message(self, run: RunRecord, record: RoundRecord) -> Train:
        corrects = run.statement.plan.corrects
        if run.statement.plan.codec.type == LOSSLESS:  # else the worker's file stays in the job folder
            size = delta_size(run.statement.manifest)
            self._ports.blobs.lend(size, self._ports.workbench.job(run.run) / SPARE)
        return Train(
            round=record.number,
            trained_rounds=len(run.committed()),
            seed=local_seed(record.opened.seed, self._ports.institution),
            base=BASE,
            delta=DELTA,
            spare=SPARE,
            personal=self._personal(run, record),
            rolled_back=_rolled_back(run),
            control=CONTROL if corrects else None,
            control_round=self._newest_used(run, record) if corrects else 0,
            server_state=SERVER_STATE if corrects and record.opened.inputs.server_state is not None else None,
            resume=True,
            base_ref=record.opened.inputs.model,
        )

    def _evaluate_message(self, run: RunRecord, record: RoundRecord) -> Evaluate:
        model = record.opened.inputs.model
        return Evaluate(round=record.number, base=BASE, personal=self._personal(run, record), base_ref=model)

    def _personal(self, run: RunRecord, record: RoundRecord) -> int:
        """The round whose personal layers belong to this one's base model: the newest to which our delta went; 0: none yet."""
        return self._newest_used(run, record) if run.statement.plan.personal else 0

    def _newest_used(self, run: RunRecord, record: RoundRecord) -> int:
        return starting_round(run, self._ports.institution, record.number) or 0

    def _measured(self, run: RunRecord, record: RoundRecord, result: Result) -> None:
        """Remember how the consortium's model does on this institution's text; it stays here."""
        sums, at = result.evaluation, rfc3339(self._ports.clock.now())
        measurement = Measurement(run.run, record.number, record.opened.task, sums.loss_sum_fixed, sums.num_tokens, at)
        self._ports.records.measured(measurement)

    def _delta_file(self, run: RunRecord, result: Result) -> Path | None:
        return self._ports.workbench.job(run.run) / DELTA if result.delta is not None else None

    def _tell(self, activity: str, run: RunRecord, record: RoundRecord) -> None:
        deadline = record.deadline
        self._ports.status.doing(activity, run=run.run, round=record.number, deadline=deadline)

    def _show_transfer(self, transfer: TransferProgress | None) -> None:
        self._ports.status.tell(transfer=asdict(transfer) if transfer is not None else None)

    def _fetch_base(self, run: RunRecord, record: RoundRecord, reporter: RoundReporter) -> Path:
        """The round's base model, in the place of the last round's: made from it by applied deltas, or fetched."""
        self._ports.workbench.remove_base(run.run)
        earlier = (before.opened.inputs.model for before in reversed(run.rounds) if before.number < record.number)
        options = TransferOptions(
            on_bytes=reporter.fetched,
            on_progress=reporter.transferring,
            stop=reporter.over,
            durable=False,  # what a power failure damages is found at the next start and fetched again
            instead_of=next(filter(self._ports.blobs.contains, earlier), None),
        )
        self._downlink.bring(run, record.opened.inputs.model, options)
        return self._preparation.fetch(record.opened.inputs.model, options)

    def _fetch_state(self, record: RoundRecord, reporter: RoundReporter) -> Path | None:
        """The consortium's control variate; None before the first commit."""
        ref = record.opened.inputs.server_state
        if ref is None:
            return None
        options = TransferOptions(
            on_bytes=reporter.fetched, on_progress=reporter.transferring, stop=reporter.over, durable=False
        )
        return self._preparation.fetch(ref, options)


def _rolled_back(run: RunRecord) -> tuple[tuple[int, int], ...]:
    """First and last of each stretch of rounds that were rolled back."""
    found: list[tuple[int, int]] = []
    for record in run.rounds:
        if record.rolled_back and found and found[-1][1] == record.number - 1:
            found[-1] = (found[-1][0], record.number)
        elif record.rolled_back:
            found.append((record.number, record.number))
    return tuple(found)


def stops_now(gatekeeper: Gatekeeper, *, signed: bool) -> bool:
    """Whether work on a round stops at once.

    A contribution that is signed takes no more of the machine and is sent at any hour; only a person's `pause --now` holds it.
    """
    closed = gatekeeper.closed()
    if closed is None or not closed.now:
        return False
    if not signed:
        return True
    order = gatekeeper.paused()
    return order is not None and bool(order.payload.get("now"))


def device_name(device: str) -> str:
    """How records name the worker's device: cpu, or the GPU's name."""
    kind, _, name = device.partition(": ")
    return "cpu" if kind == "cpu" else name or kind
