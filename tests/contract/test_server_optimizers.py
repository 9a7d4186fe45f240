"""What every server optimizer must hold to. A new one: a module, a row in the registry, a plan section, a row in CASES."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from numpy.typing import NDArray

from common import tensors
from common.blobs.reference import CHUNK_BYTES
from common.errors import ModelOverflow, WrongTensors
from common.plan.model import Plan
from common.reduce import ReduceJob, reduce_round, registry, selftest
from common.reduce import round as rounds
from common.reduce.selftest import MemoryBlob
from common.reduce.server_state import layout_of
from tests.support.blobs import tensor_manifest
from tests.support.encoded import encoded_blob
from tests.support.server_states import slots_of, state_blob
from tests.support.wild_rounds import reordered, wild_job
from tests.unit.common.reduce.test_downlink import Made, by_the_page, content, made, small_numbers
from tests.unit.common.reduce.test_independence import cut_into_chunks

Numbers = NDArray[np.float64]
Oracle = Callable[[Mapping[str, Any]], "Formula"]
ROUNDS = 6


@dataclass
class Formula:
    """An optimizer by its paper, in float64: from the pseudo-gradient's negative and the model to what is added."""

    step: Callable[[Numbers, Numbers], Numbers]


def sgd(section: Mapping[str, Any]) -> Formula:
    return Formula(lambda delta, model: float(section["learning_rate"]) * delta)


def with_momentum(section: Mapping[str, Any]) -> Formula:
    """arXiv:1909.06335, and with Nesterov's look ahead arXiv:2311.08105, as torch.optim.SGD documents both."""
    rate, beta, nesterov = float(section["learning_rate"]), float(section["momentum"]), section["type"] == "nesterov"
    gradients: list[Numbers] = []

    def step(delta: Numbers, model: Numbers) -> Numbers:
        gradients.append(-delta)
        buffers = [np.zeros_like(delta)]
        for gradient in gradients:
            buffers.append(beta * buffers[-1] + gradient)
        direction = gradients[-1] + beta * buffers[-1] if nesterov else buffers[-1]
        return -rate * direction

    return Formula(step)


def adam(section: Mapping[str, Any]) -> Formula:
    """arXiv:1412.6980, algorithm 1; arXiv:1711.05101, algorithm 2; without bias correction arXiv:2003.00295, algorithm 2."""
    rate, beta1, beta2 = (float(section[name]) for name in ("learning_rate", "beta1", "beta2"))
    gradients: list[Numbers] = []

    def step(delta: Numbers, model: Numbers) -> Numbers:
        gradients.append(-delta)
        t = len(gradients)
        ages = range(t - 1, -1, -1)
        mean = (1 - beta1) * sum((beta1**age * g for age, g in zip(ages, gradients, strict=True)), np.zeros_like(delta))
        square = (1 - beta2) * sum((beta2**age * g**2 for age, g in zip(ages, gradients, strict=True)), 0 * delta)
        if section["bias_correction"]:
            mean, square = mean / (1 - beta1**t), square / (1 - beta2**t)
        decayed = rate * float(section.get("weight_decay", "0")) * model
        return -rate * mean / (np.sqrt(square) + float(section["epsilon"])) - decayed

    return Formula(step)


def yogi(section: Mapping[str, Any]) -> Formula:
    """arXiv:2003.00295, algorithm 2: v = v − (1 − β2) Δ² sign(v − Δ²)."""
    rate, beta1, beta2, tau = (float(section[name]) for name in ("learning_rate", "beta1", "beta2", "tau"))
    kept: dict[str, Any] = {"m": 0.0, "v": float(section["initial_square"])}

    def step(delta: Numbers, model: Numbers) -> Numbers:
        kept["m"] = beta1 * kept["m"] + (1 - beta1) * delta
        kept["v"] = kept["v"] - (1 - beta2) * delta**2 * np.sign(kept["v"] - delta**2)
        return np.asarray(rate * kept["m"] / (np.sqrt(kept["v"]) + tau))

    return Formula(step)


def adagrad(section: Mapping[str, Any]) -> Formula:
    """arXiv:2003.00295, algorithm 2 with β1 = 0."""
    deltas: list[Numbers] = []

    def step(delta: Numbers, model: Numbers) -> Numbers:
        deltas.append(delta)
        square = float(section["initial_square"]) + sum((each**2 for each in deltas), np.zeros_like(delta))
        return float(section["learning_rate"]) * delta / (np.sqrt(square) + float(section["tau"]))

    return Formula(step)


Torch = Callable[[list[torch.Tensor], Mapping[str, Any]], torch.optim.Optimizer]


def torch_sgd(weights: list[torch.Tensor], section: Mapping[str, Any]) -> torch.optim.Optimizer:
    momentum, nesterov = float(section.get("momentum", "0")), section["type"] == "nesterov"
    return torch.optim.SGD(weights, lr=float(section["learning_rate"]), momentum=momentum, nesterov=nesterov)


def torch_adam(weights: list[torch.Tensor], section: Mapping[str, Any]) -> torch.optim.Optimizer:
    kind = torch.optim.Adam if section["type"] == "adam" else torch.optim.AdamW
    return kind(
        weights,
        lr=float(section["learning_rate"]),
        betas=(float(section["beta1"]), float(section["beta2"])),
        eps=float(section["epsilon"]),
        weight_decay=float(section.get("weight_decay", "0")),
    )


def torch_adagrad(weights: list[torch.Tensor], section: Mapping[str, Any]) -> torch.optim.Optimizer:
    initial = float(section["initial_square"])
    return torch.optim.Adagrad(
        weights, lr=float(section["learning_rate"]), eps=float(section["tau"]), initial_accumulator_value=initial
    )


@dataclass(frozen=True)
class Case:
    """One server optimizer: its formula, what torch calls it if it does, and other parameters than the defaults."""

    oracle: Oracle
    torch: Torch | None
    other: tuple[Mapping[str, Any], ...] = ()


CASES: Mapping[str, Case] = {
    "sgd": Case(sgd, torch_sgd, ({"learning_rate": "0.7"},)),
    "momentum": Case(with_momentum, torch_sgd, ({"learning_rate": "0.1", "momentum": "0.5"}, {"momentum": "0"})),
    "nesterov": Case(with_momentum, torch_sgd, ({"learning_rate": "0.3", "momentum": "0.99"},)),
    "adam": Case(adam, torch_adam, ({"epsilon": "0.00000001", "beta2": "0.999"}, {"beta1": "0"})),
    "adamw": Case(adam, torch_adam, ({"epsilon": "0.00000001", "weight_decay": "0.3"}, {"weight_decay": "0"})),
    "yogi": Case(yogi, None, ({"tau": "0.000001", "initial_square": "0"}, {"beta2": "0.5"})),
    "adagrad": Case(adagrad, torch_adagrad, ({"tau": "0.00000001", "initial_square": "0"},)),
}
VARIANTS = [{"type": name} | dict(fields) for name, case in CASES.items() for fields in ({}, *case.other)]
WITHOUT_TORCH = [{"type": name, "bias_correction": False} for name in ("adam", "adamw")]
STATEFUL = [name for name in CASES if name != "sgd"]
MANIFEST = tensor_manifest(trainable={"w": (70_001,), "b": (3, 41), "s": ()}, frozen={"f": (5,)})


def in_words(section: Mapping[str, Any]) -> str:
    return " ".join(str(value) for value in section.values())


def planned(job: ReduceJob, section: Mapping[str, Any], downlink: str | None = None) -> ReduceJob:
    changed = {"server_optimizer": section, "downlink": downlink and {"type": downlink}}
    return replace(job, plan=Plan.model_validate(job.plan.model_dump(mode="json") | changed))


def full(section: Mapping[str, Any]) -> Mapping[str, Any]:
    """With its defaults, as the plan statement says it."""
    said: Mapping[str, Any] = planned(wild_job(MANIFEST, 1, "1"), section).plan.model_dump(mode="json")
    return dict(said["server_optimizer"])


def after(job: ReduceJob, outputs: Made) -> ReduceJob:
    """What the next round starts from."""
    state = None if outputs.state is None else MemoryBlob(outputs.state)
    return replace(job, base=MemoryBlob(outputs.model), server_state=state)


def small_rounds(
    section: Mapping[str, Any],
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]]:
    """Of rounds with one institution: the combined delta, the base model's trainable numbers, and the new model's."""
    elements = tensors.trainable_elements(MANIFEST)
    start = len(tensors.model_header(MANIFEST))
    base = MemoryBlob(tensors.model_header(MANIFEST) + small_numbers(elements + 5, 99).tobytes())
    job = planned(replace(wild_job(MANIFEST, 1, "1"), base=base), section)
    for number in range(ROUNDS):
        delta = small_numbers(elements, number)
        delta[::7] = 0.0
        one = replace(job.deltas[0], reader=MemoryBlob(encoded_blob("float32", MANIFEST, delta)))
        job = replace(job, deltas=[one])
        before = np.frombuffer(content(job.base), "<f4", offset=start, count=elements)
        outputs = made(job)
        yield delta, before, np.frombuffer(outputs.model, "<f4", offset=start, count=elements)
        assert outputs.model[start + 4 * elements :] == content(job.base)[start + 4 * elements :], "frozen"
        job = after(job, outputs)


def test_every_server_optimizer_is_in_this_suite() -> None:
    assert set(CASES) == set(registry.SERVER_OPTIMIZERS)


@pytest.mark.parametrize("section", [*VARIANTS, *WITHOUT_TORCH], ids=in_words)
def test_six_rounds_are_the_papers_formula(section: Mapping[str, Any]) -> None:
    said = full(section)
    formula, moved = CASES[section["type"]].oracle(said), 0.0
    model: Numbers | None = None
    for delta, before, new in small_rounds(section):
        model = before.astype(np.float64) if model is None else model
        model = model + formula.step(delta.astype(np.float64), model)
        np.testing.assert_allclose(new, model, rtol=2e-6, atol=2e-7)
        moved = max(moved, float(np.abs(new - before).max()))
    assert moved > 1e-3, "so that this could fail"


@pytest.mark.parametrize("section", [each for each in VARIANTS if CASES[each["type"]].torch], ids=in_words)
def test_six_rounds_are_torchs(section: Mapping[str, Any]) -> None:
    """torch.optim over the pseudo-gradient, minus the delta."""
    make, weights, optimizer = CASES[section["type"]].torch, None, None
    assert make is not None
    for delta, before, new in small_rounds(section):
        if weights is None or optimizer is None:
            weights = torch.tensor(before, requires_grad=True)
            optimizer = make([weights], full(section))
        weights.grad = -torch.tensor(delta)
        optimizer.step()
        np.testing.assert_allclose(new, weights.detach().numpy(), rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("downlink", [None, "float32", "int8", "int4"])
@pytest.mark.parametrize("section", [*VARIANTS, *WITHOUT_TORCH], ids=in_words)
def test_rounds_are_the_documented_ones_in_every_bit(section: Mapping[str, Any], downlink: str | None) -> None:
    """Over wild numbers as far as they are finite: their denormals and zeros of both signs among them."""
    job = planned(tame_job(3), section, downlink)
    for number in range(2, 5):
        outputs = made(job)
        assert outputs == by_the_page(job)
        job = after(replace(job, deltas=tame_job(3, seed=number).deltas), outputs)


def tame_job(institutions: int, seed: int = 1) -> ReduceJob:
    """A round of wild deltas whose squares are finite."""
    job = wild_job(MANIFEST, institutions, "1", seed=seed)
    deltas = []
    for each in job.deltas:
        values = np.frombuffer(content(each.reader), "<f4", offset=len(tensors.trainable_header(MANIFEST))).copy()
        values[np.abs(values) > 2.0**40] *= np.float32(2.0**-80)
        deltas.append(replace(each, reader=MemoryBlob(encoded_blob("float32", MANIFEST, values))))
    start = tensors.model_header(MANIFEST)
    base = start + small_numbers(tensors.trainable_elements(MANIFEST) + 5, seed).tobytes()
    return replace(job, base=MemoryBlob(base), deltas=deltas)


@pytest.mark.parametrize("chunk_bytes", [4096, 70_016])
@pytest.mark.parametrize("downlink", [None, "int8"])
@pytest.mark.parametrize("name", CASES)
def test_windows_lanes_and_order_change_no_bit(
    monkeypatch: pytest.MonkeyPatch, name: str, downlink: str | None, chunk_bytes: int
) -> None:
    job = planned(tame_job(4), {"type": name}, downlink)

    def both(order: list[int]) -> tuple[Made, Made]:
        first = made(reordered(job, order))
        return first, made(after(reordered(job, order), first))

    whole = both([0, 1, 2, 3])
    assert both([2, 0, 3, 1]) == whole
    cut_into_chunks(monkeypatch, chunk_bytes)
    for lanes in (1, 3):
        monkeypatch.setattr(rounds, "LANES", lanes)
        assert both([3, 2, 1, 0]) == whole


# --- the state --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("elements", [1, 65_471, 65_472, 65_473, 65_536, 65_537, 140_000])
@pytest.mark.parametrize("downlink", [None, "int8"])
@pytest.mark.parametrize("name", STATEFUL)
def test_a_state_is_one_safetensors_file_of_the_size_that_plan_and_manifest_give(
    name: str, downlink: str | None, elements: int
) -> None:
    manifest = tensor_manifest(trainable={"w": (elements,)})
    job = planned(wild_job(manifest, 1, "1"), {"type": name}, downlink)
    values = small_numbers(elements, 3)
    one = replace(job.deltas[0], reader=MemoryBlob(encoded_blob("float32", manifest, values)))
    job = replace(job, deltas=[one], base=MemoryBlob(tensors.model_header(manifest) + bytes(4 * elements)))
    state, layout = made(job).state, layout_of(job.plan, manifest)
    assert state is not None
    assert layout is not None
    assert len(state) == layout.size
    found = safetensors.numpy.load(state)
    b = min(elements, 65_472 if downlink else 65_536)
    assert found["state"].shape == (-(-elements // b), len(job.plan.slots), b)
    assert found["scalars"].shape == (len(job.plan.server_optimizer.scalars),)
    assert found["scalars"].dtype == np.float64
    scalars, slots = slots_of(state, elements)
    assert tuple(slots) == job.plan.slots
    assert state_blob(slots, b, scalars) == state, "what is left of the last row is zeros"


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_powers_of_beta_are_running_products_of_the_rounds(name: str) -> None:
    job = planned(tame_job(2), {"type": name, "beta1": "0.9", "beta2": "0.99"})
    expected = [1.0, 1.0]
    for _ in range(3):
        outputs = made(job)
        assert outputs.state is not None
        expected = [expected[0] * 0.9, expected[1] * 0.99]
        assert slots_of(outputs.state, tensors.trainable_elements(MANIFEST))[0] == expected
        job = after(job, outputs)


@pytest.mark.parametrize("name", CASES)
def test_where_all_deltas_are_zero_the_model_stays_or_decays(name: str) -> None:
    elements = tensors.trainable_elements(MANIFEST)
    job = planned(wild_job(MANIFEST, 1, "1"), {"type": name})
    zeros = MemoryBlob(encoded_blob("float32", MANIFEST, np.zeros(elements, np.float32)))
    base = tensors.model_header(MANIFEST) + small_numbers(elements + 5, 1).tobytes()
    job = replace(job, base=MemoryBlob(base), deltas=[replace(job.deltas[0], reader=zeros)])
    for _ in range(2):
        outputs = made(job)
        assert (outputs.model == content(job.base)) == (name != "adamw")
        job = after(job, outputs)


@pytest.mark.parametrize("scalars", [(float("nan"), 0.9), (0.9, float("inf")), (-0.1, 0.9), (0.9, 1.5)])
def test_powers_that_no_round_leaves_are_refused(scalars: tuple[float, float]) -> None:
    manifest = tensor_manifest(trainable={"w": (300,)})
    zeros = np.zeros(300, np.float32)
    job = planned(wild_job(manifest, 1, "1"), {"type": "adam"})
    state = MemoryBlob(state_blob({"mean": zeros, "square": zeros}, 300, scalars))
    with pytest.raises(
        WrongTensors, match=r"says \S+ for beta[12]_power, expected a (finite number|number from 0 to 1)"
    ):
        made(replace(job, server_state=state))


def test_a_state_of_another_optimizer_is_refused() -> None:
    manifest = tensor_manifest(trainable={"w": (300,)})
    zeros = np.zeros(300, np.float32)
    for name, slots, message in (
        ("adagrad", ("momentum",), "another header than square of 300 elements, 300 a row"),
        ("nesterov", ("mean", "square"), r"\(2,\d\d\d bytes\), expected 1,\d\d\d bytes for momentum of 300 elements"),
        ("sgd", ("momentum",), "by its plan there is none"),
    ):
        job = planned(wild_job(manifest, 1, "1"), {"type": name})
        state = MemoryBlob(state_blob(dict.fromkeys(slots, zeros), 300))
        with pytest.raises(WrongTensors, match=message):
            made(replace(job, server_state=state))


@pytest.mark.parametrize("name", STATEFUL)
def test_a_state_that_would_not_be_finite_makes_no_model(name: str) -> None:
    """A number of a hostile state, or one that the round itself makes."""
    manifest = tensor_manifest(trainable={"v": (65_536,), "w": (300,)})
    job = planned(wild_job(manifest, 1, "1"), {"type": name})
    largest = np.zeros(65_836, np.float32)
    largest[65_543] = np.float32(3e38)
    one = replace(job.deltas[0], reader=MemoryBlob(encoded_blob("float32", manifest, largest)))
    base = MemoryBlob(tensors.model_header(manifest) + largest.tobytes())
    job = replace(job, base=base, deltas=[one])
    with pytest.raises(ModelOverflow, match=r"would hold (inf|nan) (as \w+ of|in) tensor 'w' at 7"):
        made(after(job, made(job)))
    quiet = replace(one, reader=MemoryBlob(encoded_blob("float32", manifest, 0 * largest)))
    spoiled = {slot: np.where(largest > 0, np.float32("nan"), np.float32(0)) for slot in job.plan.slots}
    scalars = [0.9] * len(job.plan.server_optimizer.scalars)
    state = MemoryBlob(state_blob(spoiled, 65_536, scalars))
    with pytest.raises(ModelOverflow, match="would hold nan in tensor 'w' at 7"):
        made(replace(job, deltas=[quiet], server_state=state))


@pytest.mark.parametrize("name", ["adamw", "yogi"])
def test_memory_does_not_grow_with_the_model(name: str) -> None:
    elements = 6 * CHUNK_BYTES // 4
    manifest = tensor_manifest(trainable={"w": (elements,)})
    values = np.resize(small_numbers(100_003, 1), elements)
    job = planned(wild_job(tensor_manifest(trainable={"w": (3,)}), 2, "1"), {"type": name}, "int8")
    blob = MemoryBlob(encoded_blob("float32", manifest, values))
    slots = dict.fromkeys(job.plan.slots, values * values)
    state = MemoryBlob(state_blob(slots, 65_472, [0.9] * len(job.plan.server_optimizer.scalars)))
    base = MemoryBlob(tensors.model_header(manifest) + values.tobytes())
    deltas = [replace(each, reader=blob) for each in job.deltas]
    job = replace(job, manifest=manifest, base=base, deltas=deltas, server_state=state)
    written = [0]

    def count(piece: memoryview) -> None:
        written[0] += len(piece)

    tracemalloc.start()
    try:
        reduce_round(job, len, rounds.Beside(len, count))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert written[0] == len(state.content) > 3 * 24_000_000
    assert peak < 52_000_000, f"{peak:,}"


@pytest.mark.parametrize("name", CASES)
def test_the_self_tests_golden_rounds_are_the_documented_ones(name: str) -> None:
    golden = json.loads(selftest.GOLDEN_FILE.read_text())
    job = selftest.stepping_job(name)
    for number in (1, 2):
        outputs = by_the_page(job)
        assert outputs.state is not None
        for what, data in (("model", outputs.model), ("server_state", outputs.state)):
            assert hashlib.sha256(data).hexdigest() == golden[f"{name}, round {number}: {what} sha256"]
        job = after(job, outputs)
