"""The compiled loops give numpy's bits, whatever the numbers; where the installation made none, they are compiled here."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import compiled
from common.errors import CompiledLoopsUnfit
from common.reduce.loops import LEAF_ELEMENTS, CompiledLoops, NumpyLoops, make_loops
from scripts.hatch_build import compile_loops

ROOT = Path(__file__).resolve().parents[4]

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library made from this source, whatever the installation has."""
    root = tmp_path_factory.mktemp("source")
    (root / "common" / "compiled").mkdir(parents=True)
    shutil.copy(compiled.SOURCE, root / "common" / "compiled")
    made = compile_loops(root, print)
    assert made is not None
    return made


def wild(elements: int, seed: int) -> np.ndarray:
    """Any float32s: all bit patterns but those of NaN, whose payload nothing depends on."""
    bits = np.random.default_rng(seed).integers(0, 2**32, elements, dtype=np.uint32)
    values = bits.view(np.float32)
    values[np.isnan(values)] = np.float32(2.0**-149)
    return values


def both(library: Path) -> tuple[NumpyLoops, CompiledLoops]:
    return NumpyLoops(), CompiledLoops(compiled.CompiledLoops(library))


@needs_compiler
@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(0, 70_000), st.integers(1, 2**29 - 1), st.integers(1, 2**53))
def test_sums_and_quotients_are_numpys(library: Path, seed: int, elements: int, tokens: int, divisor: int) -> None:
    results = []
    for loops in both(library):
        sum_N = np.zeros(elements)
        with np.errstate(all="ignore"):
            for number, coefficient in enumerate((float(tokens), 1.0, 0.1)):
                loops.add_product(sum_N, coefficient, wild(elements, seed + number))
            kept = sum_N.copy()
            results.append((kept.tobytes(), loops.quotients(sum_N, float(divisor)).tobytes()))
    same_N = [np.frombuffer(sums, np.uint64) for sums, _ in results]
    nan_N = [np.isnan(np.frombuffer(sums, np.float64)) for sums, _ in results]  # infinity - infinity, of either sign
    assert (nan_N[0] == nan_N[1]).all()
    assert (same_N[0][~nan_N[0]] == same_N[1][~nan_N[0]]).all()
    quotients_N = [np.frombuffer(quotients, np.uint32)[~nan_N[0]] for _, quotients in results]
    assert (quotients_N[0] == quotients_N[1]).all()


@needs_compiler
@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(0, LEAF_ELEMENTS))
def test_sums_of_squares_are_numpys(library: Path, seed: int, filled: int) -> None:
    leaf_L = np.zeros(LEAF_ELEMENTS, np.float32)
    leaf_L[:filled] = wild(filled, seed)
    numpys, compileds = (loops.sum_of_squares(leaf_L.copy()) for loops in both(library))
    assert numpys.hex() == compileds.hex()


@needs_compiler
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_stays_none(library: Path, value: float) -> None:
    leaf_L = np.zeros(LEAF_ELEMENTS, np.float32)
    leaf_L[40_000] = value
    for loops in both(library):
        with np.errstate(all="ignore"):
            assert not np.isfinite(loops.sum_of_squares(leaf_L.copy()))
            sum_N = np.zeros(LEAF_ELEMENTS)
            loops.add_product(sum_N, 3.0, leaf_L)
            assert np.flatnonzero(~np.isfinite(loops.quotients(sum_N, 7.0))).tolist() == [40_000]


@needs_compiler
def test_arrays_of_other_kinds_are_refused(library: Path) -> None:
    _, loops = both(library)
    with pytest.raises(TypeError, match="expected contiguous"):
        loops.sum_of_squares(np.zeros(LEAF_ELEMENTS))
    with pytest.raises(TypeError, match="expected contiguous"):
        loops.add_product(np.zeros(10)[::2], 1.0, np.zeros(5, np.float32))


def test_a_checkout_that_has_a_compiler_uses_it() -> None:
    """`make setup` compiles; where it could not, nothing else than numpy is used."""
    assert isinstance(make_loops(), CompiledLoops if compiled.LIBRARY.exists() else NumpyLoops)


@needs_compiler
def test_a_library_of_another_source_is_refused(library: Path, tmp_path: Path) -> None:
    other = tmp_path / "loops.so"
    flags = ["-shared", "-fPIC", "-DLOOPS_SOURCE=1u"]
    subprocess.run(["cc", *flags, str(compiled.SOURCE), "-o", str(other)], check=True)
    with pytest.raises(CompiledLoopsUnfit, match="another version"):
        compiled.find(other)
    (tmp_path / "text.so").write_bytes(b"no library")
    with pytest.raises(CompiledLoopsUnfit, match="cannot be loaded"):
        compiled.find(tmp_path / "text.so")
    assert compiled.find(tmp_path / "none.so") is None


def test_without_a_compiler_the_installation_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "common" / "compiled").mkdir(parents=True)
    shutil.copy(compiled.SOURCE, tmp_path / "common" / "compiled")
    said: list[str] = []
    for compiler in ("no-such-compiler", f"{sys.executable} -c raise(SystemExit(1))"):
        monkeypatch.setenv("CC", compiler)
        assert compile_loops(tmp_path, said.append) is None
        assert [path.name for path in (tmp_path / "common" / "compiled").iterdir()] == ["loops.c"]
    assert len(said) == 2
    assert all("numpy does its work" in each for each in said)
