"""This machine's arithmetic against golden.json: a coordinator or auditor that does not pass aggregates nothing.

What could differ: a library that sets flush-to-zero for the process, a numpy built with fast-math, x87 arithmetic. Inputs are
made with integers alone, so that they are the same everywhere.

    python -m common.reduce.selftest            check
    python -m common.reduce.selftest --write    make golden.json anew; only together with docs/protocol.md#arithmetic
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common import tensors
from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.codecs import CODECS
from common.errors import ReducerSelfTestFailed
from common.plan.codecs import Float32Codec
from common.plan.model import Plan
from common.plan.rules import WeightedMean
from common.plan.server_optimizers import ServerSGD
from common.reduce import registry
from common.reduce.downlink import Beside
from common.reduce.inspect import inspect_delta
from common.reduce.round import ReduceJob, WeightedDelta, reduce_round
from common.reduce.server_state import layout_of
from common.statements.kinds import Tensor

GOLDEN_FILE = Path(__file__).with_name("golden.json")

MANIFEST = (
    Tensor(name="wte.weight", shape=(1100, 1000)),  # beyond one chunk, so that chunk borders are in the test
    Tensor(name="ln.bias", shape=(77,)),
    Tensor(name="scale", shape=()),
    Tensor(name="positions", shape=(5, 13), group="frozen"),
    Tensor(name="private", shape=(3,), group="personal"),
)
WEIGHTS = {"north": 536_870_911, "east": 1, "south": 1_048_577, "a-1": 999_983}
LEARNING_RATES = ("1", "0.7")
RULE_MANIFEST = (Tensor(name="wte.weight", shape=(70, 1000)),)  # beyond one leaf
RULE_INSTITUTIONS, RULE_SEED = 9, 11
RULE_FIELDS: dict[str, dict[str, str]] = {"norm-clipping": {"max_l2": "1.5"}}
"""What a rule's section must say and has no default."""
DOWNLINK, RESIDUAL_SEED = "int8", 6
CONTROL_SEED = 30
STEPPED = (Tensor(name="w", shape=(70_001,)), Tensor(name="b", shape=(3,), group="frozen"))
"""What server optimizers go over, with a downlink: two rows."""
CODED_SEED, CODED_ELEMENTS = 7, 10_007
"""What each codec encodes and decodes: not a multiple of any block."""

_DENORMAL, _SMALLEST_NORMAL_BITS = 2.0**-149, 0x00800000


@dataclass(frozen=True, slots=True)
class MemoryBlob:
    """A blob in memory; nobody can change it between hashing and reading, so it is not hashed."""

    content: bytes

    @property
    def ref(self) -> BlobRef:
        return BlobRef(algorithm="sha256", size=len(self.content), root=64 * "0")

    def read_chunk(self, index: int, into: memoryview) -> memoryview:
        size = self.ref.chunk_size(index)
        start = index * CHUNK_BYTES
        into[:size] = memoryview(self.content)[start : start + size]  # a slice of bytes would be a second copy
        return into[:size]

    def read_unverified(self, position: int, into: memoryview) -> None:
        into[:] = memoryview(self.content)[position : position + len(into)]


def numbers(seed: int, elements: int) -> NDArray[np.float32]:
    """Float32 values from integers: both signs, 16 exponents around 2^-8, every 11th a denormal, every 97th a zero.

    Element i is made from bits of i·2654435761 + seed·40503 modulo 2^32, mixed by shifts and one more product.
    """
    mixed = np.arange(elements, dtype=np.uint32) * np.uint32(2654435761) + np.uint32(seed * 40503 % 2**32)
    mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(2246822519)
    mixed ^= mixed >> np.uint32(13)
    exponent = np.uint32(112) + ((mixed >> np.uint32(23)) & np.uint32(15))
    bits = (mixed & np.uint32(0x807FFFFF)) | (exponent << np.uint32(23))
    bits[seed % 11 :: 11] &= np.uint32(0x807FFFFF)
    bits[seed % 97 :: 97] &= np.uint32(0x80000000)
    return bits.view(np.float32)


def golden_jobs() -> dict[str, ReduceJob]:
    """The self-test's jobs by learning rate: four institutions, denormals, two chunks, a frozen tail."""
    header = tensors.trainable_header(MANIFEST)
    elements = tensors.trainable_elements(MANIFEST)
    model_elements = (tensors.model_size(MANIFEST) - len(tensors.model_header(MANIFEST))) // tensors.ELEMENT_BYTES
    base = MemoryBlob(tensors.model_header(MANIFEST) + _little_endian(numbers(1, model_elements)))
    deltas = [
        WeightedDelta(name, num_tokens, MemoryBlob(header + _little_endian(numbers(seed, elements))))
        for seed, (name, num_tokens) in enumerate(WEIGHTS.items(), start=2)
    ]
    return {text: ReduceJob(_plan(text), MANIFEST, base, deltas) for text in LEARNING_RATES}


def rule_job(rule: str) -> ReduceJob:
    """The self-test's job by that rule: nine institutions, the last as far off as its numbers can be from the others'."""
    elements = tensors.trainable_elements(RULE_MANIFEST)
    base = MemoryBlob(tensors.model_header(RULE_MANIFEST) + _little_endian(numbers(RULE_SEED, elements)))
    deltas = []
    for position in range(RULE_INSTITUTIONS):
        values = numbers(RULE_SEED + 1 + position, elements)
        if position == RULE_INSTITUTIONS - 1:
            np.multiply(values, np.float32(2.0**20), out=values)
        header = tensors.trainable_header(RULE_MANIFEST)
        deltas.append(WeightedDelta(f"i{position}", 1000 + 77 * position, MemoryBlob(header + _little_endian(values))))
    plan = {"apiVersion": "llmasos/v1", "name": "self-test", "quorum": RULE_INSTITUTIONS}
    section = {"type": rule} | RULE_FIELDS.get(rule, {})
    return ReduceJob(Plan.model_validate(plan | {"rule": section}), RULE_MANIFEST, base, deltas)


def _plan(learning_rate: str) -> Plan:
    return Plan(
        apiVersion="llmasos/v1",
        name="self-test",
        codec=Float32Codec(),
        rule=WeightedMean(),
        server_optimizer=ServerSGD(learning_rate=Decimal(learning_rate)),
    )


def _little_endian(values: NDArray[np.float32]) -> bytes:
    return values.astype("<f4", copy=False).tobytes()


def compute() -> dict[str, str]:
    """What golden.json holds, by this machine: SHA-256 of rounds' outputs and codecs' bytes, norms as hexadecimal float64."""
    results = {}
    jobs = golden_jobs()
    for learning_rate, job in jobs.items():
        model = hashlib.sha256()
        reduce_round(job, model.update)
        results[f"model sha256, learning rate {learning_rate}"] = model.hexdigest()
    results |= _with_downlink(jobs[LEARNING_RATES[-1]])
    for optimizer in registry.SERVER_OPTIMIZERS:
        results |= _stepped(optimizer)
    results |= _corrected()
    for rule in registry.RULES:
        model = hashlib.sha256()
        reduce_round(rule_job(rule), model.update)
        results[f"rule {rule}: model sha256"] = model.hexdigest()
    header = tensors.trainable_header(MANIFEST)
    for delta in jobs[LEARNING_RATES[0]].deltas:
        facts = inspect_delta(delta.reader, header, max_l2=float("inf"))
        results[f"l2 of {delta.institution}"] = facts.l2.hex()
    for name, codec in CODECS.items():
        encoded = codec.encode(numbers(CODED_SEED, CODED_ELEMENTS))
        decoded = codec.decode(encoded, np.empty(codec.elements(len(encoded)), dtype=np.float32))
        results[f"{name} sha256, encoded"] = hashlib.sha256(encoded).hexdigest()
        results[f"{name} sha256, decoded"] = hashlib.sha256(_little_endian(decoded)).hexdigest()
    return results


def _with_downlink(job: ReduceJob) -> dict[str, str]:
    """What a round gives whose update travels encoded, and that starts from a residual."""
    job = downlink_job(job)
    hashes = {name: hashlib.sha256() for name in ("model", "applied_delta", "server_state")}
    beside = Beside(hashes["applied_delta"].update, hashes["server_state"].update)
    reduce_round(job, hashes["model"].update, beside)
    return {f"with downlink {DOWNLINK}: {name} sha256": each.hexdigest() for name, each in hashes.items()}


def downlink_job(job: ReduceJob) -> ReduceJob:
    """That round with a downlink, from a residual."""
    plan = _changed(job.plan, downlink={"type": DOWNLINK})
    layout = layout_of(plan, MANIFEST)
    if layout is None:
        raise ValueError(f"{DOWNLINK} drops nothing")
    rows = np.zeros(layout.rows * layout.row_elements, dtype="<f4")
    rows[: layout.elements] = numbers(RESIDUAL_SEED, layout.elements)
    return replace(job, plan=plan, server_state=MemoryBlob(layout.header + rows.tobytes()))


def _stepped(optimizer: str) -> dict[str, str]:
    """Two rounds in a row of a server optimizer with its defaults and a downlink, the second one from the first one's state."""
    job = stepping_job(optimizer)
    results = {}
    for number in (1, 2):
        model, applied, state = bytearray(), bytearray(), bytearray()
        reduce_round(job, model.extend, Beside(applied.extend, state.extend))
        for name, content in (("model", model), ("server_state", state)):
            results[f"{optimizer}, round {number}: {name} sha256"] = hashlib.sha256(content).hexdigest()
        job = replace(job, base=MemoryBlob(bytes(model)), server_state=MemoryBlob(bytes(state)))
    return results


def stepping_job(optimizer: str) -> ReduceJob:
    """The first of these rounds."""
    header, elements = tensors.trainable_header(STEPPED), tensors.trainable_elements(STEPPED)
    plan = _changed(_plan("1"), downlink={"type": DOWNLINK}, server_optimizer={"type": optimizer})
    base = MemoryBlob(tensors.model_header(STEPPED) + _little_endian(numbers(1, elements + 3)))
    deltas = [
        WeightedDelta(name, num_tokens, MemoryBlob(header + _little_endian(numbers(seed, elements))))
        for seed, (name, num_tokens) in enumerate(list(WEIGHTS.items())[:2], start=2)
    ]
    return ReduceJob(plan, STEPPED, base, deltas)


def _corrected() -> dict[str, str]:
    """Two rounds in a row of control variates, of two institutions of three."""
    job = correcting_job()
    results = {}
    for number in (1, 2):
        state = bytearray()
        reduce_round(job, lambda _: None, Beside(server_state=state.extend))
        results[f"control variates, round {number}: server_state sha256"] = hashlib.sha256(state).hexdigest()
        job = replace(job, server_state=MemoryBlob(bytes(state)))
    return results


def correcting_job() -> ReduceJob:
    """The first of these rounds."""
    header, elements = tensors.trainable_header(STEPPED), tensors.trainable_elements(STEPPED)
    job = stepping_job("sgd")
    local: dict[str, object] = {"optimizer": {"type": "sgd"}, "correction": {"type": "scaffold"}}
    plan = _changed(_plan("1"), local=local)
    deltas = [
        replace(delta, control=MemoryBlob(header + _little_endian(numbers(CONTROL_SEED + position, elements))))
        for position, delta in enumerate(job.deltas)
    ]
    return replace(job, plan=plan, deltas=deltas, accepted=3)


def _changed(plan: Plan, **fields: Mapping[str, object]) -> Plan:
    return Plan.model_validate(plan.model_dump(mode="json") | fields)


def check_denormals() -> None:
    """
    Raises:
        ReducerSelfTestFailed: this process flushes denormal numbers to zero.
    """
    tiny = np.full(16, _DENORMAL, dtype=np.float32)
    normal = np.full(16, _SMALLEST_NORMAL_BITS, dtype=np.uint32).view(np.float32)
    doubled, halved = tiny + tiny, normal * np.float32(0.5)
    widened = np.multiply(tiny, 3.0, dtype=np.float64)
    if not (np.all(doubled == 2 * _DENORMAL) and np.all(halved == 2.0**-127) and np.all(widened == 3 * _DENORMAL)):
        raise ReducerSelfTestFailed(
            f"Denormal numbers are flushed to zero: 2^-149 + 2^-149 gives {float(doubled[0])}, expected 2^-148."
        )


def run_self_test() -> None:
    """Check that this machine computes what every other one does; under half a second.

    Raises:
        ReducerSelfTestFailed: it does not; the message names the first result that differs.
    """
    check_denormals()
    expected: dict[str, str] = json.loads(GOLDEN_FILE.read_text(encoding="utf-8"))
    actual = compute()
    for name in sorted(expected.keys() | actual.keys()):
        if actual.get(name) != expected.get(name):
            raise ReducerSelfTestFailed(
                f"The reducer's result {name!r} is {actual.get(name)} here, expected {expected.get(name)}."
            )


def main(arguments: Sequence[str]) -> None:
    if list(arguments) == ["--write"]:
        GOLDEN_FILE.write_text(json.dumps(compute(), indent=2) + "\n", encoding="utf-8")
    run_self_test()


if __name__ == "__main__":
    main(sys.argv[1:])
