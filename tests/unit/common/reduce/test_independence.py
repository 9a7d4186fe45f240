"""The same sealed set gives the same bits, whatever must not matter: order, threads, reads, blocks, processor, environment."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import textwrap
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import tensors
from common.blobs import disk, reader, reference
from common.blobs.reader import ChunkSource
from common.blobs.store import FolderBlobStore
from common.plan.local import MAX_NUM_TOKENS
from common.reduce import ReduceJob, inspect_delta, loops, parts, selftest, step, window
from common.reduce import round as rounds
from common.reduce.loops import LEAF_ELEMENTS
from common.reduce.selftest import MemoryBlob
from tests.support.blobs import put_blob, tensor_manifest
from tests.support.wild_rounds import chunk_border_manifest, digests, dispatched, reduced, reordered, wild, wild_job

ROOT = Path(__file__).resolve().parents[4]
SMALL = tensor_manifest(trainable={"w": (1_009,), "s": ()}, frozen={"f": (77,)})


# --- the order of the list ---------------------------------------------------------------------------------------------------


def test_the_order_of_64_contributions_changes_no_bit() -> None:
    job = wild_job(SMALL, 64, "0.7")
    expected = reduced(job)
    shuffler = random.Random(1)
    orders = [list(range(63, -1, -1)), *(shuffler.sample(range(64), 64) for _ in range(8))]
    assert [reduced(reordered(job, order)) == expected for order in orders] == [True] * 9


def test_in_another_order_of_names_the_same_deltas_have_another_mean() -> None:
    """So that the test above could fail: only the names fix the order of additions."""
    job = wild_job(SMALL, 64, "0.7")
    renamed = [replace(delta, institution=delta.institution[::-1]) for delta in job.deltas]
    old, new = (np.frombuffer(reduced(each)[-4 * 1_087 :], "<u4") for each in (job, replace(job, deltas=renamed)))
    assert (old != new).sum() > 100


@pytest.mark.parametrize("institutions", [1, 2, 3, 64])
def test_weights_near_the_bound_are_summed_as_integers(institutions: int) -> None:
    """Equal deltas have themselves as their mean: 64 · (2^29 − 1) and every product are exact in float64."""
    manifest = tensor_manifest(trainable={"w": (501,)})
    values = wild(501, 3)
    delta = MemoryBlob(tensors.trainable_header(manifest) + values.tobytes())
    job = wild_job(manifest, institutions, "1")
    same = [replace(each, num_tokens=MAX_NUM_TOKENS, reader=delta) for each in job.deltas]
    base = MemoryBlob(tensors.model_header(manifest) + np.zeros(501, np.float32).tobytes())
    new = np.frombuffer(reduced(replace(job, deltas=same, base=base))[-4 * 501 :], "<f4")
    np.testing.assert_array_equal(new, values)


# --- threads -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", [1, 2, 3, 7])
def test_the_number_of_lanes_changes_no_bit(monkeypatch: pytest.MonkeyPatch, lanes: int) -> None:
    job = wild_job(tensor_manifest(trainable={"w": (3 * LEAF_ELEMENTS + 5,)}, frozen={"f": (9,)}), 5, "1.3")
    expected = reduced(job)
    cut_into_chunks(monkeypatch, 64 * 1024)
    monkeypatch.setattr(rounds, "LANES", lanes)
    assert reduced(job) == expected


@dataclass(frozen=True, slots=True)
class AfterTheOther:
    """A blob whose first chunk is read only when the second one was: the later lane always ends first."""

    source: ChunkSource
    second_was_read: threading.Event

    @property
    def ref(self) -> reference.BlobRef:
        return self.source.ref

    def read_chunk(self, index: int, into: memoryview) -> memoryview:
        if index == 0:
            assert self.second_was_read.wait(timeout=30)
        chunk = self.source.read_chunk(index, into)
        if index == 1:
            self.second_was_read.set()
        return chunk


def test_which_lane_ends_first_changes_no_bit() -> None:
    job = wild_job(chunk_border_manifest(1_000), 3, "0.7")
    late = [replace(delta, reader=AfterTheOther(delta.reader, threading.Event())) for delta in job.deltas]
    assert reduced(replace(job, deltas=late)) == reduced(job)


# --- how much is read and taken at once --------------------------------------------------------------------------------------


def cut_into_chunks(monkeypatch: pytest.MonkeyPatch, chunk_bytes: int) -> None:
    """Blobs in memory are read in windows of so many bytes: other than 4 MiB for this test alone, since roots go by that."""
    for module in (reference, reader, window, parts, rounds, selftest):
        monkeypatch.setattr(module, "CHUNK_BYTES", chunk_bytes)


WINDOWS = (64, 192, 4096, 65_536 * 4 - 64, 65_536 * 4, 65_536 * 4 + 64, 1_000_000)


@pytest.mark.parametrize("chunk_bytes", WINDOWS)
def test_the_size_of_a_window_changes_no_bit(monkeypatch: pytest.MonkeyPatch, chunk_bytes: int) -> None:
    elements = 3_001 if chunk_bytes < 4096 else 2 * LEAF_ELEMENTS + 1
    manifest = tensor_manifest(trainable={"w": (elements,), "s": ()}, frozen={"f": (77,)})
    job = wild_job(manifest, 3, "0.7")
    header = tensors.trainable_header(manifest)

    def model_and_norms() -> tuple[str, list[str]]:
        norms = [inspect_delta(delta.reader, header, max_l2=float("inf")).l2.hex() for delta in job.deltas]
        return hashlib.sha256(reduced(job)).hexdigest(), norms

    whole = model_and_norms()
    cut_into_chunks(monkeypatch, chunk_bytes)
    assert model_and_norms() == whole


@pytest.mark.parametrize("block_elements", [1, 7, 1_000, LEAF_ELEMENTS - 1, 10**7])
def test_the_size_of_a_block_changes_no_bit(monkeypatch: pytest.MonkeyPatch, block_elements: int) -> None:
    elements = 1_003 if block_elements < 1_000 else LEAF_ELEMENTS + 1
    job = wild_job(tensor_manifest(trainable={"w": (elements,)}, frozen={"f": (3,)}), 4, "0.1")
    expected = reduced(job)
    for module in (step, loops):
        monkeypatch.setattr(module, "BLOCK_ELEMENTS", block_elements)
    assert reduced(job) == expected
    monkeypatch.setattr(loops, "_LIBRARY", None)
    assert reduced(job) == expected


def stored(job: ReduceJob, store: FolderBlobStore, stack: ExitStack) -> ReduceJob:
    """The job with its blobs in files."""

    def opened(source: ChunkSource) -> ChunkSource:
        assert isinstance(source, MemoryBlob)
        return stack.enter_context(store.open(put_blob(store, source.content)))

    deltas = [replace(delta, reader=opened(delta.reader)) for delta in job.deltas]
    return replace(job, base=opened(job.base), deltas=deltas)


@pytest.mark.parametrize("most_bytes", [4_093, 65_537, 1_000_003])
def test_reads_that_come_short_change_no_bit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, most_bytes: int) -> None:
    job = wild_job(chunk_border_manifest(3), 2, "0.7")
    expected, preadv, calls = reduced(job), os.preadv, []

    def short(fd: int, buffers: list[memoryview], offset: int) -> int:
        calls.append(offset)
        return preadv(fd, [buffers[0][:most_bytes]], offset)

    with ExitStack() as stack:
        in_files = stored(job, FolderBlobStore(tmp_path), stack)
        monkeypatch.setattr(disk.os, "preadv", short)
        assert reduced(in_files) == expected
    assert len(calls) > 3 * (4 * 1024 * 1024 // most_bytes)


# --- processor and environment: other processes ------------------------------------------------------------------------------


@cache
def here() -> dict[str, str]:
    return digests()


def elsewhere(environment: Mapping[str, str]) -> dict[str, Any]:
    """What a process with that environment computes."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.support.wild_rounds"],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def processors() -> list[tuple[str, ...]]:
    """Extensions to leave alone: the newest, the two newest, and so on, up to all; and each alone."""
    found = dispatched()
    left_alone = {tuple(found[first:]) for first in range(len(found))} | {(name,) for name in found}
    return sorted(left_alone, key=lambda names: (len(names), names))


@pytest.mark.parametrize("without", processors(), ids="+".join)
def test_the_processors_extensions_change_no_bit(without: tuple[str, ...]) -> None:
    report = elsewhere({"NPY_DISABLE_CPU_FEATURES": " ".join(without)})
    assert set(report["dispatched"]) == set(dispatched()) - set(without)
    assert report["digests"] == here()


THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "BLIS_NUM_THREADS")
ENVIRONMENTS = {
    "one thread": {**dict.fromkeys(THREADS, "1"), "PYTHONHASHSEED": "1"},
    "seven threads": {**dict.fromkeys(THREADS, "7"), "PYTHONHASHSEED": "2"},
    "OpenBLAS for an old processor": {"OPENBLAS_CORETYPE": "Prescott", "OPENBLAS_NUM_THREADS": "3"},
    "OpenBLAS for a newer one": {"OPENBLAS_CORETYPE": "Haswell"},
    "a C library without AVX and FMA": {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX2,-FMA,-FMA4,-ERMS"},
    "another place and language": {"LC_ALL": "C", "LANG": "tr_TR.UTF-8", "TZ": "Asia/Shanghai"},
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_environment_changes_no_bit(name: str) -> None:
    assert elsewhere(ENVIRONMENTS[name])["digests"] == here()


# --- no BLAS at all ----------------------------------------------------------------------------------------------------------

MINED = textwrap.dedent(
    """
    import ctypes, mmap, platform, re, sys
    import numpy as np
    from tests.support.wild_rounds import digests

    assert platform.machine() == "x86_64"
    (path,) = {line.split()[-1] for line in open("/proc/self/maps") if re.search(r"openblas[^/]*[.]so", line)}
    blas, mprotect = ctypes.CDLL(path), ctypes.CDLL(None, use_errno=True).mprotect
    mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    calls = ("dot", "gemv", "gemm", "syrk", "nrm2", "axpy", "asum")
    for name in [f"scipy_cblas_{kind}{call}64_" for kind in "sd" for call in calls]:
        at = ctypes.cast(getattr(blas, name), ctypes.c_void_p).value
        assert mprotect(at & -mmap.PAGESIZE, 2 * mmap.PAGESIZE, 7) == 0, "pages of code cannot be written here"
        ctypes.memset(at, 0xCC, 1)  # int3: whoever calls it dies of SIGTRAP
    print("mined", flush=True)
    """
)
USES = {"reducer": "print(len(digests()), flush=True)", "dot": "np.dot(np.ones(9), np.ones(9))"}


def mined(use: str) -> subprocess.CompletedProcess[str]:
    """A process in which every way into BLAS kills, and which then does that."""
    return subprocess.run(
        [sys.executable, "-c", MINED + USES[use]], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )


def test_a_process_in_which_blas_kills_reduces_and_inspects_and_lives() -> None:
    multiplied = mined("dot")
    if "mined" not in multiplied.stdout:
        pytest.skip(f"OpenBLAS cannot be mined here: {multiplied.stderr.strip().splitlines()[-1]}")
    assert multiplied.returncode == -5  # SIGTRAP: the mines are live
    done = mined("reducer")
    assert (done.returncode, done.stdout.split()) == (0, ["mined", str(len(here()))])
