"""The self-test: golden on this machine, and it notices arithmetic that differs."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from pydantic import TypeAdapter

from common import tensors
from common.blobs.reference import CHUNK_BYTES
from common.codecs.base import Float32s
from common.errors import ReducerSelfTestFailed
from common.plan import server_optimizers as plan
from common.plan.rules import Rule
from common.reduce import average, registry, selftest
from common.reduce.loops import Float64s, NumpyLoops
from tests.support.blobs import MadeDelta, model_bytes, recompute_model

GOLDEN = json.loads(selftest.GOLDEN_FILE.read_text())


def test_this_machine_passes_in_half_a_second_of_its_own_time() -> None:
    started = time.process_time()
    selftest.run_self_test()
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize("learning_rate", selftest.LEARNING_RATES)
def test_the_golden_model_is_the_documented_formulas(learning_rate: str) -> None:
    job = selftest.golden_jobs()[learning_rate]

    def arrays(seed: int, groups: set[str]) -> dict[str, np.ndarray]:
        chosen = [tensor for tensor in selftest.MANIFEST if tensor.group in groups]
        values = selftest.numbers(seed, sum(tensor.elements for tensor in chosen))
        ends = np.cumsum([tensor.elements for tensor in chosen])
        return {
            tensor.name: part.reshape(tensor.shape)
            for tensor, part in zip(chosen, np.split(values, ends[:-1]), strict=True)
        }

    deltas = [
        MadeDelta(delta.institution, delta.num_tokens, arrays(seed, {"trainable"}))
        for seed, delta in enumerate(job.deltas, start=2)
    ]
    model = model_bytes(
        selftest.MANIFEST, recompute_model(selftest.MANIFEST, arrays(1, {"trainable", "frozen"}), deltas, learning_rate)
    )
    assert hashlib.sha256(model).hexdigest() == GOLDEN[f"model sha256, learning rate {learning_rate}"]


def test_golden_inputs_have_denormals_zeros_both_signs_and_two_chunks() -> None:
    values = selftest.numbers(3, 100_000)
    tiny = (values != 0) & (np.abs(values) < 2.0**-126)
    assert tiny.sum() > 8_000
    assert (values == 0).sum() > 1_000
    assert np.signbit(values).any()
    assert not np.signbit(values).all()
    assert np.isfinite(values).all()
    assert tensors.delta_size(selftest.MANIFEST) > CHUNK_BYTES


def test_another_result_is_refused_with_both_values(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    changed = {**GOLDEN, "l2 of east": "0x1.0p+8"}
    path = tmp_path / "golden.json"
    path.write_text(json.dumps(changed))
    monkeypatch.setattr(selftest, "GOLDEN_FILE", path)
    with pytest.raises(
        ReducerSelfTestFailed, match=r"'l2 of east' is 0x1\.b66a3d227ee46p\+8 here, expected 0x1\.0p\+8"
    ):
        selftest.run_self_test()


def test_a_mean_in_float32_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sloppy(NumpyLoops):
        def add_product(self, sum_M: Float64s, coefficient: float, delta_M: Float32s) -> None:
            sum_M[:] = (sum_M + coefficient * delta_M).astype(np.float32)

    monkeypatch.setattr(average, "make_loops", Sloppy)
    with pytest.raises(ReducerSelfTestFailed, match="sha256"):
        selftest.run_self_test()


def test_every_rule_and_server_optimizer_of_a_plan_is_registered() -> None:
    union, _ = get_args(Rule)
    sections_of_rules = {section.model_fields["type"].default for section in get_args(union)}
    assert set(registry.RULES) == sections_of_rules - {"operator"}
    sections = TypeAdapter(plan.ServerOptimizer).json_schema()["discriminator"]["mapping"]
    assert set(registry.SERVER_OPTIMIZERS) == set(sections)


def test_the_reducer_loads_neither_torch_nor_grpc_nor_a_store() -> None:
    program = (
        "import sys, common.reduce, common.reduce.selftest;"
        "print(sorted({'torch', 'grpc', 'sqlite3', 'sqlalchemy', 'llmasos', 'coordinator'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
