"""An auditor without network: its journal and mirror over a folder, its calls straight into a coordinator in memory.

auditor = Auditor(tmp_path / "auditor", coordinator)         # enrolled with the role auditor
auditor.catch_up()
[each.result for each in auditor.audit()]                    # ["equal", "equal"]
auditor.link.failures["download"] = [CoordinatorUnreachable("…")]
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from common.blobs.reference import BlobRef
from common.blobs.store import FolderBlobStore
from common.errors import LLMasOSError
from common.statements.kinds import Member
from common.wire.messages import Cosignature, LedgerEntries, MetricsRecord
from common.wire.transfer import TransferOptions
from coordinator.ports import Metrics
from participant.auditing import Audited, Auditing, AuditPorts, catch_up
from participant.fetching import Fetched, folder_for_fetching
from participant.memory.journal import Journal
from participant.memory.mirror import Mirror
from participant.witnessing import Witnessing, WitnessingPorts
from tests.support.coordinators import Coordinator
from tests.support.participants import RUN, FakeParticipant


class Link:
    """What a session would ask of the coordinator. `failures`: raised by the next calls of that name, one each."""

    address = "memory"

    def __init__(self, coordinator: Coordinator, name: str) -> None:
        self._coordinator, self._name = coordinator, name
        self.failures: dict[str, list[LLMasOSError]] = {}
        self.calls: Counter[str] = Counter()
        self.most_entries = 10**6

    @property
    def _member(self) -> Member:
        found = self._coordinator.state.member(self._name)
        assert found is not None
        return found

    def follow(
        self,
        *,
        from_index: int,
        wait_seconds: float,
        cosignature: Cosignature | None = None,
        cosigned_size: int = 0,
    ) -> LedgerEntries:
        self._called("follow")
        found = self._coordinator.ledger.slice(from_index, max_bytes=2**20, wait_seconds=0)
        return LedgerEntries(found.first_index, found.envelopes[: self.most_entries], found.ledger_size)

    def submit(self, envelope: bytes, metrics: MetricsRecord | None = None) -> int:
        self._called("submit")
        beside = Metrics(metrics.content, metrics.salt) if metrics else None
        return self._coordinator.desk.submit(self._member, envelope, beside)

    def expect_readable(self, ref: BlobRef) -> None:
        self._called("expect_readable")
        self._coordinator.access.check_read(self._member, ref)
        self._coordinator.blobs.leaves(ref)

    def download(
        self, ref: BlobRef, store: FolderBlobStore, owner: str, options: TransferOptions | None = None
    ) -> bool:
        self._called("download")
        self._coordinator.access.check_read(self._member, ref)
        upload = store.begin(ref, self._coordinator.blobs.leaves(ref), owner=owner)
        upload.write(0, self._coordinator.blobs.path(ref).read_bytes())  # the blobs of tests have one chunk
        return upload.finish()

    def _called(self, name: str) -> None:
        self.calls[name] += 1
        if self.failures.get(name):
            raise self.failures[name].pop(0)


class Auditor:
    """A member, its home as far as an audit needs it, and what it says on the way."""

    def __init__(self, home: Path, coordinator: Coordinator, name: str = "court-auditor") -> None:
        home.mkdir()
        self.home, self.name = home, name
        self.key = _enrolled(coordinator, name).key
        self.clock = coordinator.clock
        self.link = Link(coordinator, name)
        self.journal = Journal(home / "journal.sqlite")
        self.mirror = Mirror(self.journal, coordinator.genesis)
        self.said: list[str] = []

    def catch_up(self) -> None:
        """What the command does where no daemon runs."""
        ports = WitnessingPorts(self.name, self.mirror, self.journal, lambda: self.key, self.clock)
        catch_up(self.link, self.mirror, Witnessing(ports))

    def audit(self, first: int = 1, last: int | None = None) -> list[Audited]:
        """Every committed round of the one run, as far as the own copy goes."""
        with folder_for_fetching(self.home) as fetched:
            held = FolderBlobStore(self.home / "blobs")
            blobs = Fetched(held, self.link, fetched, self.name, self.said.append, sleep=lambda seconds: None)
            ports = AuditPorts(self.name, self.link, self.journal, blobs, lambda: self.key, self.clock)
            found = list(Auditing(ports).audit(self.mirror.state.runs[RUN], first, last))
            held.close()
        return found


def _enrolled(coordinator: Coordinator, name: str) -> FakeParticipant:
    """Enrolled, and not among those who take part in rounds."""
    made = coordinator.enrol(name, roles=("auditor",))
    del coordinator.participants[name]
    return made
