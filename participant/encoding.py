"""A delta as it leaves: taken from the job folder into the blob store, by the plan's codec (docs/protocol.md#codecs).

    jobs/RUN/delta.safetensors ─┐
                                ├─ encode ─▶ blobs/…              signed, sent
    residuals/RUN/7.f32 ────────┘      └───▶ residuals/RUN/8.f32   what round 8's blob lacks

Encoding is a function of delta and residual, and both files are durable before anything is signed: after a crash the same delta
gives the same blob. `float32` loses nothing; there the file itself becomes the blob.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from common import tensors
from common.blobs import disk
from common.blobs.ingest import open_plain_file
from common.blobs.reference import BlobRef, DigestName
from common.blobs.store import FolderBlobStore
from common.errors import WrongTensors
from common.ledger.state import RoundRecord, RunRecord
from common.logs import get_logger
from common.statements.kinds import PlanStatement
from participant.bench.workbench import CONTROL, SPARE
from participant.residuals import LOSSLESS, Residuals, starting_round

log = get_logger(__name__)

RESIDUAL_LOST = "residual-lost"
"""The deviation of a contribution that starts from zeros although an earlier delta of ours is in the model."""


@dataclass(frozen=True, slots=True)
class Offered:
    """What a contribution says of its delta."""

    blobs: dict[str, BlobRef]
    deviations: tuple[str, ...] = ()


class DeltaEncoder:
    """Used by the agent's thread."""

    def __init__(self, institution: str, blobs: FolderBlobStore, residuals: Residuals, algorithm: DigestName) -> None:
        self._institution = institution
        self._blobs = blobs
        self._residuals = residuals
        self._algorithm = algorithm

    def take(self, run: RunRecord, record: RoundRecord, delta: Path) -> Offered:
        """The round's delta as a blob, durable with its residual; the worker may write over the file afterwards.

        With SCAFFOLD the control that lies beside it becomes another blob.

        Raises:
            StorageFailure: not a regular file, or the disk refuses.
            WrongTensors: it is not a delta of the run's manifest.
            NonFiniteDelta: a number cannot be encoded; the message names the tensor.
        """
        if run.statement.plan.codec.type == LOSSLESS:
            blobs = {"delta": self._blobs.ingest(delta, self._algorithm, move=True)}
            if run.statement.plan.corrects:  # such a plan has no other codec
                blobs["control"] = self._blobs.ingest(delta.with_name(CONTROL), self._algorithm, move=True)
            return Offered(blobs)
        elements = tensors.trainable_elements(run.statement.manifest)
        start = starting_round(run, self._institution, record.number)
        with open_plain_file(delta) as fd, os.fdopen(fd, "rb", closefd=False) as file:
            _check(file, delta, run.statement)
            if start is None:
                offered = Offered({"delta": self._encode(run, record, file, None)})
            else:
                with self._residuals.open(run.run, start, elements) as residual:
                    if residual is None:
                        log.warning("residual lost", extra={"run": run.run, "round": record.number})
                    ref = self._encode(run, record, file, residual)
                    offered = Offered({"delta": ref}, () if residual is not None else (RESIDUAL_LOST,))
        with disk.storage("keep", delta):
            delta.replace(delta.with_name(SPARE))
        return offered

    def _encode(self, run: RunRecord, record: RoundRecord, delta: BinaryIO, residual: BinaryIO | None) -> BlobRef:
        """
        Args:
            delta: positioned at its numbers.
        """
        # Here: an agent whose plans need no numpy loads none.
        from common.codecs import codec
        from common.codecs.encoding import EncodeJob, encode_delta

        statement = run.statement
        encoded_size = codec(statement.plan.codec).encoded_size(statement.manifest)
        with (
            self._blobs.writer(self._algorithm, about=encoded_size) as writer,
            self._residuals.replace(run.run, record.number) as kept,
        ):
            encode_delta(
                EncodeJob(
                    codec=statement.plan.codec,
                    manifest=statement.manifest,
                    delta=delta,
                    residual=residual,
                    write=writer.write,
                    keep=kept.write,
                )
            )
            kept.commit()
            return writer.commit()


def _check(file: BinaryIO, path: Path, statement: PlanStatement) -> None:
    """Check size and header of what the worker left, and read up to its numbers.

    Raises:
        WrongTensors: it is not a delta of the manifest; says which tensor differs.
    """
    header, expected = tensors.trainable_header(statement.manifest), tensors.delta_size(statement.manifest)
    with disk.storage("read", path):
        tensors.check_header(file.read(len(header)), header)
        size = os.fstat(file.fileno()).st_size
    if size != expected:
        raise WrongTensors(f"{path} has {size:,} bytes, expected {expected:,} for its tensors.")
