"""reduce_round: one committed round's arithmetic, out of core (docs/protocol.md#arithmetic).

    the rule looks at whole deltas       norms or distances, if it asks for them
    for each window of the deltas:       a chunk's numbers or a part of them; side by side, what fits into 16 MiB
        combined = rule(all institutions' numbers, in ascending bytewise order of names)
        write(base + update)             see step.py: server optimizer, downlink, server_state
    frozen tensors: copied
    with SCAFFOLD: the controls          see control.py; the server_state is theirs

Everything that is read is hashed again by its reader, so a file that changed after it arrived is found before it counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from common import tensors
from common.blobs.reader import BlobStream, ChunkSource
from common.blobs.reference import CHUNK_BYTES
from common.codecs import codec
from common.errors import ImplausibleWeight, SlotTaken, WrongTensors
from common.plan.local import MAX_NUM_TOKENS
from common.plan.model import Plan
from common.reduce.control import ControlJob, ControlStep
from common.reduce.downlink import Beside
from common.reduce.lanes import Deltas, combined
from common.reduce.parts import SliceDigests
from common.reduce.step import ModelStep, Start
from common.reduce.window import DeltaWindow, read_head
from common.statements.kinds import Tensor

LANES = 2
"""How many windows are combined at once; each lane holds a chunk, and 8 bytes a number of a window, or 16 MiB side by side."""

Write = Callable[[memoryview], object]


@dataclass(frozen=True, slots=True)
class WeightedDelta:
    """One institution's part of a sealed round."""

    institution: str
    num_tokens: int
    reader: ChunkSource
    control: ChunkSource | None = None
    """By how much its control variate changed; None exactly where the plan corrects nothing."""


@dataclass(frozen=True, slots=True)
class ReduceJob:
    """What a round's result is a function of, and nothing else."""

    plan: Plan
    """Names codec, rule and server optimizer."""
    manifest: Sequence[Tensor]
    base: ChunkSource
    deltas: Sequence[WeightedDelta]
    server_state: ChunkSource | None = None
    """What earlier rounds handed on; None where they hand nothing on, and before the first commit."""
    accepted: int = 0
    """How many institutions had accepted the plan when the round was opened; of a plan that corrects alone."""


def reduce_round(job: ReduceJob, write: Write, beside: Beside = Beside()) -> None:  # noqa: B008  # it is frozen
    """Compute the new model and hand its bytes to `write`, from first to last, each view valid during the call only.

    The order of `job.deltas` does not matter. Memory is a few chunks for any model and cohort.

    Args:
        beside: gets the other outputs, exactly those that the plan's rounds have.

    Raises:
        ImplausibleWeight: a num_tokens out of range, no delta at all, or with SCAFFOLD more than there are acceptances.
        SlotTaken: an institution stands twice.
        WrongDeltaCount: too few deltas for the rule's guarantee, or too many.
        WrongTensors: base, server_state or a delta are not the manifest's.
        ModelOverflow: the new model, the update or the server_state would not be finite.
        CorruptChunk: a blob changed on disk.
    """
    deltas = in_order(job.deltas)
    delta_codec = codec(job.plan.codec)
    header = tensors.trainable_header(job.manifest)
    control = ControlStep(_control_job(job, deltas), beside.server_state) if job.plan.corrects else None
    window = DeltaWindow(delta_codec, header)
    for delta in deltas:
        window.check_size(delta.reader)
    sealed = Deltas(
        delta_codec,
        header,
        tuple(delta.num_tokens for delta in deltas),
        [SliceDigests(delta.reader) for delta in deltas],
    )
    windows = combined(job.plan.rule, sealed, LANES)
    base = _open_base(job, write)
    state = None if control is not None else job.server_state
    own = Beside(beside.applied_delta) if control is not None else beside
    step = ModelStep(Start(job.plan, job.manifest, base, state), write, own)
    try:
        for combined_N in windows:
            step.apply(combined_N)
    finally:
        windows.close()
    step.finish()
    while frozen := base.take(CHUNK_BYTES):
        write(frozen)
    if control is not None:
        control.run(LANES)


def _control_job(job: ReduceJob, deltas: Sequence[WeightedDelta]) -> ControlJob:
    return ControlJob(job.plan, job.manifest, [delta.control for delta in deltas], job.accepted, job.server_state)


def in_order(deltas: Sequence[WeightedDelta]) -> list[WeightedDelta]:
    """In ascending bytewise order of institutions' names, the order in which sums are taken.

    Raises:
        ImplausibleWeight, SlotTaken: as `reduce_round`.
    """
    ordered = sorted(deltas, key=lambda delta: delta.institution.encode())
    for before, after in pairwise(ordered):
        if before.institution == after.institution:
            raise SlotTaken(f"{after.institution} stands twice among the deltas of one round.")
    for delta in ordered:
        if not 1 <= delta.num_tokens <= MAX_NUM_TOKENS:
            raise ImplausibleWeight(
                f"num_tokens of {delta.institution} is {delta.num_tokens:,}, expected 1 to {MAX_NUM_TOKENS:,}."
            )
    if not ordered:
        raise ImplausibleWeight("A round without deltas has no mean.")
    return ordered


def _open_base(job: ReduceJob, write: Write) -> BlobStream:
    """The base model after its header, which is the new model's too."""
    header = tensors.model_header(job.manifest)
    expected_size = tensors.model_size(job.manifest)
    base = BlobStream(job.base)
    while base.position < len(header):
        start = base.position
        piece = base.take(len(header) - start)
        if not piece or bytes(piece) != header[start : start + len(piece)]:
            tensors.check_header(read_head(job.base), header)
        write(piece)
    if job.base.ref.size != expected_size:
        raise WrongTensors(f"Base model {job.base.ref} has {job.base.ref.size:,} bytes, expected {expected_size:,}.")
    return base
