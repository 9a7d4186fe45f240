"""Institutions that keep what they were shown, with the daemon's real parts, and bring it back to a restored coordinator.

    keeper = Keeper(coordinator, "north", tmp_path)
    keeper.follow()                                  # entries, and the log's newest checkpoint
    moved_to(coordinator, restored(backup, home))    # the coordinator's process goes on over an older home
    keeper.hand_back()

The session is the coordinator's own parts without a network, each message encoded and decoded as on the wire.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from common.backup.restoring import restore
from common.blobs.reader import BlobReader, chunk_buffer
from common.blobs.reference import BlobRef
from common.blobs.store import FolderBlobStore
from common.clock import ManualClock
from common.wire.convert_recovery import present_from_wire, present_to_wire, wanted_from_wire, wanted_to_wire
from common.wire.messages import LedgerEntries, Presented, Purpose, Wanted
from coordinator.config import HomeLayout
from coordinator.ports import UploadPurpose
from coordinator.recovery.backing_up import BlobChoice, back_up, check_restored
from participant.handing_back import HandingBack, HandingBackPorts
from participant.memory.journal import Journal, SignedSlot
from participant.memory.mirror import Mirror
from participant.witnessing import Witnessing, WitnessingPorts
from tests.support.coordinators import Coordinator
from tests.support.participants import RUN


def backed_up(coordinator: Coordinator, file: Path, blobs: BlobChoice = "needed") -> Path:
    back_up(coordinator.layout, file, blobs, coordinator.clock)
    return file


def restored(file: Path, home: Path) -> HomeLayout:
    restore(file, home, "coordinator", ManualClock(), check_restored)
    return HomeLayout(home)


def moved_to(coordinator: Coordinator, layout: HomeLayout) -> None:
    """The coordinator's process goes on over that home; the institutions are the same."""
    coordinator.close()
    shutil.rmtree(coordinator.layout.home)
    coordinator.layout = layout
    coordinator._open()


class KeeperSession:
    """The calls that handing back makes, at a coordinator in this process."""

    address = "127.0.0.1:7443"

    def __init__(self, coordinator: Coordinator, name: str) -> None:
        self._coordinator, self._name = coordinator, name
        self.presented: list[Presented] = []
        self.uploaded: list[BlobRef] = []

    def present(self, presented: Presented) -> Wanted:
        self.presented.append(presented)
        sent = present_from_wire(present_to_wire(presented))
        member = self._coordinator[self._name].member
        return wanted_from_wire(wanted_to_wire(self._coordinator.recovery.present(member, sent)))

    def follow(self, *, from_index: int, wait_seconds: float, lineage: int) -> LedgerEntries:
        self._coordinator.recovery.expect_following(self._name, from_index, lineage)
        envelopes = tuple(self._coordinator.envelopes()[from_index:])
        return LedgerEntries(from_index, envelopes, self._coordinator.state.size)

    def upload(self, reader: BlobReader, purpose: Purpose, options: object) -> bool:
        coordinator, ref = self._coordinator, reader.ref
        member = coordinator[self._name].member
        coordinator.access.check_write(member, ref, UploadPurpose(purpose.round_opened, purpose.plan, purpose.recovery))
        upload = coordinator.blobs.begin(ref, reader.leaves, owner=self._name)
        for first, count in upload.missing():
            for chunk in range(first, first + count):
                upload.write(chunk, bytes(reader.read_chunk(chunk, chunk_buffer(ref))))
        self.uploaded.append(ref)
        return upload.finish()


class Keeper:
    """One institution's copy of the ledger, its journal and its blobs."""

    def __init__(self, coordinator: Coordinator, name: str, folder: Path) -> None:
        self.name, self._coordinator = name, coordinator
        self.journal = Journal(folder / f"{name}.sqlite")
        self.mirror = Mirror(self.journal, coordinator.genesis)
        self.blobs = FolderBlobStore(folder / f"{name}-blobs")
        clock = coordinator.clock
        self.witnessing = Witnessing(
            WitnessingPorts(name, self.mirror, self.journal, lambda: coordinator[name].key, clock)
        )
        self.session = KeeperSession(coordinator, name)
        ports = HandingBackPorts(
            name,
            self.session,  # type: ignore[arg-type]  # the two calls that it makes
            self.mirror,
            self.journal,
            self.witnessing,
            self.blobs,
            clock,
        )
        self.handing_back = HandingBack(ports)

    def follow(self) -> None:
        """All that the coordinator has, its newest checkpoint, and the blobs that an institution holds of it."""
        coordinator, first = self._coordinator, self.mirror.state.size
        envelopes = tuple(coordinator.envelopes()[first:])
        if envelopes:
            self.mirror.admit(first, envelopes)
        note = coordinator.log.newest().encode()
        self.witnessing.heard(LedgerEntries(first, envelopes, coordinator.state.size, (), note))
        self._keep_own()

    def _keep_own(self) -> None:
        coordinator = self._coordinator
        run = self.mirror.state.runs.get(RUN)
        if run is None or run.open_round is None:
            return
        self.take(run.model)
        own = run.open_round.contributions.get(self.name)
        if own is None:
            return
        for ref in own.contribution.blobs.values():
            self.take(ref)
        row = coordinator.database.metrics(RUN).get(own.place.digest)
        if row is not None:
            envelope = self.journal.envelope(own.place.index)
            slot = f"contribution/{run.open_round.place.digest}"
            self.journal.sign(SignedSlot(slot, own.place.digest, envelope, row.content, row.salt, "2026-11-22"))

    def take(self, ref: BlobRef) -> None:
        """A copy of one of the coordinator's blobs, verified chunk by chunk."""
        if self.blobs.contains(ref):
            return
        buffer = chunk_buffer(ref)
        with (
            self._coordinator.blobs.open(ref) as reader,
            self.blobs.writer(ref.algorithm, about=ref.size) as writer,
        ):
            for index in range(ref.chunks):
                writer.write(reader.read_chunk(index, buffer))
            writer.commit()

    def reopened(self, folder: Path) -> Keeper:
        """The same institution after a restart."""
        self.close()
        return Keeper(self._coordinator, self.name, folder)

    def hand_back(self) -> bool:
        return self.handing_back.once()

    def close(self) -> None:
        self.blobs.close()
        self.journal.close()
