"""Arrays through the reducer: the bits of reduce_round, codecs and downlink included, and refusals that name the array."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from common.errors import DeltaTooLong, ImplausibleWeight, InvalidName, NonFiniteDelta, SlotTaken, WrongTensors
from common.plan.model import Plan
from llmasos.flower.rounds import ReducedRounds
from tests.support.blobs import tensor_manifest
from tests.support.plans import a_plan

MANIFEST = tensor_manifest(trainable={"w": (300, 40), "b": (5,), "scale": ()})
WEIGHTS = {"north": 1000, "east": 17, "south": 536_870_911}
Arrays = dict[str, NDArray[np.float32]]


def some_arrays(seed: int) -> Arrays:
    chosen = np.random.default_rng(seed)
    return {entry.name: chosen.standard_normal(entry.shape).astype(np.float32) for entry in MANIFEST}


def mean_by_hand(base: Arrays, after: dict[str, Arrays], rate: float = 1.0) -> Arrays:
    """The documented formula, with nothing of ours."""
    new = {}
    for name, before in base.items():
        total = np.zeros(before.shape, dtype=np.float64)
        for institution in sorted(after):
            total += float(WEIGHTS[institution]) * np.float64(after[institution][name] - before)
        mean = (total / float(sum(WEIGHTS[one] for one in after))).astype(np.float32)
        new[name] = before + np.float32(rate) * mean
    return new


@pytest.fixture
def rounds(tmp_path: Path) -> Callable[..., ReducedRounds]:
    return lambda **changes: ReducedRounds(a_plan(**changes), tmp_path)


def taken(rounds: ReducedRounds, base: Arrays, after: dict[str, Arrays]) -> Arrays | None:
    rounds.open(base)
    for name, arrays in after.items():
        rounds.take(name, WEIGHTS[name], arrays)
    return rounds.close()


def test_a_round_gives_the_documented_bits_whatever_the_order(rounds: Callable[..., ReducedRounds]) -> None:
    base, after = some_arrays(0), {name: some_arrays(seed) for seed, name in enumerate(WEIGHTS, 1)}
    tool = rounds(server_optimizer={"type": "sgd", "learning_rate": "0.7"})
    expected = mean_by_hand(base, after, 0.7)
    for order in (list(WEIGHTS), list(reversed(WEIGHTS))):
        new = taken(tool, base, {name: dict(reversed(after[name].items())) for name in order})
        assert new is not None
        assert list(new) == list(base)
        for name in base:
            assert new[name].shape == base[name].shape
            assert new[name].tobytes() == expected[name].tobytes()


def test_below_the_quorum_there_is_no_model(rounds: Callable[..., ReducedRounds]) -> None:
    assert taken(rounds(quorum=3), some_arrays(0), {"north": some_arrays(1), "east": some_arrays(2)}) is None


def test_what_a_codec_loses_comes_with_the_next_delta(rounds: Callable[..., ReducedRounds]) -> None:
    """Twice the same delta: each round alone is wrong by up to half a step, both together by that once, not twice."""
    base = some_arrays(0)
    after = {name: {key: base[key] + some_arrays(seed)[key] for key in base} for seed, name in enumerate(WEIGHTS, 1)}
    tool = rounds(codec={"type": "int4"})
    first = taken(tool, base, after)
    second = taken(tool, base, after)
    assert first is not None
    assert second is not None
    exact = mean_by_hand(base, after)
    lost_once = np.abs(first["w"] - exact["w"]).mean()
    lost_of_both = np.abs((first["w"] - exact["w"]) + (second["w"] - exact["w"])).mean()
    assert 0 < lost_of_both < 1.2 * lost_once


def test_a_downlink_keeps_its_residual_between_rounds(rounds: Callable[..., ReducedRounds]) -> None:
    base, after = some_arrays(0), {name: some_arrays(seed) for seed, name in enumerate(WEIGHTS, 1)}
    tool = rounds(downlink={"type": "int8"})
    first = taken(tool, base, after)
    second = taken(tool, base, after)
    assert first is not None
    assert second is not None
    assert first["w"].tobytes() != second["w"].tobytes()  # the second starts with what the first one dropped
    exact = mean_by_hand(base, after)["w"]
    assert np.abs(first["w"] + second["w"] - 2 * exact).max() <= 1.1 * np.abs(first["w"] - exact).max()


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "another shape": ({"b": np.zeros(6, np.float32)}, WrongTensors, r"'b' has shape \(6,\), expected \(5,\)"),
    "float64": ({"b": np.zeros(5)}, WrongTensors, "'b' is float64, expected float32"),
    "NaN": ({"b": np.full(5, np.nan, np.float32)}, NonFiniteDelta, "'b' at 0"),
    "too long": ({"b": np.full(5, 1e9, np.float32)}, DeltaTooLong, "max_delta_l2 is 1000"),
    "one more": ({"more": np.zeros(5, np.float32)}, WrongTensors, "'more' is not one of the model's"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_reply_is_refused_by_name_and_does_not_count(case: str, rounds: Callable[..., ReducedRounds]) -> None:
    spoiled, error, message = BAD[case]
    tool = rounds(quorum=1)
    tool.open(some_arrays(0))
    with pytest.raises(error, match=message):
        tool.take("north", 1, some_arrays(1) | spoiled)
    assert tool.taken == 0
    assert tool.close() is None


def test_a_missing_array_a_second_reply_and_a_false_weight_are_refused(rounds: Callable[..., ReducedRounds]) -> None:
    tool = rounds()
    tool.open(some_arrays(0))
    tool.take("north", 1, some_arrays(1))
    with pytest.raises(SlotTaken, match="north stands twice"):
        tool.take("north", 1, some_arrays(2))
    with pytest.raises(WrongTensors, match="'scale' is missing"):
        tool.take("east", 1, {name: values for name, values in some_arrays(1).items() if name != "scale"})
    with pytest.raises(ImplausibleWeight, match="num_tokens of east is 0"):
        tool.take("east", 0, some_arrays(1))
    with pytest.raises(InvalidName, match=r"\.\./east"):
        tool.take("../east", 1, some_arrays(1))
    assert tool.taken == 1


def test_another_model_than_the_last_rounds_is_refused(rounds: Callable[..., ReducedRounds]) -> None:
    tool = rounds()
    tool.open(some_arrays(0))
    with pytest.raises(WrongTensors, match="starts from other arrays"):
        tool.open({"w": np.zeros(3, np.float32)})


def test_a_plan_is_taken_as_it_is(tmp_path: Path) -> None:
    plan: Plan = a_plan(quorum=2)
    assert ReducedRounds(plan, tmp_path).plan is plan
