"""Bytes and numbers that are not what was promised."""

from __future__ import annotations

from common.errors.base import Status
from common.errors.statements import RefusalError


class BlobError(RefusalError):
    """Base of what can be wrong with blob bytes."""

    code = "blob"


class CorruptChunk(BlobError):
    """A chunk's bytes do not have the digest that its leaf says, on the wire or on disk."""

    code = "corrupt-chunk"
    status = Status.DATA_LOSS
    default_fix = "Send the chunk again; if it was read from disk, check that disk."


class TruncatedChunk(BlobError):
    """A chunk or stream ended before its declared size, or went beyond it."""

    code = "truncated-chunk"
    default_fix = "Begin again: only the missing chunks are asked for."


class BlobTooLarge(BlobError):
    """A blob is larger than what it is for allows, or than the quota or the disk has room for."""

    code = "blob-too-large"
    status = Status.RESOURCE_EXHAUSTED
    default_fix = (
        "A delta has exactly the size that the plan's tensor manifest gives; quotas are the coordinator's settings."
    )


class BadBlobReference(BlobError):
    """Leaf list, size, algorithm and root of a blob do not fit together."""

    code = "bad-blob-reference"


class MissingBlob(BlobError):
    """A blob that is referred to is not, or not wholly, there."""

    code = "missing-blob"
    status = Status.FAILED_PRECONDITION
    default_fix = "Send the blob whole before the statement that names it."


class DeltaError(RefusalError):
    """Base of what can be wrong with a delta and its weight."""

    code = "delta"


class WrongTensors(DeltaError):
    """Tensors are not exactly the manifest's: names, order, shapes, dtype, offsets; or their bytes not the codec's."""

    code = "wrong-tensors"
    default_fix = "Write the delta in the layout that the plan's tensor manifest fixes (docs/protocol.md#tensors)."


class NonFiniteDelta(DeltaError):
    """A delta holds NaN or infinity."""

    code = "non-finite-delta"
    default_fix = "Usually a bug or a learning rate too high: look at the local loss curve before training again."


class DeltaTooLong(DeltaError):
    """The L2 norm of a delta is above the plan's max_delta_l2."""

    code = "delta-too-long"
    default_fix = "Check the local learning rate against the plan's; the bound is the plan's max_delta_l2."


class ImplausibleWeight(DeltaError):
    """num_tokens or num_bytes is not positive, or above what the plan's local training implies."""

    code = "implausible-weight"
    default_fix = "num_tokens is at most steps × batch × sequence length, num_bytes max_bytes_a_token times as much."


class WrongDeltaCount(DeltaError):
    """A round's deltas are too few for the guarantee of the plan's rule, or more than it compares."""

    code = "wrong-delta-count"
    status = Status.FAILED_PRECONDITION
    default_fix = "Set the plan's quorum, and cohort.size, to what its rule needs; the model stays as it was."


class ModelOverflow(DeltaError):
    """Base and deltas are finite, the new model would not be."""

    code = "model-overflow"
    status = Status.FAILED_PRECONDITION
    default_fix = "Lower the server optimizer's learning rate or the plan's max_delta_l2; the model stays as it was."
