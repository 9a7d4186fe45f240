"""A round's base model from the one that is here, by applied deltas, in place of fetching it (docs/protocol.md#downlink).

    the model of round 3, whole ── applied deltas of rounds 4 and 6, fetched ──▶ the model of round 6, over the same file

Each chunk is checked against the new model's leaf list before it is written, as in a download, and what is written is an
unfinished download. So a kill in the middle, a chunk that comes out as another one, a delta that the coordinator has not any
more: whatever is lacking then is fetched.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from typing import Protocol

from common.blobs.reference import BlobRef
from common.blobs.store import FolderBlobStore
from common.blobs.upload import Upload
from common.errors import BlobError, CorruptChunk, DeltaError, NotAuthorised
from common.ledger.downlink import way_to
from common.ledger.state import RunRecord
from common.logs import get_logger
from common.wire.transfer import TransferOptions

log = get_logger(__name__)


class Source(Protocol):
    """Where blobs come from; common.wire.session.Session is one."""

    def leaves(self, ref: BlobRef) -> bytes: ...

    def download(
        self, ref: BlobRef, store: FolderBlobStore, owner: str, options: TransferOptions | None = None
    ) -> bool: ...


@dataclass(frozen=True, slots=True)
class _Way:
    """From a held model to the wanted one."""

    held: BlobRef
    deltas: tuple[BlobRef, ...]
    wanted: BlobRef


class Downlink:
    """Used by the agent's thread."""

    def __init__(self, institution: str, blobs: FolderBlobStore, source: Source) -> None:
        self._institution = institution
        self._blobs = blobs
        self._source = source

    def bring(self, run: RunRecord, model: BlobRef, options: TransferOptions) -> None:
        """Make as much of that model as applied deltas give; a download then finds it whole, or fetches the rest.

        Raises:
            LLMasOSError: the coordinator is not reached, or the disk refuses.
        """
        if self._blobs.contains(model):
            return
        found = way_to(run, model, self._blobs.contains)
        if found is None:
            return
        way = _Way(*found, wanted=model)
        try:
            for ref in way.deltas:
                if not self._source.download(ref, self._blobs, self._institution, replace(options, instead_of=None)):
                    return
            differing = self._advance(run, way)
        except (BlobError, DeltaError, NotAuthorised) as err:
            log.warning("applied delta not used", extra={"run": run.run, "code": err.code, "error": err.message})
            return
        if differing:
            log.warning("model differs here", extra={"run": run.run, "root": model.root, "chunks": differing})
        else:
            log.info("model brought forward", extra={"run": run.run, "deltas": len(way.deltas), "root": model.root})

    def _advance(self, run: RunRecord, way: _Way) -> int:
        """Write the wanted model over the held one's file; how many of its chunks came out as others, and were left out."""
        # Here: an agent whose plans need no numpy loads none.
        from common.reduce.apply import ApplyJob, apply_deltas

        downlink = run.statement.plan.downlink
        if downlink is None:
            raise ValueError(f"the plan of {run.run} has no downlink")
        leaves = self._source.leaves(way.wanted)
        with ExitStack() as stack:
            held, *deltas = (stack.enter_context(self._blobs.open(ref)) for ref in (way.held, *way.deltas))
            upload = self._blobs.begin(way.wanted, leaves, owner=self._institution, durable=False, instead_of=way.held)
            chunks = _Chunks(upload)
            apply_deltas(ApplyJob(downlink.type, run.statement.manifest, held, deltas), chunks.write, chunks.lacks)
        upload.finish()
        return chunks.differing


class _Chunks:
    """Writes the chunks that are missing, if they are what the leaf list says."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload
        self._missing = set(chain.from_iterable(range(first, first + count) for first, count in upload.missing()))
        self.differing = 0

    def lacks(self, index: int) -> bool:
        return index in self._missing

    def write(self, index: int, content: memoryview) -> None:
        try:
            self._upload.write(index, content)
        except CorruptChunk:
            self.differing += 1
