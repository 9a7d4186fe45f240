"""What leaves this institution: signed once, journalled before it is sent, booked when it left."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from common import strict_json
from common.blobs.reference import BlobRef
from common.blobs.store import FolderBlobStore
from common.clock import Clock, rfc3339
from common.errors import MissingBlob
from common.identity.keys import SigningKey
from common.ledger.state import Place, RoundRecord, RunRecord
from common.statements.envelope import Parent, parse, sign, signed_under
from common.statements.kinds import Answer, ClearWeight, Contribution, Predicate
from common.wire.messages import MetricsRecord, Purpose
from common.wire.session import Session
from common.wire.transfer import TransferOptions
from participant.bench.workbench import RoundOver
from participant.bench.worker_protocol import Result
from participant.encoding import DeltaEncoder, Offered
from participant.memory.journal import Egress, Journal, SignedSlot
from participant.reporter import RoundReporter
from participant.tasks import answer_slot, contribution_slot

REPORTS, ESTIMATE = "reports", "estimate"
"""Kinds of what left besides statements and blobs: how work goes, booked by round; what policies say to a draft."""


@dataclass(frozen=True, slots=True)
class OutboxPorts:
    """Everything the outbox uses."""

    institution: str
    session: Session
    journal: Journal
    blobs: FolderBlobStore
    encoder: DeltaEncoder
    key: Callable[[], SigningKey]
    """The one that the roster names now."""
    clock: Clock
    checkpoint: Callable[[int], str | None]
    """The newest checkpoint that was verified here, if its tree holds the entry of that index."""


class Outbox:
    """Signs and sends; after a crash it sends the same bytes again."""

    def __init__(self, ports: OutboxPorts) -> None:
        self._ports = ports

    def answered(self, run: RunRecord) -> SignedSlot | None:
        """The answer that was signed for this plan."""
        return self._ports.journal.signed(answer_slot(run))

    def contributed(self, record: RoundRecord) -> SignedSlot | None:
        """The contribution that was signed for this round."""
        return self._ports.journal.signed(contribution_slot(record))

    def blobs_of(self, record: RoundRecord) -> set[str]:
        """Roots of the blobs that this institution's contribution to the round names."""
        signed = self.contributed(record)
        return {ref.root for ref in _contribution(signed).blobs.values()} if signed else set()

    # --- signing -----------------------------------------------------------------------------------------------------

    def sign_answer(
        self,
        run: RunRecord,
        *,
        accept: bool,
        protocol_version: int = 1,
        reasons: tuple[str, ...] = (),
        agreement: str | None = None,
        availability: tuple[str, ...] = (),
    ) -> SignedSlot:
        """Sign and journal the answer to a plan.

        Args:
            protocol_version: of those that the plan offers, as common.statements.versions says.
            agreement: SHA-256 of a data-use agreement.
            availability: windows, as common.windows writes them.
        """
        answer = Answer(
            institution=self._ports.institution,
            run=run.run,
            accept=accept,
            reasons=reasons,
            protocol_version=protocol_version,
            nonce=secrets.token_hex(32),
            data_use_agreement=agreement,
            availability=availability,
        )
        return self._sign(answer_slot(run), answer, run.place, b"", b"")

    def sign_contribution(self, run: RunRecord, record: RoundRecord, result: Result, delta: Path | None) -> SignedSlot:
        """Take the delta into the blob store by the plan's codec, sign and journal the contribution.

        The metrics get a fresh salt, so that the commitment in the ledger tells nothing about them.
        """
        offered = self._ports.encoder.take(run, record, delta) if delta is not None else Offered({})
        measured: dict[str, strict_json.JsonValue] = {"evaluation": result.evaluation.model_dump()}
        if result.train_loss_fixed is not None:
            measured["train_loss_fixed"] = result.train_loss_fixed
        metrics, salt = strict_json.dumps(measured), secrets.token_bytes(32)
        contribution = Contribution.model_validate(
            {
                "institution": self._ports.institution,
                "run": run.run,
                "round": record.number,
                "blobs": offered.blobs,
                "weight": ClearWeight(num_tokens=result.num_tokens, num_bytes=result.num_bytes),
                "metrics_commitment": sha256(salt + metrics).hexdigest(),
                "checkpoint": self._ports.checkpoint(record.place.index),
                "deviations": (*result.deviations, *offered.deviations),
            }
        )
        visible = run.statement.plan.metrics_visibility != "none"
        return self._sign(
            contribution_slot(record), contribution, record.place, metrics if visible else b"", salt if visible else b""
        )

    def _sign(self, slot: str, predicate: Predicate, parent: Place, metrics: bytes, salt: bytes) -> SignedSlot:
        statement = sign(predicate, parent=Parent(parent.kind.value, parent.digest), key=self._ports.key())
        entry = SignedSlot(slot, statement.digest, statement.envelope, metrics, salt, rfc3339(self._ports.clock.now()))
        self._ports.journal.sign(entry)
        return entry

    # --- sending -----------------------------------------------------------------------------------------------------

    def send_answer(self, run: RunRecord, signed: SignedSlot) -> int:
        """Ledger index of the answer."""
        index = self._ports.session.submit(self._under_key(signed))
        self.book("answer", len(signed.envelope), signed.digest)
        return index

    def send_contribution(self, record: RoundRecord, signed: SignedSlot, reporter: RoundReporter) -> int:
        """Send the blobs, then the statement; its ledger index.

        Raises:
            RoundOver: the round closed meanwhile.
            MissingBlob: a blob that was signed for is gone from this disk.
        """
        for name, ref in _contribution(signed).blobs.items():
            if not self._ports.blobs.contains(ref):
                raise MissingBlob(
                    f"The {name} of round {record.number}, {ref}, was signed but is not in the blob folder.",
                    "Restore the participant's blobs folder; this round cannot be signed again.",
                )
            self._send_blob(name, ref, Purpose(round_opened=record.place.digest), reporter)
        metrics = MetricsRecord(signed.metrics, signed.salt) if signed.metrics else None
        index = self._ports.session.submit(self._under_key(signed), metrics)
        self.book("contribution", len(signed.envelope) + len(signed.metrics), signed.digest)
        return index

    def _under_key(self, signed: SignedSlot) -> bytes:
        """The envelope under the key of now: what was signed before a rotation and not sent is signed again, as it stands."""
        return signed_under(signed.envelope, self._ports.key())

    def _send_blob(self, name: str, ref: BlobRef, purpose: Purpose, reporter: RoundReporter) -> None:
        """Send what the coordinator lacks of a blob; what left is booked, also where the rest of it did not."""
        left = 0

        def on_bytes(count: int) -> None:
            nonlocal left
            left += count
            reporter.sent(count)

        try:
            with self._ports.blobs.open(ref) as reader:
                options = TransferOptions(on_bytes=on_bytes, on_progress=reporter.transferring, stop=reporter.over)
                if not self._ports.session.upload(reader, purpose, options):
                    raise RoundOver
        finally:
            if left:
                self.book(name, left, ref.root)

    def book(self, kind: str, size: int, digest: str) -> None:
        """Book bytes that left; `digest` is theirs, or that of the statement that they belong to."""
        now = rfc3339(self._ports.clock.now())
        self._ports.journal.book(Egress(now, kind, size, digest, self._ports.session.address))


def _contribution(signed: SignedSlot) -> Contribution:
    predicate = parse(signed.envelope).predicate
    if not isinstance(predicate, Contribution):
        raise TypeError(f"slot {signed.slot} holds a {type(predicate).__name__}")
    return predicate
