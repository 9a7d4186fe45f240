"""How a manifest's tensors lie in a file: safetensors, one byte sequence for each manifest (docs/protocol.md#tensors).

    8 bytes     length of what follows up to the data, little-endian
    JSON        {"wte.weight":{"dtype":"F32","shape":[512,64],"data_offsets":[0,131072]},…}, in manifest order
    spaces      so that the data starts at a multiple of 64
    data        the tensors one after another, little-endian, no gaps

A delta holds the trainable tensors, a model trainable and then frozen ones; personal tensors are in neither. Since trainable
tensors come first, a delta's data lines up with the beginning of a model's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from common.blobs.reference import CHUNK_BYTES
from common.errors import WrongTensors
from common.statements.kinds import Tensor

ALIGNMENT = 64
ELEMENT_BYTES = 4
MAX_HEADER_BYTES = 16 * 1024 * 1024
"""A manifest of 20,000 tensors with the longest names stays below."""

_LENGTH_BYTES = 8
_PARSED_BYTES = 64 * 1024
"""A wrong header is parsed, to say what differs, up to so much and twice the right one: parsed, it takes far more room."""


def trainable_header(manifest: Sequence[Tensor]) -> bytes:
    """The first bytes of every delta."""
    return _header([tensor for tensor in manifest if tensor.group == "trainable"])


def model_header(manifest: Sequence[Tensor]) -> bytes:
    """The first bytes of every model."""
    return _header([tensor for tensor in manifest if tensor.group != "personal"])


def delta_size(manifest: Sequence[Tensor]) -> int:
    """Bytes of a delta, header included."""
    return len(trainable_header(manifest)) + ELEMENT_BYTES * trainable_elements(manifest)


def model_size(manifest: Sequence[Tensor]) -> int:
    """Bytes of a model, header included."""
    elements = sum(tensor.elements for tensor in manifest if tensor.group != "personal")
    return len(model_header(manifest)) + ELEMENT_BYTES * elements


def changing_bytes(manifest: Sequence[Tensor]) -> int:
    """How much of a model a round may change: its beginning, in whole chunks, up to the last one with a trainable number.

    Who holds an earlier model of the run fetches no more than that of a later one: all other chunks are the same. The model
    itself may end before.
    """
    end = len(model_header(manifest)) + ELEMENT_BYTES * trainable_elements(manifest)
    return -(-end // CHUNK_BYTES) * CHUNK_BYTES


def trainable_elements(manifest: Sequence[Tensor]) -> int:
    """How many numbers a delta holds."""
    return sum(tensor.elements for tensor in manifest if tensor.group == "trainable")


def _header(tensors: Sequence[Tensor]) -> bytes:
    entries = {}
    position = 0
    for tensor in tensors:
        end = position + ELEMENT_BYTES * tensor.elements
        entries[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(_LENGTH_BYTES + len(text)) % ALIGNMENT)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def data_bytes(header: bytes) -> int:
    """How many bytes follow a header that this module made."""
    entries = json.loads(header[_LENGTH_BYTES:])
    return max((entry["data_offsets"][1] for entry in entries.values()), default=0)


def locate(header: bytes, element: int) -> str:
    """Where element `element` of the data lies, by a header that this module made: `'wte.weight' at 17`."""
    position = ELEMENT_BYTES * element
    for name, entry in json.loads(header[_LENGTH_BYTES:]).items():
        begin, end = entry["data_offsets"]
        if begin <= position < end:
            return f"{name!r} at {(position - begin) // ELEMENT_BYTES:,}"
    raise IndexError(f"element {element} lies beyond the data")


def declared_header_bytes(start: bytes) -> int:
    """How long the header of a file is, by its first 8 bytes, those included.

    Raises:
        WrongTensors: fewer than 8 bytes, or beyond MAX_HEADER_BYTES: nothing more should be read.
    """
    if len(start) < _LENGTH_BYTES:
        raise WrongTensors(f"The file ends after {len(start)} bytes, before the length of its header.")
    declared = _LENGTH_BYTES + int.from_bytes(start[:_LENGTH_BYTES], "little")
    if declared > MAX_HEADER_BYTES:
        raise WrongTensors(f"The file declares a header of {declared:,} bytes, at most {MAX_HEADER_BYTES:,} are read.")
    return declared


def check_header(actual: bytes, expected: bytes) -> None:
    """Check that a file begins with exactly the header that its manifest implies.

    Args:
        actual: the file's first bytes, at least `declared_header_bytes` of them where the file has so many.
        expected: what `trainable_header` or `model_header` gave.

    Raises:
        WrongTensors: it does not; the message names the first tensor that differs.
    """
    if actual[: len(expected)] == expected:
        return
    declared = declared_header_bytes(actual)
    if len(actual) < declared:
        raise WrongTensors(
            f"The file's header has {declared:,} bytes, of which {len(actual):,} were there; expected {len(expected):,}."
        )
    if declared > _PARSED_BYTES + 2 * len(expected):
        raise WrongTensors(f"The file's header has {declared:,} bytes, expected {len(expected):,}.")
    found = _parse(actual[_LENGTH_BYTES:declared])
    wanted: dict[str, Any] = json.loads(expected[_LENGTH_BYTES:])
    _compare_names(list(found), list(wanted))
    for name, entry in wanted.items():
        try:
            _compare_entry(name, found[name], entry)
        except RecursionError as err:  # what was just deep enough to be parsed may be too deep to be shown
            raise WrongTensors(f"Tensor {name!r} is described by values nested hundreds deep.") from err
    raise WrongTensors(
        "The header names the right tensors in other bytes than the manifest implies: spacing, padding or order of keys."
    )


def _parse(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise WrongTensors("The file's header is not JSON, so this is no safetensors file.") from err
    if not isinstance(found, dict):
        raise WrongTensors("The file's header is not a JSON object, so this is no safetensors file.")
    return found


def _compare_names(found: list[str], wanted: list[str]) -> None:
    known, present = set(wanted), set(found)
    for name in found:
        if name not in known:
            raise WrongTensors(f"Tensor {name[:300]!r} is not one that the manifest lists here.")
    for name in wanted:
        if name not in present:
            raise WrongTensors(f"Tensor {name!r} is missing.")
    for index, (name, expected) in enumerate(zip(found, wanted, strict=True)):
        if name != expected:
            raise WrongTensors(
                f"Tensor {index} is {name!r}, expected {expected!r}: the manifest's order is the order of bytes."
            )


def _compare_entry(name: str, found: object, wanted: dict[str, Any]) -> None:
    if not isinstance(found, dict):
        raise WrongTensors(f"Tensor {name!r} is not described by dtype, shape and data_offsets.")
    for field in ("dtype", "shape", "data_offsets"):
        if found.get(field) != wanted[field]:
            got = str(found.get(field))[:100]
            raise WrongTensors(f"Tensor {name!r} has {field} {got}, expected {wanted[field]}.")
