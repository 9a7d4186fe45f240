"""Simple in-memory implementations of coordinator/ports.py: what a servicer asked for is recorded, what it answers is set."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from common.blobs.reference import BlobRef
from common.errors import LLMasOSError, NotAuthorised, RefusalError, UnknownCertificate, UnknownObject
from common.statements.kinds import Member, Role
from coordinator.ports import (
    Activity,
    Enrolled,
    EnrolmentOffer,
    InstitutionView,
    LedgerSlice,
    Metrics,
    RunView,
    UploadPurpose,
)


class FakeLedger:
    """Envelopes that a test appends."""

    def __init__(self) -> None:
        self.envelopes: list[bytes] = []
        self._changed = threading.Condition()

    def append(self, envelope: bytes) -> None:
        with self._changed:
            self.envelopes.append(envelope)
            self._changed.notify_all()

    def slice(self, from_index: int, *, max_bytes: int, wait_seconds: float) -> LedgerSlice:
        with self._changed:
            self._changed.wait_for(lambda: len(self.envelopes) > from_index, wait_seconds)
            found: list[bytes] = []
            for envelope in self.envelopes[from_index:]:
                if found and sum(map(len, found)) + len(envelope) > max_bytes:
                    break
                found.append(envelope)
            return LedgerSlice(from_index, tuple(found), len(self.envelopes))


class FakeMembers:
    """Members by their certificates, until revoked."""

    def __init__(self) -> None:
        self._members: dict[tuple[str, str, str], Member] = {}

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


class FakeDesk:
    """Records commands; raises `refusal` or `bug` when a test sets it."""

    def __init__(self) -> None:
        self.submitted: list[tuple[str, bytes, Metrics | None]] = []
        self.offers: list[EnrolmentOffer] = []
        self.invited: list[tuple[str, int, tuple[Role, ...]]] = []
        self.plans: list[bytes] = []
        self.controlled: list[tuple[str, str, str]] = []
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

    def invite(self, institution: str, *, expires_hours: int, roles: tuple[Role, ...]) -> str:
        self._go()
        self.invited.append((institution, expires_hours, roles))
        return "-----BEGIN LLMASOS INVITATION-----"

    def start_run(self, plan_json: bytes) -> str:
        self._go()
        self.plans.append(plan_json)
        return "tiny-000001"

    def control_run(self, run: str, action: str, reason: str) -> int:
        self._go()
        self.controlled.append((run, action, reason))
        return 9


class FakeBoard:
    """Records reports; every round is open until `round_open` says otherwise."""

    def __init__(self) -> None:
        self.reports: list[tuple[str, Activity]] = []
        self.round_open = True

    def report(self, sender: Member, activity: Activity) -> bool:
        self.reports.append((sender.name, activity))
        return self.round_open


class FakeAccess:
    """Everybody may write what no refusal is set for; blobs are readable by those who were allowed."""

    def __init__(self) -> None:
        self.readers: set[tuple[str, BlobRef]] = set()
        self.writes: list[tuple[str, BlobRef, UploadPurpose]] = []
        self.refusal: RefusalError | None = None

    def allow(self, reader: str, ref: BlobRef) -> None:
        self.readers.add((reader, ref))

    def check_read(self, reader: Member, ref: BlobRef) -> None:
        if (reader.name, ref) not in self.readers:
            raise NotAuthorised(f"No statement gives {reader.name} blob {ref}.")

    def check_write(self, writer: Member, ref: BlobRef, purpose: UploadPurpose) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.writes.append((writer.name, ref, purpose))


class FakeViews:
    """Views that a test sets; `watch` yields the run's views in order, then waits for `gate` if there is one."""

    def __init__(self) -> None:
        self.of_institutions: tuple[InstitutionView, ...] = ()
        self.of_runs: dict[str, list[RunView]] = {}
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


@dataclass(slots=True)
class FakePorts:
    """One of each."""

    ledger: FakeLedger = field(default_factory=FakeLedger)
    members: FakeMembers = field(default_factory=FakeMembers)
    desk: FakeDesk = field(default_factory=FakeDesk)
    board: FakeBoard = field(default_factory=FakeBoard)
    access: FakeAccess = field(default_factory=FakeAccess)
    views: FakeViews = field(default_factory=FakeViews)
    moved: FakeBytesMoved = field(default_factory=FakeBytesMoved)
