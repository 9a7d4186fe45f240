"""SCAFFOLD's control variate in the reducer: the page's bits, in any order, and what is no round of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from common import tensors
from common.errors import ImplausibleWeight, ModelOverflow, WrongTensors
from common.plan.model import Plan
from common.reduce import Beside, ReduceJob, reduce_round
from common.reduce.selftest import MemoryBlob
from tests.support.blobs import tensor_manifest
from tests.support.wild_rounds import wild, wild_job
from tests.unit.common.reduce.test_downlink import content, printed, small_numbers

MANIFEST = tensor_manifest(trainable={"w": (1_100_000,), "b": (3, 41), "s": ()}, frozen={"f": (5,)})
ELEMENTS = tensors.trainable_elements(MANIFEST)
ACCEPTED = 7


def a_job(institutions: int = 3, *, seed: int = 1) -> ReduceJob:
    """A round beyond one chunk and of several rows, whose controls have denormals and zeros of both signs."""
    job, header = wild_job(MANIFEST, institutions, "0.7", seed=seed), tensors.trainable_header(MANIFEST)
    local = {"optimizer": {"type": "sgd"}, "correction": {"type": "scaffold"}}
    plan = Plan.model_validate(job.plan.model_dump(mode="json") | {"local": local})
    deltas = [
        replace(delta, control=MemoryBlob(header + wild(ELEMENTS, 50 + 10 * seed + number).tobytes()))
        for number, delta in enumerate(job.deltas)
    ]
    return replace(job, plan=plan, deltas=deltas, accepted=ACCEPTED)


def reduced(job: ReduceJob) -> tuple[bytes, bytes]:
    model, state = bytearray(), bytearray()
    reduce_round(job, model.extend, Beside(server_state=state.extend))
    return bytes(model), bytes(state)


def by_the_page(job: ReduceJob) -> tuple[bytes, bytes]:
    assert isinstance(job.base, MemoryBlob)
    with np.errstate(all="ignore"):
        model, _, state = printed()["outputs"](
            job.base.content,
            {each.institution: (each.num_tokens, content(each.reader)) for each in job.deltas},
            [tensor.model_dump(mode="json") for tensor in job.manifest],
            job.plan.model_dump(mode="json"),
            None if job.server_state is None else content(job.server_state),
            {each.institution: content(each.control) for each in job.deltas},
            job.accepted,
        )
    return model, state


def test_three_rounds_are_the_documented_ones_in_every_bit() -> None:
    job = a_job()
    for number in (2, 3, 4):
        model, state = reduced(job)
        assert (model, state) == by_the_page(job)
        shuffled = replace(job, deltas=[*reversed(job.deltas)])
        assert reduced(shuffled) == (model, state)
        job = replace(a_job(seed=number), base=MemoryBlob(model), server_state=MemoryBlob(state))


def test_the_model_is_that_of_a_round_without_control_variates() -> None:
    job, model = a_job(), bytearray()
    plain = [replace(delta, control=None) for delta in job.deltas]
    uncorrected = job.plan.model_copy(update={"local": Plan(apiVersion="llmasos/v1", name="plain").local})
    reduce_round(replace(job, plan=uncorrected, deltas=plain), model.extend)
    assert reduced(job)[0] == model


def test_what_is_no_round_of_it_is_refused() -> None:
    job = a_job()
    with pytest.raises(ImplausibleWeight, match=r"3 contributed, of 2 who accepted the plan\."):
        reduced(replace(job, accepted=2))
    with pytest.raises(WrongTensors, match=r"A contribution has no control, in a run of correction scaffold\."):
        reduced(replace(job, deltas=[*job.deltas[:2], replace(job.deltas[2], control=None)]))
    short = MemoryBlob(content(job.deltas[0].control)[:-4])
    with pytest.raises(WrongTensors, match="bytes"):
        reduced(replace(job, deltas=[replace(job.deltas[0], control=short), *job.deltas[1:]]))
    with pytest.raises(WrongTensors, match="Server_state"):
        reduced(replace(job, server_state=MemoryBlob(b"none")))
    with pytest.raises(ValueError, match="goes into a server_state"):
        reduce_round(job, bytearray().extend)


def test_a_control_variate_that_overflows_is_told_with_its_tensor() -> None:
    job, header = a_job(1), tensors.trainable_header(MANIFEST)
    values = small_numbers(ELEMENTS, 1)
    values[1_100_000] = 3e38
    huge = replace(job.deltas[0], control=MemoryBlob(header + values.tobytes()))
    job = replace(job, deltas=[huge], accepted=1)
    _, state = reduced(job)
    with pytest.raises(ModelOverflow, match=r"The server_state would hold inf as control of tensor 'b' at 0\."):
        reduced(replace(job, server_state=MemoryBlob(state)))
