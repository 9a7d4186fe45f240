"""What folding and inspecting cost alone: the reducer over deltas in memory, without hashing and without writing."""

from __future__ import annotations

import numpy as np
from synthetic_run import a_manifest, a_plan

from common import tensors
from common.reduce import ReduceJob, WeightedDelta, inspect_delta, reduce_round
from common.reduce.selftest import MemoryBlob
from measuring.accounting import GIGABYTE, MEGABYTE
from measuring.breakdown import UnitCosts
from measuring.machine import Effort, processor_seconds

MOST_BYTES = 64 * MEGABYTE


def drop(content: memoryview) -> None:
    """A place to write to that keeps nothing."""


def unit_costs(effort: Effort, *, participants: int) -> UnitCosts:
    """Processor seconds for a GB of deltas; the base's share is in `fold`."""
    nbytes = min(effort.memory_bytes, MOST_BYTES)
    manifest = a_manifest(nbytes)
    values = np.random.default_rng(1).standard_normal(nbytes // 4, np.float32) * np.float32(0.001)
    blob = MemoryBlob(tensors.trainable_header(manifest) + values.tobytes())
    plan = a_plan(rounds=1, participants=participants)
    deltas = [WeightedDelta(f"i{number}", 1 + number, blob) for number in range(participants)]
    job = ReduceJob(plan, manifest, blob, deltas)
    header = tensors.trainable_header(manifest)
    fold = min(processor_seconds(lambda: reduce_round(job, drop)) for _ in range(3))
    inspect = min(processor_seconds(lambda: inspect_delta(blob, header, max_l2=float("inf"))) for _ in range(3))
    gigabytes = nbytes / GIGABYTE
    return UnitCosts(fold / participants / gigabytes, inspect / gigabytes)
