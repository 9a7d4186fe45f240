"""Rounds of every codec at the coordinator: what is let in, what is refused, and the model that comes of it."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from common import tensors
from common.codecs import CODECS, codec
from common.errors import BlobTooLarge, DeltaTooLong, NonFiniteDelta, WrongTensors
from tests.support.blobs import MadeDelta, model_bytes, read_blob, recompute_model
from tests.support.coordinators import BASE, Coordinator
from tests.support.encoded import decode_slowly
from tests.support.participants import MANIFEST

WEIGHTS = {"north": 17, "east": 64, "south": 1}


def arrays_of(values: np.ndarray, group: str) -> dict[str, np.ndarray]:
    """The numbers of a blob by tensor."""
    found, at = {}, 0
    for tensor in MANIFEST:
        if tensor.group == "trainable" or (group == "model" and tensor.group == "frozen"):
            found[tensor.name] = values[at : at + tensor.elements].reshape(tensor.shape)
            at += tensor.elements
    return found


@pytest.mark.parametrize("name", CODECS)
def test_a_committed_model_is_the_documented_mean_of_the_numbers_that_the_bytes_say(
    coordinator: Coordinator, name: str
) -> None:
    coordinator.open_round(codec={"type": name}, quorum=3)
    made = []
    for institution, tokens in WEIGHTS.items():
        delta = coordinator[institution].delta()
        assert len(delta) == CODECS[name].encoded_size(MANIFEST)
        coordinator[institution].contribute(delta, num_tokens=tokens)
        values = np.array(decode_slowly(name, delta[len(CODECS[name].header(MANIFEST)) :]), np.float32)
        made.append(MadeDelta(institution, tokens, arrays_of(values, "delta")))
    coordinator.advance()
    base = np.frombuffer(BASE[len(tensors.model_header(MANIFEST)) :], "<f4")
    rate = str(coordinator.run.statement.plan.server_optimizer.learning_rate)
    expected = model_bytes(MANIFEST, recompute_model(MANIFEST, arrays_of(base, "model"), made, rate))
    assert read_blob(coordinator.blobs, coordinator.run.model) == expected


@pytest.mark.parametrize("name", ["bfloat16", "int8", "int4"])
def test_a_delta_that_is_not_the_plans_codecs_is_refused_before_its_bytes_come(
    coordinator: Coordinator, name: str
) -> None:
    coordinator.open_round(codec={"type": name})
    expected, plain = CODECS[name].encoded_size(MANIFEST), tensors.delta_size(MANIFEST)
    with pytest.raises(
        BlobTooLarge, match=f"The delta has {plain:,} bytes, by the plan's manifest it has {expected:,}"
    ):
        coordinator["north"].send(bytes(plain))


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_hostile_scales_and_codes_are_refused_and_recorded(coordinator: Coordinator, name: str) -> None:
    coordinator.open_round(codec={"type": name})
    north = coordinator["north"]
    for bits, error in ((0x7FC00000, NonFiniteDelta), (0x80000000, WrongTensors)):
        spoiled = bytearray(north.delta())
        struct.pack_into("<I", spoiled, 128, bits)
        with pytest.raises(error, match=r"Block 0 of the delta holds scale (nan|-0\.0), in tensor 'embedding' at 0; "):
            north.contribute(bytes(spoiled))
    assert {code for _, _, code, _ in coordinator.refusals()} == {"non-finite-delta", "wrong-tensors"}
    north.contribute()


@pytest.mark.parametrize("name", ["bfloat16", "int8", "int4", "topk"])
def test_the_bound_on_the_norm_is_of_the_decoded_numbers(coordinator: Coordinator, name: str) -> None:
    coordinator.open_round(codec={"type": name}, max_delta_l2="0.001")
    with pytest.raises(DeltaTooLong, match=r"The delta's L2 norm is 0\.\d+, the plan's max_delta_l2 is 0\.001\."):
        coordinator["north"].contribute()


def test_a_plans_share_is_what_its_deltas_are_read_by(coordinator: Coordinator) -> None:
    coordinator.open_round(codec={"type": "topk", "fraction": "0.25"})
    chosen = codec(coordinator.run.statement.plan.codec)
    assert chosen.block_elements == 796
    assert len(coordinator["north"].delta()) == chosen.encoded_size(MANIFEST)
    coordinator["north"].contribute()
