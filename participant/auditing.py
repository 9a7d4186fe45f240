"""An auditor's work: committed rounds recomputed from their sealed deltas, and what came of it signed.

    own copy, caught up ─▶ inputs fetched ─▶ recomputed ─▶ attestation: journalled, then sent ─▶ inputs deleted ─▶ next round

Interrupted anywhere, the same command goes on: what is in the ledger is not done again, what was signed is sent as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from common.clock import Clock, rfc3339
from common.errors import BlobError, RoleMissing
from common.identity.keys import SigningKey
from common.ledger.state import LedgerState, Place, RoundRecord, RunRecord
from common.statements.envelope import Parent, parse, sign, signed_under
from common.statements.kinds import Attestation, RoundOutputs
from common.verify.material import Blobs
from common.verify.rounds import Recomputed, first_difference, in_words, recompute_round
from common.wire.messages import Cosignature, LedgerEntries, MetricsRecord
from participant.memory.journal import Egress, Journal, SignedSlot
from participant.memory.mirror import Mirror
from participant.tasks import attestation_slot
from participant.witnessing import Witnessing

Found = Literal["equal", "different", "unknown"]


@dataclass(frozen=True, slots=True)
class Audited:
    """What is known of one round. `index`: of this institution's attestation; None where it made none."""

    round: int
    result: Found
    text: str
    index: int | None = None


class Coordinator(Protocol):
    """Who keeps the ledger; common.wire.session.Session is one."""

    address: str

    def follow(
        self,
        *,
        from_index: int,
        wait_seconds: float,
        cosignature: Cosignature | None = None,
        cosigned_size: int = 0,
    ) -> LedgerEntries: ...

    def submit(self, envelope: bytes, metrics: MetricsRecord | None = None) -> int: ...


@dataclass(frozen=True, slots=True)
class AuditPorts:
    """Everything that an audit uses."""

    institution: str
    coordinator: Coordinator
    journal: Journal
    blobs: Blobs
    """Best a Fetching: what an auditor holds by itself is little."""
    key: Callable[[], SigningKey]
    """The one that the roster names now."""
    clock: Clock


def expect_auditor(state: LedgerState, institution: str) -> None:
    """
    Raises:
        RoleMissing: this institution is no active member with the role auditor.
    """
    member = state.member(institution)
    if member is None or not state.is_active(institution):
        raise RoleMissing(f"{institution} is no active member of {state.genesis.consortium}.")
    if "auditor" not in member.roles:
        raise RoleMissing(
            f"{institution} takes part as {', '.join(member.roles)}; what an auditor recomputed counts for others.",
            "An auditor joins by an invitation of its own: llmasos-coordinator institution invite NAME --role auditor. "
            "To recompute for yourself: llmasos-participant verify.",
        )


def catch_up(coordinator: Coordinator, mirror: Mirror, witnessing: Witnessing) -> None:
    """All that the ledger has now into the own copy, each entry and checkpoint verified, as the daemon's follower does.

    Raises:
        LedgerConflict: it does not follow from what is here; TwoHistories by name.
    """
    while True:
        before = mirror.state.size
        entries = coordinator.follow(from_index=before, wait_seconds=0, cosigned_size=witnessing.covered)
        try:
            if entries.envelopes:
                mirror.admit(entries.first_index, entries.envelopes)
        finally:
            witnessing.heard(entries)
        if mirror.state.size == before:
            return


class Auditing:
    """Audits rounds, one after the other."""

    def __init__(self, ports: AuditPorts) -> None:
        self._ports = ports

    def audit(self, run: RunRecord, first: int = 1, last: int | None = None) -> Iterator[Audited]:
        """Every committed training round of these numbers, ascending; attested as far as its inputs can be had.

        Raises:
            CoordinatorUnreachable, RefusalError: an attestation is signed and was not taken; the same call sends it again.
        """
        for record in run.ever_committed("train"):
            if first <= record.number and (last is None or record.number <= last):
                yield self._round(run, record)

    def _round(self, run: RunRecord, record: RoundRecord) -> Audited:
        closed, place = record.closed, record.closed_place
        if closed is None or place is None:
            raise ValueError(f"round {record.number} is not closed")
        known = record.attestations.get(self._ports.institution)
        if known is not None:
            return Audited(record.number, known.attestation.result, "attested before", known.place.index)
        signed = self._ports.journal.signed(attestation_slot(place))
        if signed is not None:
            return self._send(record, signed)
        found = recompute_round(run, record, self._ports.blobs)
        if found.outputs is None:
            return _without_model(record, found)
        if found.model == closed.outputs.model and found.outputs != closed.outputs:
            return _another_output(record, found.outputs, closed.outputs)
        attestation = Attestation(
            institution=self._ports.institution,
            run=run.run,
            round=record.number,
            result="equal" if found.model == closed.outputs.model else "different",
            model=found.outputs.model,
        )
        return self._send(record, self._sign(attestation, place))

    def _sign(self, attestation: Attestation, parent: Place) -> SignedSlot:
        """Sign, and keep before it is sent."""
        statement = sign(attestation, parent=Parent(parent.kind.value, parent.digest), key=self._ports.key())
        now = rfc3339(self._ports.clock.now())
        entry = SignedSlot(attestation_slot(parent), statement.digest, statement.envelope, b"", b"", now)
        self._ports.journal.sign(entry)
        return entry

    def _send(self, record: RoundRecord, signed: SignedSlot) -> Audited:
        ports, said = self._ports, _attestation(signed)
        envelope = signed_under(signed.envelope, ports.key())
        index = ports.coordinator.submit(envelope)
        now = rfc3339(ports.clock.now())
        ports.journal.book(Egress(now, "attestation", len(envelope), signed.digest, ports.coordinator.address))
        text = "attested" if said.result == "equal" else f"attested: the inputs give {said.model}"
        return Audited(record.number, said.result, text, index)


def _without_model(record: RoundRecord, found: Recomputed) -> Audited:
    """A round about which nothing can be signed: an attestation names a model."""
    if found.fault is None:
        return Audited(record.number, "unknown", in_words(found.lacking))
    fault = f"{found.fault.message} ({found.fault.code})"
    if isinstance(found.fault, BlobError):
        return Audited(record.number, "unknown", f"an input came to harm here: {fault}")
    return Audited(record.number, "different", f"no attestation, since the inputs give no model: {fault}")


def _another_output(record: RoundRecord, computed: RoundOutputs, committed: RoundOutputs) -> Audited:
    """An attestation has words for the model alone, which is right: what is wrong is told, and nothing attested."""
    name, wanted, got = first_difference(computed, committed)
    text = f"no attestation: the model is equal, but the inputs give {name} {wanted}, and the round closed with {got}"
    return Audited(record.number, "different", text)


def _attestation(signed: SignedSlot) -> Attestation:
    predicate = parse(signed.envelope).predicate
    if not isinstance(predicate, Attestation):
        raise TypeError(f"slot {signed.slot} holds a {type(predicate).__name__}")
    return predicate
