"""What is wrong with a delta, if anything: seen while it arrives, else read in full when its statement comes.

Begin ─▶ follow ─▶ each verified chunk is inspected by the thread that brought it
Submit ─▶ inspect ─▶ the sum over what was seen; words where something is wrong
"""

from __future__ import annotations

import threading

from common.blobs.reference import BlobRef
from common.blobs.store import FolderBlobStore
from common.blobs.upload import Upload
from common.codecs import codec
from common.errors import BadBlobReference, CorruptChunk, DeltaError, MissingBlob
from common.ledger.state import RunRecord
from common.ledger.tasks import OfferedName
from common.logs import get_logger
from common.newest import Newest
from common.reduce import inspect_delta
from common.reduce.arriving import ArrivingDelta, InspectionLane
from common.tensors import trainable_header
from coordinator.ledger import Ledger

log = get_logger(__name__)

MOST_UNFIT = 4096
"""Deltas whose fault is remembered."""


class Inspections:
    """Any thread. What arrived before a restart was not seen: there the whole delta is read."""

    def __init__(self, ledger: Ledger, blobs: FolderBlobStore) -> None:
        self._ledger, self._blobs = ledger, blobs
        self._lock = threading.Lock()
        self._lanes: dict[str, InspectionLane] = {}
        self._arriving: dict[tuple[str, BlobRef], ArrivingDelta] = {}
        self._unfit = Newest[tuple[str, str, str], DeltaError](MOST_UNFIT)

    def follow(self, upload: Upload, round_opened: str) -> None:
        """Inspect the chunks of an upload as they come; `round_opened` names the round that it is for."""
        found = self._ledger.state.round_by_opening(round_opened)
        if found is None:
            return
        run, _ = found
        with self._lock:
            self._forget_ended()
            lane = self._lanes.get(run.run)
            if lane is None:
                header = trainable_header(run.statement.manifest)
                lane = self._lanes[run.run] = InspectionLane(codec(run.statement.plan.codec), header)
            arriving = self._arriving.setdefault((round_opened, upload.ref), ArrivingDelta(lane))
        source = _Verified(upload)
        upload.when_chunk_came(lambda chunk: arriving.came(chunk, source))

    def inspect(self, run: RunRecord, ref: BlobRef, name: OfferedName = "delta") -> None:
        """
        Args:
            name: what the contribution calls it; each kind has its bound.

        Raises:
            DeltaError: what no delta of this run may hold.
            MissingBlob: its file came to harm here.
        """
        known = self._unfit.get((run.run, name, ref.root))
        if known is not None:  # a delta is read in full once: who sends a bad one again and again costs no more
            raise type(known)(known.message, known.fix)
        try:
            self._inspect(run, ref, name)
        except DeltaError as err:
            self._unfit[run.run, name, ref.root] = err
            raise
        except (CorruptChunk, BadBlobReference) as err:
            log.error("blob damaged on disk", extra={"root": ref.root, "error": err.message})
            self._blobs.delete(ref)  # else `Begin` would say for ever that nothing of it is missing
            raise MissingBlob(f"{ref} came to harm on the coordinator's disk.", "Send it again.") from err

    def _inspect(self, run: RunRecord, ref: BlobRef, name: OfferedName) -> None:
        plan, header = run.statement.plan, trainable_header(run.statement.manifest)
        bound = plan.max_delta_l2 if name == "delta" else plan.max_control_l2
        if bound is None:
            raise ValueError(f"a plan of {run.run} has no {name}")
        opened = run.open_round.place.digest if run.open_round is not None else ""
        with self._lock:
            arriving = self._arriving.get((opened, ref))
        with self._blobs.open(ref) as reader:
            facts = arriving.facts(reader) if arriving is not None else None
            if facts is None or facts.l2 > float(bound):
                inspect_delta(reader, header, max_l2=float(bound), codec=codec(plan.codec), name=name)

    def _forget_ended(self) -> None:
        """What was seen of rounds that are closed, and lanes of runs that ended."""
        open_rounds = {run.open_round.place.digest for run in self._ledger.state.active_runs if run.open_round}
        self._arriving = {key: each for key, each in self._arriving.items() if key[0] in open_rounds}
        active = {run.run for run in self._ledger.state.active_runs}
        self._lanes = {run: lane for run, lane in self._lanes.items() if run in active}


class _Verified:
    """An upload's chunks, for the thread that just brought them."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload

    @property
    def ref(self) -> BlobRef:
        return self._upload.ref

    def read_chunk(self, index: int, into: memoryview) -> memoryview:
        return self._upload.read_back(index, into)
