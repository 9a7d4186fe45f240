"""One suite for every aggregation rule: bits by the documented formulas, values by the papers', what it withstands."""

from __future__ import annotations

import random
import re
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from common import tensors
from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.blobs.store import FolderBlobStore
from common.codecs import CODECS
from common.errors import CorruptChunk, MalformedStatement, ModelOverflow, NonFiniteDelta, WrongDeltaCount
from common.ledger.tasks import check_shape
from common.plan.explain import explain
from common.plan.model import Plan
from common.plan.rules import MOST_COMPARED, Rule, RuleSection
from common.reduce import ReduceJob, WeightedDelta, inspect_delta, lanes, looks, parts, reduce_round, sorting
from common.reduce import round as rounds
from common.reduce.registry import RULES
from common.reduce.selftest import MemoryBlob
from tests.independent.arithmetic import outputs
from tests.support.blobs import put_blob, tensor_manifest
from tests.support.encoded import encoded_blob
from tests.support.statements import a_blob_ref, a_contribution, a_round_opened
from tests.support.wild_rounds import reduced, reordered, wild_job
from tests.unit.common.reduce.test_independence import cut_into_chunks

Float32s = NDArray[np.float32]
Floats = NDArray[np.float64]
MEGABYTE = 10**6


# --- the papers, read literally, over whole vectors in float64 ---------------------------------------------------------------


def mean(d: Floats, n: Floats, f: int) -> Floats:
    return np.asarray(np.average(d, axis=0, weights=n))


def median(d: Floats, n: Floats, f: int) -> Floats:
    return np.asarray(np.median(d, axis=0))


def trimmed(d: Floats, n: Floats, f: int) -> Floats:
    return np.asarray(np.sort(d, axis=0)[f : len(d) - f].mean(axis=0))


def krum_order(d: Floats, f: int) -> NDArray[np.int64]:
    squared = ((d[:, None] - d[None]) ** 2).sum(axis=2)
    closest = np.sort(squared, axis=1)[:, 1 : 1 + max(1, len(d) - f - 2)]
    return np.argsort(closest.sum(axis=1), kind="stable")


def krum(d: Floats, n: Floats, f: int) -> Floats:
    return np.asarray(d[krum_order(d, f)[0]])


def multi_krum(d: Floats, n: Floats, f: int) -> Floats:
    return np.asarray(d[krum_order(d, f)[: len(d) - f - 2]].mean(axis=0))


def bulyan(d: Floats, n: Floats, f: int) -> Floats:
    left, chosen = d, []
    while len(chosen) < len(d) - 2 * f:
        best = krum_order(left, f)[0]
        chosen.append(left[best])
        left = np.delete(left, best, axis=0)
    picked = np.array(chosen)
    away = np.abs(picked - np.median(picked, axis=0))
    nearest = np.argsort(away, axis=0, kind="stable")[: len(picked) - 2 * f]
    return np.asarray(np.take_along_axis(picked, nearest, axis=0).mean(axis=0))


def geometric_median(d: Floats, n: Floats, f: int) -> Floats:
    z = mean(d, n, f)
    for _ in range(100):
        beta = n / np.maximum(1e-6, np.linalg.norm(d - z, axis=1))
        z = np.average(d, axis=0, weights=beta)
    return z


def clipped(d: Floats, n: Floats, bound: float) -> Floats:
    return mean(d * np.minimum(1, bound / np.linalg.norm(d, axis=1))[:, None], n, 0)


def norm_bounding(d: Floats, n: Floats, f: int) -> Floats:
    return clipped(d, n, float(np.sort(np.linalg.norm(d, axis=1))[(len(d) - 1) // 2]))


@dataclass(frozen=True)
class Case:
    """One rule."""

    paper: Callable[[Floats, Floats, int], Floats]
    astray: float | None
    """How far two of the fewest deltas that it needs for two may move it, by the right deltas' length; None: anywhere."""
    fields: dict[str, Any]
    """What its section must say."""


CASES = {
    "weighted-mean": Case(mean, None, {}),
    "median": Case(median, 0.2, {}),
    "trimmed-mean": Case(trimmed, 0.2, {}),
    "geometric-median": Case(geometric_median, 0.2, {}),
    "krum": Case(krum, 0.2, {}),
    "multi-krum": Case(multi_krum, 0.2, {}),
    "bulyan": Case(bulyan, 0.2, {}),
    "norm-clipping": Case(lambda d, n, f: clipped(d, n, 10.0), 0.95, {"max_l2": 10}),
    "norm-bounding": Case(norm_bounding, 0.95, {}),
}
ROBUST = [name for name, case in CASES.items() if case.astray is not None]
STACKED = ("median", "trimmed-mean", "bulyan")


def plan(name: str, *, codec: str = "float32", quorum: int = 20, **fields: Any) -> Plan:
    section = {"type": name} | CASES[name].fields | fields
    source = {"apiVersion": "llmasos/v1", "name": "rules", "quorum": quorum, "codec": {"type": codec}, "rule": section}
    return Plan.model_validate(source)


def by_rule(job: ReduceJob, name: str, **fields: Any) -> ReduceJob:
    """The same sealed set by another rule."""
    return replace(job, plan=plan(name, codec=job.plan.codec.type, **fields))


def independent(job: ReduceJob) -> bytes:
    """The new model by tests/independent, which shares no code with the reducer."""
    ordered = sorted(job.deltas, key=lambda delta: delta.institution.encode())
    manifest = [tensor.model_dump(mode="json") for tensor in job.manifest]
    statement = {"manifest": manifest, "plan": job.plan.model_dump(mode="json") | {"max_delta_l2": "1e60"}}
    deltas = [(delta.num_tokens, content(delta.reader)) for delta in ordered]
    return outputs(statement, content(job.base), deltas)[0]


def content(source: object) -> bytes:
    assert isinstance(source, MemoryBlob)
    return source.content


def job_of(name: str, values_IN: NDArray[Any], num_tokens: list[int] | None = None, **fields: Any) -> ReduceJob:
    """A round over one tensor whose base is zero, so that the new model is what the rule gives."""
    manifest = tensor_manifest(trainable={"w": values_IN.shape[1:]})
    header = tensors.trainable_header(manifest)
    deltas = [
        WeightedDelta(
            f"i{at:04}", num_tokens[at] if num_tokens else 7, MemoryBlob(header + row.astype("<f4").tobytes())
        )
        for at, row in enumerate(values_IN)
    ]
    base = MemoryBlob(header + bytes(4 * values_IN.shape[1]))
    return ReduceJob(plan(name, quorum=len(deltas), **fields), manifest, base, deltas)


def result(job: ReduceJob) -> Float32s:
    return np.frombuffer(reduced(job)[len(tensors.model_header(job.manifest)) :], "<f4")


@pytest.fixture(params=CASES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_rule_of_plans_is_registered_and_has_a_case() -> None:
    sections = get_args(get_args(Rule)[0])
    ours = {section.model_fields["type"].default for section in sections} - {"operator"}
    assert ours == set(RULES) == set(CASES)
    assert {section.model_fields["type"].default for section in sections if not section.single_deltas} == {
        "weighted-mean"
    }


# --- what it gives -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("institutions", [7, 12, 20])
def test_bits_are_those_of_an_independent_program(name: str, institutions: int) -> None:
    manifest = tensor_manifest(trainable={"w": (65_536 + 301,), "b": (3, 2)}, frozen={"f": (5,)})
    job = by_rule(wild_job(manifest, institutions, "1"), name, quorum=7)
    assert reduced(job) == independent(job)


@pytest.mark.parametrize("codec", [codec for codec in CODECS if codec != "float32"])
def test_deltas_may_be_encoded_in_any_codec(name: str, codec: str) -> None:
    manifest = tensor_manifest(trainable={"w": (20_301,), "b": (3, 2)}, frozen={"f": (5,)})
    job = by_rule(wild_job(manifest, 7, "1", codec=codec), name, quorum=7)
    assert reduced(job) == independent(job)


@pytest.mark.parametrize("byzantine", [0, 1, 3])
def test_values_are_those_of_the_paper(name: str, byzantine: int) -> None:
    generator = np.random.default_rng(byzantine)
    values = generator.standard_normal((16, 400)) * generator.uniform(0.1, 2, (16, 1))
    tokens = generator.integers(1, 1000, 16).tolist()
    fields = {"byzantine": byzantine} if "byzantine" in type(plan(name).rule).model_fields else {}
    found = result(job_of(name, values, tokens, **fields))
    wanted = CASES[name].paper(values.astype(np.float32).astype(np.float64), np.array(tokens, float), byzantine)
    np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=1e-7)


def test_multi_krum_keeps_as_many_as_it_is_told() -> None:
    values = np.random.default_rng(1).standard_normal((9, 50))
    order = krum_order(values.astype(np.float32).astype(np.float64), 1)
    for keep in (1, 2, 6):
        found = result(job_of("multi-krum", values, keep=keep))
        np.testing.assert_allclose(found, values.astype(np.float32)[order[:keep]].mean(axis=0), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("institutions", [7, 8, 11, 20])
def test_between_equals_the_documented_order_decides(name: str, institutions: int) -> None:
    """Numbers of −1, −0, 0 and 1, and whole deltas that are equal: ties everywhere."""
    generator = np.random.default_rng(institutions)
    values = generator.choice(np.array([-1, -0.0, 0, 1], np.float32), (institutions, 300))
    values[institutions // 2 :] = values[: institutions - institutions // 2]
    job = job_of(name, values, generator.integers(1, 9, institutions).tolist())
    assert reduced(job) == independent(job)
    same = job_of(name, np.broadcast_to(values[:1], values.shape))
    np.testing.assert_allclose(
        result(same),
        values[0] * min(1, 10 / np.linalg.norm(values[0]) if "max_l2" in CASES[name].fields else 1),
        rtol=1e-6,
    )


# --- what changes no bit -----------------------------------------------------------------------------------------------------


def test_the_order_of_contributions_changes_no_bit(name: str) -> None:
    manifest = tensor_manifest(trainable={"w": (1_009,), "s": ()}, frozen={"f": (77,)})
    job = by_rule(wild_job(manifest, 40, "0.7"), name)
    expected, shuffler = reduced(job), random.Random(1)
    orders = [list(range(39, -1, -1)), *(shuffler.sample(range(40), 40) for _ in range(3))]
    assert [reduced(reordered(job, order)) == expected for order in orders] == [True] * 4


@pytest.mark.parametrize("how", ["chunks", "lanes", "stack", "sorted", "tiles", "slices", "unsliced"])
def test_windows_lanes_and_buffers_change_no_bit(monkeypatch: pytest.MonkeyPatch, name: str, how: str) -> None:
    manifest = tensor_manifest(trainable={"w": (2 * 65_536 + 77,)}, frozen={"f": (77,)})
    job = by_rule(wild_job(manifest, 9, "0.7"), name, quorum=9)
    expected = reduced(job)
    if how == "unsliced":
        assert (
            reduced(replace(job, deltas=[replace(each, reader=WholeChunks(each.reader)) for each in job.deltas]))
            == expected
        )
        return
    changes = {
        "chunks": lambda value: cut_into_chunks(monkeypatch, value * 32_768),
        "lanes": lambda value: monkeypatch.setattr(rounds, "LANES", value),
        "stack": lambda value: monkeypatch.setattr(lanes, "STACK_NUMBERS", value * 9_001),
        "sorted": lambda value: [
            monkeypatch.setattr(sorting, n, value * 111) for n in ("SORTED_NUMBERS", "LEAST_BLOCK")
        ],
        "tiles": lambda value: monkeypatch.setattr(looks, "COMPARED_AT_ONCE", 2 * value),
        "slices": lambda value: monkeypatch.setattr(parts, "SLICE_BYTES", 4096 * value),
    }
    for value in (1, 4):
        changes[how](value)
        assert reduced(job) == expected


class WholeChunks:
    """A blob that is only read by whole chunks."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self.ref: BlobRef = source.ref

    def read_chunk(self, index: int, into: memoryview) -> memoryview:
        chunk: memoryview = self._source.read_chunk(index, into)
        return chunk


# --- what it withstands ------------------------------------------------------------------------------------------------------

ATTACKS: dict[str, Callable[[Floats, np.random.Generator], Floats]] = {
    "scaled and turned over": lambda right, generator: np.broadcast_to(-100 * right.mean(axis=0), (2, right.shape[1])),
    "noise": lambda right, generator: 50 * generator.standard_normal((2, right.shape[1])),
    "one number far off": lambda right, generator: right[:2] + 1e6 * (np.arange(right.shape[1]) == 5),
    "all numbers far off": lambda right, generator: np.full((2, right.shape[1]), 1e10),
}


def attacked(name: str, attack: str) -> tuple[float, float]:
    """How far the rule's result and the mean are from the right deltas' mean, by its length; two are wrong of the fewest."""
    fields = {"byzantine": 2} if name not in ("norm-clipping", "weighted-mean") else {}
    least = max(5, plan(name, **fields).rule.least_deltas)
    generator = np.random.default_rng(least)
    right = generator.standard_normal(400) / 20 * 8 + 0.02 * generator.standard_normal((least - 2, 400))
    values = np.concatenate([right, ATTACKS[attack](right, generator)]).astype(np.float32)
    aim = right.mean(axis=0)
    off = [
        np.linalg.norm(result(job) - aim) / np.linalg.norm(aim)
        for job in (job_of(name, values, **fields), job_of("weighted-mean", values))
    ]
    return float(off[0]), float(off[1])


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("robust", ROBUST)
def test_it_holds_within_its_breakdown_point_where_the_mean_fails(robust: str, attack: str) -> None:
    off, mean_off = attacked(robust, attack)
    limit = CASES[robust].astray
    assert limit is not None
    assert mean_off > 3
    assert off < limit


def test_beyond_its_breakdown_point_a_median_fails() -> None:
    """So that the test above could fail."""
    right, wrong = np.ones((2, 50)), np.full((3, 50), -1e6)
    assert (result(job_of("median", np.concatenate([right, wrong]), byzantine=2)) == -1e6).all()


# --- cohorts -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "needed", "why"),
    [
        ({"type": "median", "byzantine": 2}, 5, "median with byzantine 2 needs at least 5 deltas a round (2 × byzantine + 1)"),
        ({"type": "trimmed-mean", "byzantine": 3}, 7, "trimmed-mean with byzantine 3 needs at least 7 deltas a round"),
        ({"type": "geometric-median"}, 3, "geometric-median with byzantine 1 needs at least 3 deltas a round"),
        ({"type": "krum", "byzantine": 2}, 7, "krum with byzantine 2 needs at least 7 deltas a round (2 × byzantine + 3)"),
        ({"type": "multi-krum", "keep": 9}, 12, "multi-krum with byzantine 1 needs at least 12 deltas a round"),
        ({"type": "bulyan", "byzantine": 2}, 11, "bulyan with byzantine 2 needs at least 11 deltas a round (4 × byz"),
        ({"type": "norm-bounding", "byzantine": 1}, 3, "norm-bounding with byzantine 1 needs at least 3 deltas a round"),
    ],
)  # fmt: skip
def test_a_cohort_too_small_for_the_guarantee_is_refused_with_the_number_needed(
    section: dict[str, Any], needed: int, why: str
) -> None:
    source = {"apiVersion": "llmasos/v1", "name": "rules", "rule": section}
    assert Plan.model_validate(source | {"quorum": needed}).quorum == needed
    with pytest.raises(ValidationError, match=re.escape(f"quorum is {needed - 1}: rule {why}")):
        Plan.model_validate(source | {"quorum": needed - 1})
    job = job_of("median", np.ones((needed - 1, 4)), byzantine=0)
    with pytest.raises(WrongDeltaCount, match=re.escape(f"The rule {why}") + f".*, not {needed - 1}"):
        reduced(replace(job, plan=Plan.model_validate(source | {"quorum": needed})))


@pytest.mark.parametrize(
    "compares", [name for name in CASES if name not in ("weighted-mean", "norm-clipping", "norm-bounding")]
)
def test_a_cohort_too_large_to_compare_is_refused(compares: str) -> None:
    source = {"apiVersion": "llmasos/v1", "name": "rules", "rule": {"type": compares}, "quorum": 9}
    assert Plan.model_validate(source | {"cohort": {"size": MOST_COMPARED}})
    with pytest.raises(
        ValidationError, match=f"cohort.size is 1,025: rule {compares} compares at most 1,024 deltas a round, not 1,025"
    ):
        Plan.model_validate(source | {"cohort": {"size": MOST_COMPARED + 1}})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_never_gets_as_far_as_a_rule(name: str, value: float) -> None:
    """Inspection refuses it; a reducer that is given it all the same makes no model of it that is none."""
    values = np.random.default_rng(1).standard_normal((9, 300)).astype(np.float32)
    values[4, 7] = value
    job = job_of(name, values)
    with pytest.raises(NonFiniteDelta, match=f"The delta holds {value} in tensor 'w' at 7"):
        inspect_delta(job.deltas[4].reader, tensors.trainable_header(job.manifest), max_l2=1e9)
    try:
        assert np.isfinite(result(job)).all()
    except ModelOverflow:
        assert name not in STACKED[:2]


def test_a_round_beyond_the_pairs_in_memory_is_compared_in_tiles() -> None:
    values = np.random.default_rng(3).standard_normal((150, 40)).astype(np.float32)
    found = result(job_of("krum", values, byzantine=9))
    np.testing.assert_array_equal(found, values[krum_order(values.astype(np.float64), 9)[0]])


# --- bytes that change, and memory -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [0, 1, 7])
@pytest.mark.parametrize("stacked", STACKED)
def test_a_byte_that_changes_after_its_chunk_was_verified_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stacked: str, read: int
) -> None:
    monkeypatch.setattr(lanes, "STACK_NUMBERS", 700_000)
    job, store = job_of(stacked, np.random.default_rng(1).standard_normal((7, 900_000))), FolderBlobStore(tmp_path)
    with store.open(put_blob(store, content(job.deltas[3].reader))) as reader:
        late = ChangesLate(reader, read)
        with pytest.raises(CorruptChunk, match=r"Chunk \d of blob .* was changed on disk while it was read"):
            reduced(
                replace(
                    job, deltas=[replace(each, reader=late) if at == 3 else each for at, each in enumerate(job.deltas)]
                )
            )


class ChangesLate:
    """A blob of which one byte is another from some reading on."""

    def __init__(self, source: Any, good_reads: int) -> None:
        self._source, self._good_reads = source, good_reads
        self.ref: BlobRef = source.ref

    def read_chunk(self, index: int, into: memoryview) -> memoryview:
        chunk: memoryview = self._source.read_chunk(index, into)
        return chunk

    def read_unverified(self, position: int, into: memoryview) -> None:
        self._source.read_unverified(position, into)
        if self._good_reads <= 0:
            into[len(into) // 2] ^= 1
        self._good_reads -= 1


def test_memory_is_bounded_with_64_institutions(name: str) -> None:
    elements = CHUNK_BYTES // 4 + 1_000
    manifest = tensor_manifest(trainable={"w": (elements,)})
    values = np.random.default_rng(1).standard_normal(elements, np.float32)
    blob = MemoryBlob(encoded_blob("float32", manifest, values))
    deltas = [WeightedDelta(f"i{at:02}", 7 + at, blob) for at in range(64)]
    job = ReduceJob(plan(name), manifest, blob, deltas)
    tracemalloc.start()
    try:
        reduce_round(job, len)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 80 * MEGABYTE, f"{peak:,}"


@pytest.mark.parametrize("masked", [{"weight": {"mode": "masked"}}, {"blobs": {"masked": a_blob_ref("masked")}}])
def test_a_masked_contribution_and_a_rule_by_single_deltas_never_meet(name: str, masked: dict[str, Any]) -> None:
    contribution = a_contribution("north", **masked)
    opened = a_round_opened("ab" * 32)
    expected = f"rule {name} looks at single deltas: a plan chooses masked sums or per-delta rules, never both."
    if name == "weighted-mean":
        expected = "expected clear: this plan masks nothing" if "weight" in masked else "expected ['delta']"
    with pytest.raises(MalformedStatement, match=re.escape(expected)):
        check_shape(plan(name), opened, contribution)


def test_a_plan_says_what_its_rule_does_and_withstands(name: str) -> None:
    chosen = plan(name)
    told = " ".join(explain(chosen).prose)
    outcome = chosen.rule.outcome.format(weighting="tokens")
    assert f"new model = base + 1 × {outcome}." in told
    withstands = f"That holds whatever 1 of the deltas are, and needs {chosen.rule.least_deltas} deltas a round."
    assert (withstands in told) == (name not in ("weighted-mean", "norm-clipping"))


def test_a_sections_guarantee_is_a_number_of_deltas(name: str) -> None:
    section = plan(name).rule
    assert isinstance(section, RuleSection)
    assert 1 <= section.least_deltas <= section.most_deltas
