"""The safetensors layout of a manifest, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from common import tensors
from common.blobs.reference import CHUNK_BYTES
from common.errors import WrongTensors
from tests.support.blobs import delta_bytes, model_bytes, random_arrays, tensor_manifest
from tests.support.mutations import mutated

MANIFEST = tensor_manifest(
    trainable={"wte.weight": (5, 7), "scale": ()}, frozen={"positions": (3,)}, personal={"private": (11,)}
)
ARRAYS = random_arrays(MANIFEST, seed=1)


@pytest.mark.parametrize(
    ("trainable", "frozen", "chunks"),
    [
        ((10,), (3_000_000,), 1),  # the chunk that the adapter shares with header and frozen tensors
        ((CHUNK_BYTES // 4,), (3_000_000,), 2),  # a chunk of numbers, and the header before them
        ((10,), (5,), 1),
        ((2_000_000,), (), 2),
    ],
)
def test_what_a_round_may_change_are_the_chunks_up_to_the_last_trainable_number(
    trainable: tuple[int, ...], frozen: tuple[int, ...], chunks: int
) -> None:
    manifest = tensor_manifest(trainable={"a": trainable}, frozen={"f": frozen} if frozen else None)
    assert tensors.changing_bytes(manifest) == chunks * CHUNK_BYTES
    header, changed = len(tensors.model_header(manifest)), tensors.trainable_elements(manifest)
    assert header + 4 * changed <= chunks * CHUNK_BYTES < header + 4 * changed + CHUNK_BYTES


def test_a_header_is_the_documented_bytes() -> None:
    text = (
        b'{"wte.weight":{"dtype":"F32","shape":[5,7],"data_offsets":[0,140]},'
        b'"scale":{"dtype":"F32","shape":[],"data_offsets":[140,144]}}'
    )
    header = tensors.trainable_header(MANIFEST)
    assert header[8 : 8 + len(text)] == text
    assert set(header[8 + len(text) :]) <= {0x20}
    assert (len(header) % 64, int.from_bytes(header[:8], "little")) == (0, len(header) - 8)


def test_a_delta_holds_trainable_tensors_and_a_model_frozen_ones_too() -> None:
    assert list(json.loads(tensors.trainable_header(MANIFEST)[8:])) == ["wte.weight", "scale"]
    assert list(json.loads(tensors.model_header(MANIFEST)[8:])) == ["wte.weight", "scale", "positions"]
    assert tensors.trainable_elements(MANIFEST) == 36


def test_sizes_and_headers_are_those_of_files_made_independently() -> None:
    delta, model = delta_bytes(MANIFEST, ARRAYS), model_bytes(MANIFEST, ARRAYS)
    assert (tensors.delta_size(MANIFEST), tensors.model_size(MANIFEST)) == (len(delta), len(model))
    assert delta.startswith(tensors.trainable_header(MANIFEST))
    assert model.startswith(tensors.model_header(MANIFEST))
    assert tensors.data_bytes(tensors.trainable_header(MANIFEST)) == 36 * 4


@pytest.mark.parametrize("length", range(1, 70))
def test_data_starts_at_a_multiple_of_64_whatever_the_names(length: int) -> None:
    header = tensors.model_header(tensor_manifest(trainable={"n" * length: (1,)}))
    assert len(header) % 64 == 0
    assert len(header) - 8 - len(header[8:].rstrip(b" ")) < 64


def test_the_safetensors_library_reads_the_same_numbers(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "model.safetensors"
    path.write_bytes(model_bytes(MANIFEST, ARRAYS))
    loaded = library.load_file(path)
    assert sorted(loaded) == ["positions", "scale", "wte.weight"]
    for name, array in loaded.items():
        np.testing.assert_array_equal(array, ARRAYS[name])


def test_an_element_is_located_by_tensor_and_index() -> None:
    header = tensors.model_header(MANIFEST)
    assert tensors.locate(header, 34) == "'wte.weight' at 34"
    assert tensors.locate(header, 35) == "'scale' at 0"
    assert tensors.locate(header, 38) == "'positions' at 2"
    with pytest.raises(IndexError, match="element 39 lies beyond the data"):
        tensors.locate(header, 39)


def test_the_right_header_passes_with_data_behind_it() -> None:
    tensors.check_header(model_bytes(MANIFEST, ARRAYS), tensors.model_header(MANIFEST))


# --- each spoils one thing -----------------------------------------------------------------------------------------------


def _encode(entries: dict[str, Any], **options: Any) -> bytes:
    text = json.dumps(entries, **{"separators": (",", ":"), **options}).encode()
    text += b" " * (-(8 + len(text)) % 64)
    return len(text).to_bytes(8, "little") + text


def _without(entries: dict[str, Any]) -> bytes:
    return _encode({name: entry for name, entry in entries.items() if name != "scale"})


def _reversed(entries: dict[str, Any]) -> bytes:
    return _encode(dict(reversed(entries.items())))


def _changed(field: str, value: object) -> Callable[[dict[str, Any]], bytes]:
    return lambda entries: _encode({**entries, "wte.weight": {**entries["wte.weight"], field: value}})


SPOILED: dict[str, tuple[Callable[[dict[str, Any]], bytes], str]] = {
    "missing": (_without, r"Tensor 'scale' is missing"),
    "extra": (lambda e: _encode({**e, "evil": e["scale"]}), r"Tensor 'evil' is not one that the manifest lists here"),
    "order": (_reversed, r"Tensor 0 is 'positions', expected 'wte.weight'"),
    "shape": (_changed("shape", [7, 5]), r"Tensor 'wte.weight' has shape \[7, 5\], expected \[5, 7\]"),
    "dtype": (_changed("dtype", "F64"), r"Tensor 'wte.weight' has dtype F64, expected F32"),
    "offset": (_changed("data_offsets", [4, 144]), r"has data_offsets \[4, 144\], expected \[0, 140\]"),
    "entry": (lambda e: _encode({**e, "scale": 3}), r"Tensor 'scale' is not described by dtype"),
    "spacing": (lambda e: _encode(e, separators=(", ", ":")), r"the right tensors in other bytes"),
    "metadata": (lambda e: _encode({"__metadata__": {}, **e}), r"Tensor '__metadata__' is not one"),
    "a list": (lambda e: _encode(list(e)), r"is not a JSON object"),  # type: ignore[arg-type]
    "no json": (lambda e: (64).to_bytes(8, "little") + b"\xff" * 64, r"is not JSON"),
    "deep": (lambda e: (50_000).to_bytes(8, "little") + b"[" * 50_000, r"is not JSON"),
    "far too long to parse": (
        lambda e: (10**6).to_bytes(8, "little") + b"[" * 10**6,
        r"The file's header has 1,000,008 bytes, expected 256\.",
    ),
    "cut": (lambda e: _encode(e)[:50], r"header has 256 bytes, of which 50 were there; expected 256"),
    "longer": (lambda e: (500).to_bytes(8, "little") + b"{", r"header has 508 bytes, of which 9 were there"),
    "empty": (lambda e: b"", r"ends after 0 bytes, before the length of its header"),
    "huge": (
        lambda e: b"\xff" * 8 + b"{}",
        r"declares a header of 18,446,744,073,709,551,623 bytes, at most 16,777,216",
    ),
}


@pytest.mark.parametrize("what", SPOILED)
def test_a_header_that_is_not_the_manifests_is_refused_by_what_differs(what: str) -> None:
    spoil, message = SPOILED[what]
    expected = tensors.model_header(MANIFEST)
    with pytest.raises(WrongTensors, match=message):
        tensors.check_header(spoil(json.loads(expected[8:])), expected)


@pytest.mark.parametrize("depth", [10, 400, 800, 900, 950, 980, 990, 1000, 1100])
def test_values_nested_as_deep_as_is_parsed_are_refused(depth: int) -> None:
    expected = tensors.model_header(MANIFEST)
    text = json.dumps({**json.loads(expected[8:]), "wte.weight": {"shape": 0}}, separators=(",", ":"))
    nested = text.replace('"shape":0', '"shape":' + "[" * depth + "]" * depth).encode()
    nested += b" " * (-(8 + len(nested)) % 64)
    with pytest.raises(WrongTensors, match=r"wte\.weight|is not JSON"):
        tensors.check_header(len(nested).to_bytes(8, "little") + nested, expected)


@settings(max_examples=500, derandomize=True, deadline=None, database=None)
@given(mutated(tensors.model_header(MANIFEST)))
def test_a_header_with_a_few_bytes_changed_is_refused_or_the_same(header: bytes) -> None:
    expected = tensors.model_header(MANIFEST)
    if header[: len(expected)] == expected:
        tensors.check_header(header, expected)
        return
    with pytest.raises(WrongTensors):
        tensors.check_header(header, expected)
