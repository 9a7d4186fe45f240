"""Model and delta files: exact bytes, refused when anything is not the manifest's."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.numpy import load_file  # noqa: E402

from common.errors import NonFiniteDelta, StorageFailure, WrongTensors  # noqa: E402
from common.tensors import delta_size, model_size  # noqa: E402
from llmasos.models import tensors as streaming  # noqa: E402
from llmasos.models.build import build_model, manifest_of, read_tensors, write_delta, write_tensors  # noqa: E402
from tests.unit.llmasos.models.test_build import ARCHITECTURES, TINY_GPT2  # noqa: E402

pytestmark = pytest.mark.torch


def build(seed: int = 1, model=TINY_GPT2):  # type: ignore[no-untyped-def]
    return build_model(model, vocab_size=300, seed=seed)


@pytest.fixture(autouse=True)
def small_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that tensors of a tiny model need several reads."""
    monkeypatch.setattr(streaming, "_PIECE", 1000)


@ARCHITECTURES
def test_a_model_file_brings_back_every_bit(tmp_path: Path, model) -> None:  # type: ignore[no-untyped-def]
    source, other = build(1, model), build(2, model)
    manifest, path = manifest_of(source), tmp_path / "model.safetensors"
    write_tensors(source, path, manifest)
    assert path.stat().st_size == model_size(manifest)
    read_tensors(other, path, manifest)
    for name, value in source.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_the_safetensors_library_reads_a_model_file(tmp_path: Path) -> None:
    model = build()
    write_tensors(model, tmp_path / "model.safetensors", manifest_of(model))
    loaded = load_file(tmp_path / "model.safetensors")
    assert list(loaded) and set(loaded) == {name for name, _ in model.named_parameters()}  # noqa: PT018
    assert all(np.array_equal(loaded[name], value.detach().numpy()) for name, value in model.named_parameters())


def test_files_are_owner_only_and_no_temporary_stays(tmp_path: Path) -> None:
    model, path = build(), tmp_path / "model.safetensors"
    (tmp_path / ".model.safetensors.partial").write_bytes(b"left by a crash")
    write_tensors(model, path, manifest_of(model))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_delta_is_after_minus_before_in_float32(tmp_path: Path) -> None:
    before, after = build(1), build(2)
    manifest = manifest_of(before)
    write_tensors(before, tmp_path / "base", manifest)
    write_delta(tmp_path / "delta", tmp_path / "base", after, manifest)
    assert (tmp_path / "delta").stat().st_size == delta_size(manifest)
    loaded, base = load_file(tmp_path / "delta"), dict(before.named_parameters())
    for name, value in after.named_parameters():
        assert np.array_equal(loaded[name], value.detach().numpy() - base[name].detach().numpy()), name


def test_frozen_tensors_are_in_the_model_and_not_in_the_delta(tmp_path: Path) -> None:
    model = build()
    model.transformer.wpe.weight.requires_grad_(False)
    manifest = manifest_of(model)
    write_tensors(model, tmp_path / "base", manifest)
    write_delta(tmp_path / "delta", tmp_path / "base", model, manifest)
    assert "transformer.wpe.weight" in load_file(tmp_path / "base")
    delta = load_file(tmp_path / "delta")
    assert "transformer.wpe.weight" not in delta
    assert not any(value.any() for value in delta.values())


def test_personal_tensors_stay(tmp_path: Path) -> None:
    model = build()
    *shared, last = manifest_of(model)
    manifest = (*shared, last.model_copy(update={"group": "personal"}))
    write_tensors(model, tmp_path / "base", manifest)
    write_delta(tmp_path / "delta", tmp_path / "base", model, manifest)
    for name in ("base", "delta"):
        assert set(load_file(tmp_path / name)) == {entry.name for entry in shared}
    other = build(2)
    own = other.get_parameter(last.name).detach().clone()
    read_tensors(other, tmp_path / "base", manifest)
    assert torch.equal(other.get_parameter(last.name), own)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_delta_that_is_not_finite_is_refused_and_not_kept(tmp_path: Path, value: float) -> None:
    model = build()
    manifest = manifest_of(model)
    write_tensors(model, tmp_path / "base", manifest)
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.weight[3, 3] = value
    with pytest.raises(NonFiniteDelta, match=r"The delta of tensor transformer\.h\.1\.mlp\.c_fc\.weight holds NaN"):
        write_delta(tmp_path / "delta", tmp_path / "base", model, manifest)
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: data[:-4], r"base has [\d,]+ bytes, the manifest gives [\d,]+"),
        (lambda data: data + b"\0\0\0\0", r"base has [\d,]+ bytes, the manifest gives [\d,]+"),
        (lambda data: data.replace(b"wte", b"wta", 1), r"transformer\.wt[ae]\.weight"),
        (lambda data: b"", r"header"),
    ],
    ids=["truncated", "longer", "other name", "empty"],
)
def test_a_model_file_that_is_not_the_manifest_s_is_refused_before_it_is_used(tmp_path: Path, spoil, message) -> None:  # type: ignore[no-untyped-def]
    model, path = build(), tmp_path / "base"
    manifest = manifest_of(model)
    write_tensors(model, path, manifest)
    path.write_bytes(spoil(path.read_bytes()))
    other = build(2)
    with pytest.raises(WrongTensors, match=message):
        read_tensors(other, path, manifest)
    assert torch.equal(other.transformer.wte.weight, build(2).transformer.wte.weight)
    with pytest.raises(WrongTensors, match=message):
        write_delta(tmp_path / "delta", path, model, manifest)


def test_a_model_that_is_not_the_manifest_s_is_refused(tmp_path: Path) -> None:
    model = build()
    first, *rest = manifest_of(model)
    for entry, message in (
        (first.model_copy(update={"name": "absent"}), "The model has no tensor absent, which the manifest lists"),
        (first.model_copy(update={"shape": (5, 16)}), r"has shape \(300, 16\), expected \(5, 16\)"),
    ):
        with pytest.raises(WrongTensors, match=message):
            write_tensors(model, tmp_path / "base", (entry, *rest))
    with pytest.raises(WrongTensors, match=r"is torch\.float64, expected contiguous float32"):
        write_tensors(model.double(), tmp_path / "base", (first, *rest))
    assert list(tmp_path.iterdir()) == []


def test_files_that_cannot_be_read_or_written_are_named(tmp_path: Path) -> None:
    model = build()
    with pytest.raises(StorageFailure, match=r"absent could not be read: No such file"):
        read_tensors(model, tmp_path / "absent", manifest_of(model))
    with pytest.raises(StorageFailure, match=r"file could not be written: No such file"):
        write_tensors(model, tmp_path / "no" / "file", manifest_of(model))
