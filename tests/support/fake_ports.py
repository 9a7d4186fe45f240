"""Simple in-memory implementations of coordinator.ports: what a servicer asked for is recorded, what it answers is set."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from common.blobs.reference import BlobRef
from common.blobs.upload import Upload
from common.errors import (
    CoordinatorRecovering,
    LLMasOSError,
    NotAuthorised,
    RefusalError,
    UnknownCertificate,
    UnknownObject,
)
from common.ledger.notes import Note, NoteSignature
from common.statements.kinds import Member, Role
from common.wire.messages import Approved, Cosignature, Estimate, Inquiry, LogHead, Presented, Proposal, Wanted
from coordinator.ports import (
    NOTHING,
    Activity,
    CoordinatorStatus,
    Enrolled,
    EnrolmentOffer,
    EstimateView,
    InstitutionView,
    LedgerSlice,
    LogLine,
    Metrics,
    RenewalOffer,
    RunView,
    Steering,
    UploadPurpose,
)


class FakeLedger:
    """Envelopes that a test appends."""

    def __init__(self) -> None:
        self.envelopes: list[bytes] = []
        self.last_for: dict[str, int] = {}
        self._changed = threading.Condition()

    def append(self, envelope: bytes) -> None:
        with self._changed:
            self.envelopes.append(envelope)
            self._changed.notify_all()

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def slice(
        self, from_index: int, *, max_bytes: int, wait_seconds: float, or_when: Callable[[], bool] = lambda: False
    ) -> LedgerSlice:
        with self._changed:
            self._changed.wait_for(lambda: len(self.envelopes) > from_index or or_when(), wait_seconds)
            found: list[bytes] = []
            for envelope in self.envelopes[from_index:]:
                if found and sum(map(len, found)) + len(envelope) > max_bytes:
                    break
                found.append(envelope)
            return LedgerSlice(from_index, tuple(found), len(self.envelopes))

    def readable_until(self, name: str) -> int | None:
        return self.last_for.get(name)


class FakeLog:
    """A log of `size` entries that a test sets; nothing in its notes verifies."""

    def __init__(self) -> None:
        self.size = 3

    def newest(self) -> Note:
        return Note(
            f"hospitals.example/log\n{self.size}\nroot\n", (NoteSignature("hospitals.example/log", b"abcd", b"s"),)
        )

    def head(self, old_size: int, *, cosigned: bool = True) -> LogHead:
        if old_size > self.size:
            raise UnknownObject(f"The log has {self.size} entries, so no tree of {old_size} is its beginning.")
        return LogHead(self._note(cosigned).encode(), (bytes(32),))

    def receipt(self, index: int, *, cosigned: bool = True) -> bytes:
        if index >= self.size:
            raise UnknownObject(f"The log has {self.size} entries, so there is no entry {index}.")
        return b"receipt %d\n" % index + self._note(cosigned).encode()

    def _note(self, cosigned: bool) -> Note:
        witness = NoteSignature("hospitals.llmasos/north", b"efgh", b"w")
        return self.newest().with_signature(witness) if cosigned else self.newest()


class FakeWitnesses:
    """Cosignatures that came, and what a test says is covered; the opening of an open round stands at `opening`."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, Cosignature]] = []
        self.covered, self.opening = 0, 10**9
        self.refusal: LLMasOSError | None = None

    def take(self, sender: Member, cosignature: Cosignature) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.taken.append((sender.name, cosignature))

    def newly_covers(self, known: int) -> bool:
        return known <= self.opening < self.covered

    def notes_beyond(self, known: int) -> tuple[bytes, ...]:
        return (b"note %d" % self.covered,) if self.covered > known else ()


class FakeMembers:
    """Members by their certificates, until revoked."""

    def __init__(self) -> None:
        self._members: dict[tuple[str, str, str], Member] = {}
        self._left: dict[tuple[str, str, str], Member] = {}

    def add(self, member: Member, consortium: str) -> None:
        identity = f"spiffe://{consortium}/institution/{member.name}"
        for certificate in member.certificates:
            self._members[certificate.serial, certificate.spki_sha256, identity] = member

    def revoke(self, name: str) -> None:
        self._members = {key: member for key, member in self._members.items() if member.name != name}

    def by_certificate(self, serial: str, spki_sha256: str, peer: str) -> Member:
        member = self._members.get((serial, spki_sha256, peer))
        if member is None:
            raise UnknownCertificate(f"No active member holds certificate {serial} as {peer}.")
        return member

    def leave(self, name: str) -> None:
        """From now on only its Follow is let in."""
        self._left |= {key: member for key, member in self._members.items() if member.name == name}
        self.revoke(name)

    def follower_by_certificate(self, serial: str, spki_sha256: str, peer: str) -> Member:
        return self._left.get((serial, spki_sha256, peer)) or self.by_certificate(serial, spki_sha256, peer)


class FakeDesk:
    """Records commands; raises `refusal` or `bug` when a test sets it."""

    def __init__(self) -> None:
        self.submitted: list[tuple[str, bytes, Metrics | None]] = []
        self.offers: list[EnrolmentOffer] = []
        self.renewals: list[RenewalOffer] = []
        self.revoked: list[tuple[str, str]] = []
        self.invited: list[tuple[str, int, tuple[Role, ...]]] = []
        self.plans: list[bytes] = []
        self.controlled: list[tuple[str, str, str]] = []
        self.open: tuple[Proposal, ...] = ()
        self.approved: list[tuple[str, str, bytes]] = []
        self.withdrawn: list[str] = []
        self.failure: LLMasOSError | Exception | None = None
        self.gate: threading.Event | None = None
        self.at_gate = threading.Semaphore(0)
        """Released once for each command that came to the gate."""

    def _go(self) -> None:
        if self.gate is not None:
            self.at_gate.release()
            self.gate.wait(30)
        if self.failure is not None:
            raise self.failure

    def submit(self, sender: Member, envelope: bytes, metrics: Metrics | None) -> int:
        self._go()
        self.submitted.append((sender.name, envelope, metrics))
        return len(self.submitted) - 1

    def enrol(self, offer: EnrolmentOffer) -> Enrolled:
        self._go()
        self.offers.append(offer)
        return Enrolled("-----BEGIN CERTIFICATE-----\n", 7)

    def renew(self, offer: RenewalOffer) -> Enrolled:
        self._go()
        self.renewals.append(offer)
        return Enrolled("-----BEGIN CERTIFICATE-----\n", 8)

    def revoke(self, institution: str, reason: str) -> int:
        self._go()
        self.revoked.append((institution, reason))
        return 10

    def invite(self, institution: str, *, expires_hours: int, roles: tuple[Role, ...]) -> str:
        self._go()
        self.invited.append((institution, expires_hours, roles))
        return "-----BEGIN LLMASOS INVITATION-----"

    def start_run(self, plan_json: bytes) -> str:
        self._go()
        self.plans.append(plan_json)
        return "tiny-000001"

    def control_run(self, run: str, action: str, reason: str, steering: Steering = NOTHING) -> int:
        self._go()
        self.controlled.append((run, action, reason))
        return 9

    # --- approvals ---

    @property
    def open_proposals(self) -> int:
        return len(self.open)

    def proposals(self) -> tuple[Proposal, ...]:
        self._go()
        return self.open

    def approve(self, sender: Member, payload_sha256: str, signature: bytes) -> Approved:
        self._go()
        self.approved.append((sender.name, payload_sha256, signature))
        return Approved(None, 2, len(self.approved))

    def withdraw_proposal(self, payload_sha256: str) -> None:
        self._go()
        self.withdrawn.append(payload_sha256)


class FakeBoard:
    """Records reports; every round is open until `round_open` says otherwise."""

    def __init__(self) -> None:
        self.reports: list[tuple[str, Activity]] = []
        self.round_open = True
        self.last_heard = ""

    def report(self, sender: Member, activity: Activity) -> bool:
        self.reports.append((sender.name, activity))
        return self.round_open

    def heard(self, sender: Member) -> None:
        self.last_heard = sender.name


class FakeAccess:
    """Everybody may write what no refusal is set for; blobs are readable by those who were allowed."""

    def __init__(self) -> None:
        self.readers: set[tuple[str, BlobRef]] = set()
        self.writes: list[tuple[str, BlobRef, UploadPurpose]] = []
        self.refusal: RefusalError | None = None
        self.sending = 1

    def allow(self, reader: str, ref: BlobRef) -> None:
        self.readers.add((reader, ref))

    def check_read(self, reader: Member, ref: BlobRef) -> None:
        if (reader.name, ref) not in self.readers:
            raise NotAuthorised(f"No statement gives {reader.name} blob {ref}.")

    def check_write(self, writer: Member, ref: BlobRef, purpose: UploadPurpose) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.writes.append((writer.name, ref, purpose))

    def senders(self, purpose: UploadPurpose) -> int:
        return self.sending


class FakeViews:
    """Views that a test sets; `watch` yields the run's views in order, then waits for `gate` if there is one."""

    def __init__(self) -> None:
        self.of_institutions: tuple[InstitutionView, ...] = ()
        self.of_runs: dict[str, list[RunView]] = {}
        self.of_logs: list[LogLine] = []
        self.asked_logs: list[tuple[str, str, bool]] = []
        self.of_status: CoordinatorStatus | None = None
        self.gate: threading.Event | None = None

    def institutions(self) -> tuple[InstitutionView, ...]:
        return self.of_institutions

    def runs(self) -> tuple[RunView, ...]:
        return tuple(views[-1] for views in self.of_runs.values())

    def watch(self, run: str) -> Iterator[RunView]:
        if run not in self.of_runs:
            raise UnknownObject(f"No run begins with {run!r}.")
        yield from self.of_runs[run]
        if self.gate is not None:
            self.gate.wait(30)

    def logs(self, run: str, institution: str, *, follow: bool) -> Iterator[LogLine]:
        self.asked_logs.append((run, institution, follow))
        yield from self.of_logs

    def status(self) -> CoordinatorStatus:
        if self.of_status is None:
            raise UnknownObject("No status was set.")
        return self.of_status


class FakeInquiries:
    """Inquiries that a test opens for everybody, and what was answered and asked."""

    def __init__(self) -> None:
        self.open: tuple[Inquiry, ...] = ()
        self.answered: list[tuple[str, Estimate]] = []
        self.asked: list[tuple[bytes, float]] = []
        self.estimates: tuple[EstimateView, ...] = ()

    def open_for(self, member: Member) -> tuple[Inquiry, ...]:
        done = {estimate.id for name, estimate in self.answered if name == member.name}
        return tuple(each for each in self.open if each.id not in done)

    def answer(self, member: Member, estimate: Estimate) -> None:
        self.answered.append((member.name, estimate))

    def ask(self, plan_json: bytes, wait_seconds: float) -> tuple[EstimateView, ...]:
        self.asked.append((plan_json, wait_seconds))
        return self.estimates


class FakeRefusals:
    """What was noted: member, code, purpose."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, str, UploadPurpose | None]] = []

    def note(self, sender: Member, error: LLMasOSError, purpose: UploadPurpose | None, refused_sha256: str) -> None:
        assert len(refused_sha256) == 64
        self.noted.append((sender.name, error.code, purpose))


class FakeArrivals:
    """Looks at nothing that arrives; remembers what was to come."""

    def __init__(self) -> None:
        self.followed: list[tuple[BlobRef, str]] = []

    def follow(self, upload: Upload, round_opened: str) -> None:
        self.followed.append((upload.ref, round_opened))


class FakeBytesMoved:
    """Sums by member."""

    def __init__(self) -> None:
        self.down: dict[str, int] = {}
        self.up: dict[str, int] = {}
        self._lock = threading.Lock()

    def moved(self, member: str, *, down: int = 0, up: int = 0) -> None:
        with self._lock:
            self.down[member] = self.down.get(member, 0) + down
            self.up[member] = self.up.get(member, 0) + up


class FakeRecovery:
    """Nothing to recover, until a test says what the ledger lacks."""

    def __init__(self) -> None:
        self.pending = False
        self.presented: list[tuple[str, Presented]] = []
        self.wanted = Wanted(False, 0)

    def expect_following(self, follower: str, known: int = 0, lineage: int = 0) -> None:
        if self.pending:
            raise CoordinatorRecovering(f"{follower} knows of {known} entries.")

    def present(self, sender: Member, presented: Presented) -> Wanted:
        self.presented.append((sender.name, presented))
        return self.wanted

    def check_upload(self, sender: Member, ref: BlobRef) -> None:
        raise NotAuthorised(f"Nobody asked {sender.name} for {ref}.")


@dataclass(slots=True)
class FakePorts:
    """One of each."""

    ledger: FakeLedger = field(default_factory=FakeLedger)
    log: FakeLog = field(default_factory=FakeLog)
    witnesses: FakeWitnesses = field(default_factory=FakeWitnesses)
    members: FakeMembers = field(default_factory=FakeMembers)
    desk: FakeDesk = field(default_factory=FakeDesk)
    board: FakeBoard = field(default_factory=FakeBoard)
    access: FakeAccess = field(default_factory=FakeAccess)
    views: FakeViews = field(default_factory=FakeViews)
    inquiries: FakeInquiries = field(default_factory=FakeInquiries)
    refusals: FakeRefusals = field(default_factory=FakeRefusals)
    moved: FakeBytesMoved = field(default_factory=FakeBytesMoved)
    recovery: FakeRecovery = field(default_factory=FakeRecovery)
    faults: list[str] = field(default_factory=list)
    """What keeps the coordinator from being ready."""
