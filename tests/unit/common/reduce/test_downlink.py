"""Rounds with a downlink: the documented bits, whatever windows do; nothing lost; and the way from model to model."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from common import tensors
from common.blobs.reference import CHUNK_BYTES
from common.codecs import CODECS
from common.errors import ModelOverflow, WrongTensors
from common.plan.model import Plan
from common.reduce import Beside, ReduceJob, reduce_round, selftest
from common.reduce import round as rounds
from common.reduce.apply import ApplyJob, apply_deltas
from common.reduce.selftest import MemoryBlob
from common.statements.kinds import Tensor
from tests.support.blobs import tensor_manifest
from tests.support.encoded import encoded_blob
from tests.support.server_states import slots_of, state_blob
from tests.support.wild_rounds import reduced, wild, wild_job
from tests.unit.common.reduce.test_independence import cut_into_chunks

B_INT8 = 65_472
DOWNLINKS = ("float32", "bfloat16", "int8", "int4")
ROUNDS = 4


@dataclass(frozen=True)
class Made:
    """What a round gives."""

    model: bytes
    applied: bytes | None
    state: bytes | None


def with_downlink(job: ReduceJob, codec: str) -> ReduceJob:
    plan = Plan.model_validate(job.plan.model_dump(mode="json") | {"downlink": {"type": codec}})
    return replace(job, plan=plan)


def made(job: ReduceJob) -> Made:
    model, applied, state = bytearray(), bytearray(), bytearray()
    sends, keeps = job.plan.downlink is not None, job.plan.leaves_server_state
    reduce_round(job, model.extend, Beside(applied.extend if sends else None, state.extend if keeps else None))
    return Made(bytes(model), bytes(applied) if sends else None, bytes(state) if keeps else None)


def next_job(job: ReduceJob, before: Made, number: int) -> ReduceJob:
    """Round `number` after that one, with other deltas."""
    uplink = job.plan.codec.type
    fresh = wild_job(job.manifest, len(job.deltas), "0.7", seed=number, codec=uplink)
    state = None if before.state is None else MemoryBlob(before.state)
    return replace(job, base=MemoryBlob(before.model), deltas=fresh.deltas, server_state=state)


def small_numbers(elements: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(elements).astype(np.float32) / np.float32(100)


@functools.cache
def printed() -> dict[str, Any]:
    """What the program in docs/protocol.md defines, run as a stranger would run it."""
    text = (Path(__file__).resolve().parents[4] / "docs" / "protocol.md").read_text(encoding="utf-8")
    section = text.partition("<!-- recompute:begin -->")[2].partition("<!-- recompute:end -->")[0]
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)[0], names)
    return names


def by_the_page(job: ReduceJob) -> Made:
    """The same by that program."""
    assert isinstance(job.base, MemoryBlob)
    contributions = {each.institution: (each.num_tokens, content(each.reader)) for each in job.deltas}
    plain = [tensor.model_dump(mode="json") for tensor in job.manifest]
    state = None if job.server_state is None else content(job.server_state)
    plan = job.plan.model_dump(mode="json")
    with np.errstate(all="ignore"):
        return Made(*printed()["outputs"](job.base.content, contributions, plain, plan, state))


def content(source: object) -> bytes:
    assert isinstance(source, MemoryBlob)
    return source.content


def wild_start(manifest: Sequence[Tensor], uplink: str, downlink: str) -> ReduceJob:
    return with_downlink(wild_job(manifest, 3, "0.7", codec=uplink), downlink)


@pytest.mark.parametrize("uplink", ["float32", "int4", "topk"])
@pytest.mark.parametrize("downlink", DOWNLINKS)
def test_four_rounds_are_the_documented_ones_in_every_bit(downlink: str, uplink: str) -> None:
    manifest = tensor_manifest(trainable={"w": (40_001,), "b": (3, 41), "s": ()}, frozen={"f": (5,)})
    job = wild_start(manifest, uplink, downlink)
    for number in range(2, ROUNDS + 2):
        outputs = made(job)
        assert outputs == by_the_page(job)
        job = next_job(job, outputs, number)
    assert (job.server_state is None) == (downlink == "float32")


@pytest.mark.parametrize("elements", [1, 119, 123, 124, 125, 65_472, 65_473, 70_000])
def test_the_last_block_may_be_of_any_length(elements: int) -> None:
    for downlink in ("int8", "int4"):
        job = wild_start(tensor_manifest(trainable={"w": (elements,)}), "float32", downlink)
        outputs = made(job)
        assert outputs == by_the_page(job)
        job = next_job(job, outputs, 2)
        assert made(job) == by_the_page(job)


@pytest.mark.parametrize("chunk_bytes", [128, 4096, 70_016])
@pytest.mark.parametrize("uplink", ["float32", "int8"])
def test_windows_and_lanes_change_no_bit(monkeypatch: pytest.MonkeyPatch, uplink: str, chunk_bytes: int) -> None:
    elements = 3_001 if chunk_bytes < 4096 else 72_001
    job = wild_start(tensor_manifest(trainable={"w": (elements,), "s": ()}, frozen={"f": (77,)}), uplink, "int8")
    first = made(job)
    second = next_job(job, first, 2)
    whole = (first, made(second))
    cut_into_chunks(monkeypatch, chunk_bytes)
    for lanes in (1, 3):
        monkeypatch.setattr(rounds, "LANES", lanes)
        assert (made(job), made(second)) == whole


def test_with_float32_the_model_is_the_one_without_a_downlink() -> None:
    job = wild_job(tensor_manifest(trainable={"w": (1_000,)}, frozen={"f": (3,)}), 3, "0.7")
    outputs = made(with_downlink(job, "float32"))
    assert outputs.model == reduced(job)
    assert outputs.state is None
    assert len(outputs.applied) == tensors.delta_size(job.manifest)


@pytest.mark.parametrize("downlink", ["bfloat16", "int8", "int4"])
def test_what_is_applied_and_what_is_kept_are_all_that_was_to_be_added(downlink: str) -> None:
    """Over rounds: the sum of the updates is that of the applied deltas and the last residual, but for float32's rounding."""
    elements = 5_000
    manifest = tensor_manifest(trainable={"w": (elements,)})
    job = wild_start(manifest, "float32", downlink)
    job = replace(job, base=MemoryBlob(tensors.model_header(manifest) + small_numbers(elements, 1).tobytes()))
    wanted, applied = np.zeros(elements), np.zeros(elements)
    for number in range(6):
        update = small_numbers(elements, 10 + number)
        delta = MemoryBlob(encoded_blob("float32", manifest, update))
        one = replace(job.deltas[0], reader=delta)
        plan = job.plan.model_copy(update={"server_optimizer": wild_job(manifest, 1, "1").plan.server_optimizer})
        job = replace(job, deltas=[one], plan=plan)
        outputs = made(job)
        wanted += update
        applied += printed()["numbers"](outputs.applied, plain(manifest), downlink)
        assert outputs.state is not None
        job = replace(job, base=MemoryBlob(outputs.model), server_state=MemoryBlob(outputs.state))
    residual = slots_of(content(job.server_state), elements)[1]["residual"]
    np.testing.assert_allclose(applied + residual, wanted, rtol=0, atol=1e-7)
    assert np.abs(residual).max() > 1e-5, "something is lost each round, so that this could fail"


def plain(manifest: Sequence[Tensor]) -> list[dict[str, Any]]:
    return [tensor.model_dump(mode="json") for tensor in manifest]


def test_a_step_that_is_too_small_for_its_blocks_scale_waits_in_the_residual_until_it_counts() -> None:
    manifest = tensor_manifest(trainable={"w": (124,)})
    step = np.zeros(124, np.float32)
    step[0], step[1] = 1.0, 2.0**-10  # the first makes the scale 1/127, which is 8 times the second
    job = with_downlink(wild_job(manifest, 1, "1"), "int8")
    base = np.ones(124, np.float32)
    seen = []
    state: MemoryBlob | None = None
    for _ in range(9):
        delta = MemoryBlob(encoded_blob("float32", manifest, step))
        job = replace(
            job,
            base=MemoryBlob(tensors.model_header(manifest) + base.tobytes()),
            deltas=[replace(job.deltas[0], num_tokens=1, reader=delta)],
            server_state=state,
        )
        outputs = made(job)
        assert outputs.state is not None
        state = MemoryBlob(outputs.state)
        base = np.frombuffer(outputs.model, "<f4", offset=len(tensors.model_header(manifest))).copy()
        seen.append(float(base[1]))
    assert seen[0] == 1.0
    assert seen[-1] == pytest.approx(1 + 9 * 2.0**-10, abs=1 / 127)
    assert seen[-1] > 1.0


@pytest.mark.parametrize(("what", "place"), [("update", "'w' at 7"), ("residual", "'w' at 7")])
def test_a_sum_that_is_no_number_is_no_model(what: str, place: str) -> None:
    manifest = tensor_manifest(trainable={"w": (300,)})
    job = with_downlink(wild_job(manifest, 1, "1"), "int8")
    values = np.zeros(300, np.float32)
    largest = np.finfo(np.float32).max
    values[7] = largest
    delta = MemoryBlob(encoded_blob("float32", manifest, values))
    job = replace(job, deltas=[replace(job.deltas[0], reader=delta)])
    if what == "update":
        plan = job.plan.model_copy(update={"server_optimizer": wild_job(manifest, 1, "2").plan.server_optimizer})
        job = replace(job, plan=plan)
    else:
        job = replace(job, server_state=MemoryBlob(state_blob({"residual": values}, B_INT8)))
    with pytest.raises(ModelOverflow, match=re.escape(f"The update would hold inf in tensor {place}")):
        made(job)


def test_a_model_that_is_none_is_refused_as_without_a_downlink() -> None:
    manifest = tensor_manifest(trainable={"w": (3,)})
    values = np.full(3, np.finfo(np.float32).max)
    job = with_downlink(wild_job(manifest, 1, "1"), "float32")
    delta = MemoryBlob(encoded_blob("float32", manifest, values))
    base = MemoryBlob(tensors.model_header(manifest) + values.tobytes())
    with pytest.raises(ModelOverflow, match="The new model would hold inf in tensor 'w' at 0"):
        made(replace(job, base=base, deltas=[replace(job.deltas[0], reader=delta)]))


def test_a_server_state_of_other_tensors_is_refused() -> None:
    manifest = tensor_manifest(trainable={"w": (300,)})
    job = with_downlink(wild_job(manifest, 1, "1"), "int8")
    zeros = np.zeros(300, np.float32)
    wrong = MemoryBlob(state_blob({"momentum": zeros}, B_INT8))
    with pytest.raises(WrongTensors, match="has another header than residual of 300 elements, 300 a row"):
        made(replace(job, server_state=wrong))
    with pytest.raises(
        WrongTensors, match=r"\(1,388 bytes\), expected 1,392 bytes for residual of 300 elements, 300 a row"
    ):
        made(replace(job, server_state=MemoryBlob(content(wrong)[:-4])))
    with pytest.raises(WrongTensors, match="by its plan there is none"):
        made(with_downlink(replace(job, server_state=wrong), "float32"))


def test_outputs_go_somewhere_exactly_where_the_plan_makes_them() -> None:
    job = wild_job(tensor_manifest(trainable={"w": (3,)}), 1, "1")
    sink = bytearray()
    with pytest.raises(ValueError, match="exactly if the plan has a downlink"):
        reduce_round(job, sink.extend, Beside(sink.extend, None))
    with pytest.raises(ValueError, match="exactly if the plan has a downlink"):
        reduce_round(with_downlink(job, "int8"), sink.extend)
    with pytest.raises(ValueError, match="exactly if the plan's rounds leave one"):
        reduce_round(with_downlink(job, "int8"), sink.extend, Beside(sink.extend, None))
    with pytest.raises(ValueError, match="exactly if the plan's rounds leave one"):
        reduce_round(job, sink.extend, Beside(None, sink.extend))


def test_memory_does_not_grow_with_the_model() -> None:
    elements = 6 * CHUNK_BYTES // 4
    manifest = tensor_manifest(trainable={"w": (elements,)})
    values = np.resize(small_numbers(100_003, 1), elements)
    plain_blob = MemoryBlob(encoded_blob("float32", manifest, values))
    job = with_downlink(wild_job(tensor_manifest(trainable={"w": (3,)}), 2, "1"), "int8")
    deltas = [replace(each, reader=plain_blob) for each in job.deltas]
    base = MemoryBlob(tensors.model_header(manifest) + values.tobytes())
    job = replace(job, manifest=manifest, base=base, deltas=deltas)
    job = replace(job, server_state=MemoryBlob(state_blob({"residual": values}, B_INT8)))
    tracemalloc.start()
    try:
        reduce_round(job, len, Beside(len, len))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50_000_000, f"{peak:,}"


def test_the_self_tests_golden_round_is_the_documented_one() -> None:
    outputs = by_the_page(selftest.downlink_job(selftest.golden_jobs()[selftest.LEARNING_RATES[-1]]))
    golden = json.loads(selftest.GOLDEN_FILE.read_text())
    for name, data in (("model", outputs.model), ("applied_delta", outputs.applied), ("server_state", outputs.state)):
        assert data is not None
        assert hashlib.sha256(data).hexdigest() == golden[f"with downlink {selftest.DOWNLINK}: {name} sha256"]


# --- from one model to the next ---------------------------------------------------------------------------------------


def applied_to(job: ReduceJob, held: bytes, deltas: Sequence[bytes]) -> bytes:
    """The later model, put together from its chunks."""
    assert job.plan.downlink is not None
    found: dict[int, bytes] = {}
    sources = [MemoryBlob(each) for each in deltas]
    apply_deltas(
        ApplyJob(job.plan.downlink.type, job.manifest, MemoryBlob(held), sources),
        lambda index, chunk: found.__setitem__(index, bytes(chunk)),
    )
    assert list(found) == sorted(found)
    return b"".join(found.values())


@pytest.mark.parametrize("downlink", DOWNLINKS)
def test_applied_deltas_lead_from_any_earlier_model_to_the_very_bits(downlink: str) -> None:
    chunk_and_more = CHUNK_BYTES // 4 + 70_001
    manifest = tensor_manifest(trainable={"w": (chunk_and_more,), "s": ()}, frozen={"f": (CHUNK_BYTES // 4 + 3,)})
    job = wild_start(manifest, "float32", downlink)
    models, deltas = [content(job.base)], []
    for number in range(2, 5):
        outputs = made(job)
        models.append(outputs.model)
        deltas.append(outputs.applied)
        job = next_job(job, outputs, number)
    for first in range(len(deltas)):
        assert applied_to(job, models[first], deltas[first:]) == models[-1]
    assert applied_to(job, models[0], [deltas[1]]) != models[1]


def test_a_delta_or_a_model_of_other_tensors_is_refused() -> None:
    manifest = tensor_manifest(trainable={"w": (300,)})
    job = wild_start(manifest, "float32", "int8")
    outputs = made(job)
    with pytest.raises(WrongTensors, match="expected"):
        applied_to(job, content(job.base) + b"\0", [outputs.applied])
    with pytest.raises(WrongTensors):
        applied_to(job, content(job.base), [encoded_blob("int4", manifest, wild(300, 1) / np.float32(2**110))])
    assert CODECS["int8"].encoded_size(manifest) == len(outputs.applied)
