"""Rounds made to show any difference in arithmetic, and what they come to: on this process, or on one started in another way.

    python -m tests.support.wild_rounds         the digests as JSON, and what of the processor numpy uses here

Half of a delta's numbers lie around 1. Half are any numbers at all, denormals and both zeros among them; of these every second
institution has the opposite of the one before: what is left of their sum is what additions rounded off, so their order shows.
Inputs come from integers alone, so that they are the same everywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common import tensors
from common.blobs.reference import CHUNK_BYTES
from common.codecs import CODECS
from common.plan.local import MAX_NUM_TOKENS
from common.plan.model import Plan
from common.plan.server_optimizers import ServerSGD
from common.reduce import ReduceJob, WeightedDelta, inspect_delta, reduce_round, selftest
from common.reduce.loops import LEAF_ELEMENTS
from common.reduce.selftest import MemoryBlob
from common.statements.kinds import Tensor
from tests.support.blobs import tensor_manifest
from tests.support.encoded import encoded_blob

NEAR_THE_TOP = (MAX_NUM_TOKENS, MAX_NUM_TOKENS - 1, MAX_NUM_TOKENS - 12_345, 1, 3, 999_983, 2**28 + 1)


def wild(elements: int, seed: int) -> NDArray[np.float32]:
    """Float32 numbers from random bits: every other one around 1, the others of any size up to 2^103.

    Every 11th is a denormal, every 97th a zero of either sign.
    """
    bits = np.random.default_rng(seed).integers(0, 2**32, elements, dtype=np.uint32)
    exponents = (bits >> np.uint32(23)) & np.uint32(0xFF)
    exponents[::2] = np.uint32(125) + (exponents[::2] & np.uint32(3))
    exponents[1::2] %= np.uint32(231)
    bits = (bits & np.uint32(0x807FFFFF)) | (exponents << np.uint32(23))
    bits[seed % 11 :: 11] &= np.uint32(0x807FFFFF)
    bits[seed % 97 :: 97] &= np.uint32(0x80000000)
    return bits.view(np.float32)


def wild_job(
    manifest: Sequence[Tensor], institutions: int, learning_rate: str, *, seed: int = 1, codec: str = "float32"
) -> ReduceJob:
    """A round over that manifest; num_tokens from 1 to the largest allowed."""
    in_model = sum(tensor.elements for tensor in manifest if tensor.group != "personal")
    plan = Plan(
        apiVersion="llmasos/v1",
        name="wild",
        codec={"type": codec},
        server_optimizer=ServerSGD(learning_rate=Decimal(learning_rate)),
    )
    base = MemoryBlob(tensors.model_header(manifest) + wild(in_model, seed).tobytes())
    return ReduceJob(plan, manifest, base, [_delta(manifest, number, seed, codec) for number in range(institutions)])


def _delta(manifest: Sequence[Tensor], number: int, seed: int, codec: str) -> WeightedDelta:
    elements = tensors.trainable_elements(manifest)
    values = wild(elements, 1000 * seed + number)
    if number % 2:
        values[1::2] = -wild(elements, 1000 * seed + number - 1)[1::2]
    return WeightedDelta(
        f"i{number * 37 % 101}",
        NEAR_THE_TOP[number // 2 % len(NEAR_THE_TOP)],
        MemoryBlob(encoded_blob(codec, manifest, values)),
    )


def chunk_border_manifest(past: int) -> tuple[Tensor, ...]:
    """A delta that ends `past` numbers behind the end of its first chunk."""
    header_bytes = len(tensors.trainable_header(tensor_manifest(trainable={"w": (CHUNK_BYTES // 4,)})))
    return tensor_manifest(trainable={"w": ((CHUNK_BYTES - header_bytes) // 4 + past,)}, frozen={"f": (5,)})


def jobs() -> dict[str, ReduceJob]:
    """What the digests are of."""
    leaf = LEAF_ELEMENTS
    return {
        "64 institutions, a number more than a leaf": wild_job(
            tensor_manifest(trainable={"w": (leaf + 1,)}), 64, "0.7", seed=1
        ),
        "a number less than a leaf": wild_job(tensor_manifest(trainable={"w": (leaf - 1,)}), 5, "1.3", seed=2),
        "a number past a chunk": wild_job(chunk_border_manifest(1), 3, "0.1", seed=3),
        **{
            f"five institutions, {name}": wild_job(
                tensor_manifest(trainable={"w": (leaf, 2), "b": (7,)}), 5, "0.7", seed=5, codec=name
            )
            for name in ("bfloat16", "int8", "int4", "topk")
        },
        "one institution, one number": wild_job(tensor_manifest(trainable={"w": ()}), 1, "0.3", seed=4),
    }


def reduced(job: ReduceJob) -> bytes:
    """The new model's bytes."""
    out = bytearray()
    reduce_round(job, out.extend)
    return bytes(out)


def reordered(job: ReduceJob, order: Sequence[int]) -> ReduceJob:
    """The same sealed set in another order of the list."""
    return replace(job, deltas=[job.deltas[position] for position in order])


def digests() -> dict[str, str]:
    """SHA-256 of every new model, the norm of every job's first delta as hexadecimal float64, and what golden.json holds."""
    results = selftest.compute()
    for name, job in jobs().items():
        results[f"model, {name}"] = hashlib.sha256(reduced(job)).hexdigest()
        header = tensors.trainable_header(job.manifest)
        facts = inspect_delta(job.deltas[0].reader, header, max_l2=float("inf"), codec=CODECS[job.plan.codec.type])
        results[f"l2, {name}"] = facts.l2.hex()
    return results


def dispatched() -> list[str]:
    """Which of the processor's extensions numpy would choose kernels for, and is not told to leave alone."""
    from numpy._core import _multiarray_umath as core  # type: ignore[attr-defined]  # no public name says which are chosen

    features: dict[str, bool] = core.__cpu_features__
    return [name for name in core.__cpu_dispatch__ if features.get(name)]


def main() -> None:
    report: dict[str, Any] = {"digests": digests(), "dispatched": dispatched()}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
