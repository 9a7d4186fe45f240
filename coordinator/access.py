"""Who may read and write which blob: by statement, never by knowing a digest (docs/protocol.md#blobs)."""

from __future__ import annotations

import threading

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
from common.ledger.state import LedgerState, RunRecord
from common.statements.kinds import Member
from coordinator.ledger import Ledger
from coordinator.ports import UploadPurpose

MAX_BLOBS_A_ROUND = 4
"""Distinct blobs that one institution may begin for one round: a retrained delta replaces a lost one, a flood is refused."""


class BlobAccess:
    """Decides from the ledger's newest state; any thread."""

    def __init__(self, ledger: Ledger, *, max_plan_blob_bytes: int) -> None:
        self._ledger = ledger
        self._max_plan_blob_bytes = max_plan_blob_bytes
        self._lock = threading.Lock()
        self._begun: dict[tuple[str, str], set[str]] = {}

    def check_read(self, reader: Member, ref: BlobRef) -> None:
        """
        Raises:
            NotAuthorised: no statement names this blob for this member.
        """
        state = self._ledger.state
        if any(may_read_model(run, reader, ref) for run in state.runs.values()) or may_read_delta(state, reader, ref):
            return
        raise NotAuthorised(f"No statement gives {reader.name} the blob {ref}.")

    def check_write(self, writer: Member, ref: BlobRef, purpose: UploadPurpose) -> None:
        """
        Raises:
            RoundNotOpen, NotInCohort, RoleMissing, WrongParent: the blob is not wanted.
            BlobTooLarge, BadBlobReference: it is not what the plan's manifest implies.
            TooManyRequests: the institution began too many different blobs for this round.
        """
        if ref.algorithm != self._ledger.state.genesis.blob_digest:
            raise BadBlobReference(
                f"The blob's algorithm is {ref.algorithm}, this consortium's {self._ledger.state.genesis.blob_digest}."
            )
        if purpose.plan is not None:
            self._check_plan_blob(writer, ref)
        else:
            self._check_contribution_blob(writer, ref, purpose.round_opened or "")

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
        if record.closed is not None or self._ledger.seal_of(round_opened) is not None:
            raise RoundNotOpen(f"Round {record.number} of {run.run} takes no more contributions.")
        if writer.name not in record.opened.cohort:
            raise NotInCohort(f"{writer.name} is not in the cohort of round {record.number} of {run.run}.")
        if record.opened.task != "train":
            raise BlobTooLarge(f"Round {record.number} of {run.run} measures the model; it takes no blobs.")
        expected = codec(run.statement.plan.codec).encoded_size(run.statement.manifest)
        if ref.size != expected:
            raise BlobTooLarge(f"The delta has {ref.size:,} bytes, by the plan's manifest it has {expected:,}.")
        with self._lock:
            begun = self._begun.setdefault((writer.name, round_opened), set())
            begun.add(ref.root)
            if len(begun) > MAX_BLOBS_A_ROUND:
                begun.discard(ref.root)
                raise TooManyRequests(f"{writer.name} began {MAX_BLOBS_A_ROUND} different blobs for one round already.")


def may_read_model(run: RunRecord, reader: Member, ref: BlobRef) -> bool:
    """Whether that blob is a model or tokenizer of this run, and this member takes part or looks after it."""
    asked = "trainer" in reader.roles or "evaluator" in reader.roles
    refused = reader.name in run.answers and not run.answers[reader.name].answer.accept
    if not ("operator" in reader.roles or "auditor" in reader.roles or (asked and not refused)):
        return False
    models = {run.statement.initial.model, run.statement.initial.tokenizer, run.model}
    return ref in models or any(ref == record.opened.inputs.model for record in run.rounds)


def may_read_delta(state: LedgerState, reader: Member, ref: BlobRef) -> bool:
    """Whether this member contributed that delta, or is in the audience of the plan that it was contributed to.

    The first statement that names a blob decides: everybody reads digests in the ledger, and whoever repeats one in a
    contribution of its own must not get the bytes for that.
    """
    named = [
        (entry, run)
        for run in state.runs.values()
        for record in run.rounds
        for entry in record.contributions.values()
        if ref in entry.contribution.blobs.values()
    ]
    if not named:
        return False
    entry, run = min(named, key=lambda each: each[0].place.index)
    return reader.name == entry.contribution.institution or reader.name in run.statement.plan.delta_audience
