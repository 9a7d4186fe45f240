"""Who may read and write which blob: by statement, never by knowing a digest (docs/protocol.md#blobs)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, compress, repeat
from operator import is_not

from common.blobs.reference import BlobRef
from common.codecs import codec
from common.errors import (
    BadBlobReference,
    BlobTooLarge,
    NotAuthorised,
    NotInCohort,
    RoleMissing,
    RoundNotOpen,
    TooManyRequests,
    WrongParent,
)
from common.ledger.staleness import is_awaited, most_stale
from common.ledger.state import Contributed, LedgerState, RoundRecord, RunRecord
from common.ledger.tasks import plan_blobs
from common.statements.kinds import Member
from coordinator.ledger import Ledger
from coordinator.ports import UploadPurpose

MAX_BLOBS_A_ROUND = 4
"""Distinct blobs of a kind that one institution may begin for one round: a retrained delta replaces a lost one, a flood is
refused. With SCAFFOLD a contribution has two kinds, delta and control."""


class BlobAccess:
    """Decides from the ledger's newest state; any thread."""

    def __init__(
        self, ledger: Ledger, *, max_plan_blob_bytes: int, recovery: Callable[[Member, BlobRef], None] | None = None
    ) -> None:
        """
        Args:
            recovery: raises where a recovering coordinator has not asked that member for that blob.
        """
        self._ledger, self._recovery = ledger, recovery
        self._max_plan_blob_bytes = max_plan_blob_bytes
        self._lock = threading.Lock()
        self._begun: dict[str, dict[str, set[str]]] = {}
        self._named = NamedBlobs()

    def check_read(self, reader: Member, ref: BlobRef) -> None:
        """
        Raises:
            NotAuthorised: no statement names this blob for this member.
            CoordinatorRecovering: which statements there are is not known.
        """
        self._ledger.gate.expect_open()
        state = self._ledger.state
        with self._lock:
            self._named.learn(state)
            delta, is_state = self._named.delta(ref), self._named.is_server_state(ref)
        if delta is not None:
            allowed = delta.readable_by(reader)
        else:
            may = may_read_state if is_state else may_read_model
            allowed = any(may(run, reader, ref) for run in state.runs.values())
        if not allowed:
            raise NotAuthorised(f"No statement gives {reader.name} the blob {ref}.")

    def check_write(self, writer: Member, ref: BlobRef, purpose: UploadPurpose) -> None:
        """
        Raises:
            RoundNotOpen, NotInCohort, RoleMissing, WrongParent: the blob is not wanted.
            BlobTooLarge, BadBlobReference: it is not what the plan's manifest implies.
            TooManyRequests: the institution began too many different blobs for this round.
            CoordinatorRecovering: which rounds are open is not known.
        """
        if not purpose.recovery:
            self._ledger.gate.expect_open()
        if ref.algorithm != self._ledger.state.genesis.blob_digest:
            raise BadBlobReference(
                f"The blob's algorithm is {ref.algorithm}, this consortium's {self._ledger.state.genesis.blob_digest}."
            )
        if purpose.recovery:
            if self._recovery is None:
                raise NotAuthorised(f"Nobody asked {writer.name} for {ref}.")
            self._recovery(writer, ref)
        elif purpose.plan is not None:
            self._check_plan_blob(writer, ref)
        else:
            self._check_contribution_blob(writer, ref, purpose.round_opened or "")

    def senders(self, purpose: UploadPurpose) -> int:
        """Members of the round's cohort that have not contributed; one for a plan."""
        found = self._ledger.state.round_by_opening(purpose.round_opened) if purpose.round_opened is not None else None
        return 1 if found is None else max(1, len(found[1].missing))

    def _check_plan_blob(self, writer: Member, ref: BlobRef) -> None:
        if "operator" not in writer.roles:
            raise RoleMissing(f"{writer.name} has roles {', '.join(writer.roles)}; plans are sent by an operator.")
        if ref.size > self._max_plan_blob_bytes:
            raise BlobTooLarge(f"A blob of {ref.size:,} bytes for a plan, at most {self._max_plan_blob_bytes:,}.")

    def _check_contribution_blob(self, writer: Member, ref: BlobRef, round_opened: str) -> None:
        found = self._ledger.state.round_by_opening(round_opened)
        if found is None:
            raise WrongParent(f"No round was opened by statement {round_opened[:16]}….")
        run, record = found
        sealed = record.closed.reason if record.closed is not None else self._ledger.seal_of(round_opened)
        if sealed is not None and not (most_stale(run) and is_awaited(run, record.number)):
            raise RoundNotOpen(f"Round {record.number} of {run.run} takes no more contributions: {sealed}.")
        if writer.name not in record.opened.cohort:
            raise NotInCohort(f"{writer.name} is not in the cohort of round {record.number} of {run.run}.")
        if record.opened.task != "train":
            raise BlobTooLarge(f"Round {record.number} of {run.run} measures the model; it takes no blobs.")
        # A control, which only plans with codec float32 have, is of a delta's size.
        expected = codec(run.statement.plan.codec).encoded_size(run.statement.manifest)
        if ref.size != expected:
            raise BlobTooLarge(f"The delta has {ref.size:,} bytes, by the plan's manifest it has {expected:,}.")
        most = MAX_BLOBS_A_ROUND * len(plan_blobs(run.statement.plan))
        with self._lock:
            begun = self._round(round_opened).setdefault(writer.name, set())
            if ref.root not in begun and len(begun) >= most:
                raise TooManyRequests(f"{writer.name} began {most} different blobs for one round already.")
            begun.add(ref.root)

    def _round(self, round_opened: str) -> dict[str, set[str]]:
        """What was begun for a round, by institution; rounds that are over are forgotten when a new one begins."""
        if round_opened not in self._begun:
            open_rounds = {run.open_round.place.digest for run in self._ledger.state.active_runs if run.open_round}
            self._begun = {opened: begun for opened, begun in self._begun.items() if opened in open_rounds}
        return self._begun.setdefault(round_opened, {})


@dataclass(frozen=True, slots=True)
class NamedDelta:
    """A contribution that names a blob, its run and the plan's delta_audience."""

    entry: Contributed
    run: str
    audience: tuple[str, ...]

    def readable_by(self, reader: Member) -> bool:
        """Whether this member contributed it, or is in the audience of the plan that it was contributed to."""
        return reader.name == self.entry.contribution.institution or reader.name in self.audience


class NamedBlobs:
    """Which blobs the ledger names as deltas: asking costs the same however long the ledger is, and so does learning."""

    def __init__(self) -> None:
        self._deltas: dict[BlobRef, NamedDelta] = {}
        self._models: dict[BlobRef, int] = {}
        self._states: set[BlobRef] = set()
        self._state: LedgerState | None = None
        self._rounds: dict[str, tuple[RoundRecord, ...]] = {}

    def learn(self, state: LedgerState) -> NamedBlobs:
        """Take in what that state has and the one before had not. A ledger only grows, so nothing is ever taken out."""
        if state is self._state:
            return self
        for run in state.runs.values():
            known = self._rounds.get(run.run)
            if known is None:
                self._add_model(run.statement.initial.model, run.place.index)
                self._add_model(run.statement.initial.tokenizer, run.place.index)
            before = known or ()
            if run.rounds is not before:
                changed = compress(run.rounds, chain(map(is_not, run.rounds, before), repeat(True)))
                for record in changed:
                    self._add_round(run, record)
                self._rounds[run.run] = run.rounds
        self._state = state
        return self

    def delta(self, ref: BlobRef) -> NamedDelta | None:
        """Whose delta that blob is, or None where it is none.

        The first statement that names a blob decides what it is. Everybody reads digests in the ledger: whoever repeats a
        delta's in a contribution, or as the initial model of a plan, must not get the bytes for that, nor a model's by
        contributing it.
        """
        delta, as_model = self._deltas.get(ref), self._models.get(ref)
        return None if delta is None or (as_model is not None and as_model < delta.entry.place.index) else delta

    def is_server_state(self, ref: BlobRef) -> bool:
        """Whether a round left that blob as its server_state: naming it as a plan's model does not make it one."""
        return ref in self._states

    def _add_deltas(self, named: NamedDelta) -> None:
        for ref in named.entry.contribution.blobs.values():
            known = self._deltas.get(ref)
            if known is None or named.entry.place.index < known.entry.place.index:
                self._deltas[ref] = named

    def _add_round(self, run: RunRecord, record: RoundRecord) -> None:
        for entry in record.contributions.values():
            self._add_deltas(NamedDelta(entry, run.run, run.statement.plan.delta_audience))
        if record.closed is None or record.closed_place is None:
            return
        for ref in record.closed.outputs.blobs:
            self._add_model(ref, record.closed_place.index)
        if record.closed.outputs.server_state is not None:
            self._states.add(record.closed.outputs.server_state)

    def _add_model(self, ref: BlobRef, index: int) -> None:
        self._models[ref] = min(index, self._models.get(ref, index))


def named_as_delta(state: LedgerState, ref: BlobRef) -> NamedDelta | None:
    """As `NamedBlobs.delta`, for who asks once."""
    return NamedBlobs().learn(state).delta(ref)


def may_read_model(run: RunRecord, reader: Member, ref: BlobRef) -> bool:
    """Whether that blob is a model, tokenizer or applied delta of this run, and this member takes part or looks after it."""
    asked = "trainer" in reader.roles or "evaluator" in reader.roles
    refused = reader.name in run.answers and not run.answers[reader.name].answer.accept
    if not ("operator" in reader.roles or "auditor" in reader.roles or (asked and not refused)):
        return False
    models = {run.statement.initial.model, run.statement.initial.tokenizer, run.model}
    return ref in models or any(
        ref == record.opened.inputs.model or (record.closed is not None and ref == record.closed.outputs.applied_delta)
        for record in run.rounds
    )


def may_read_state(run: RunRecord, reader: Member, ref: BlobRef) -> bool:
    """Whether that blob is a server_state of this run, and this member among those who may recompute its rounds; or, where
    it holds SCAFFOLD's control variate alone, in the cohort of a round that starts from it."""
    if run.statement.plan.corrects and any(
        ref == record.opened.inputs.server_state and reader.name in record.opened.cohort for record in run.rounds
    ):
        return True
    if reader.name not in run.statement.plan.delta_audience:
        return False
    return any(record.closed is not None and ref == record.closed.outputs.server_state for record in run.rounds)
