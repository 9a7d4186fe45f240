"""Tensors in a safetensors file with the digest of its bytes: written piece by piece beside training, read only if whole.

    digest = write(path, {"weight.w": tensor})        # on disk when it returns
    tensors = read(path, digest)

safetensors' own `save_file` holds the interpreter's lock while it copies and writes, so that training would wait for the disk.

Source: the safetensors format, https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import torch
from blake3 import blake3
from safetensors import SafetensorError, safe_open

from common.errors import StorageFailure
from llmasos.models.sharding import Part

OWNER_ONLY = 0o600
_FIX = "Remove the snapshot's folder; the round begins again."
_PIECE_BYTES = 4 * 1024 * 1024
_ROWS = "rows"
_DTYPES: Final = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
}


class Piece(NamedTuple):
    """A tensor, or a part of it: of its dimension `dim`, which has `size` in all, what begins with number `first`."""

    values: torch.Tensor
    first: int = 0
    size: int | None = None
    dim: int = 0


def write(path: Path, tensors: Mapping[str, torch.Tensor], parts: Mapping[str, Part] | None = None) -> str:
    """Make the file and have it on disk; BLAKE3 of its bytes, in hex.

    Args:
        parts: of tensors that are not all here, which part is.
        tensors: on any device, in any layout; of one of the floating-point types or int64.

    Raises:
        OSError: the disk is full or refuses.
    """
    digest = blake3()
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, OWNER_ONLY), "wb", buffering=0) as file:

        def put(piece: bytes | memoryview) -> None:
            digest.update(piece)
            rest = memoryview(piece)
            while rest:
                rest = rest[file.write(rest) :]

        put(_header(tensors, parts or {}))
        for value in tensors.values():
            data = _bytes_of(value)
            for first in range(0, len(data), _PIECE_BYTES):
                put(data[first : first + _PIECE_BYTES])
        os.fsync(file.fileno())
    return digest.hexdigest()


def read(path: Path, digest: str | None) -> dict[str, torch.Tensor]:
    """As `read_pieces`, of a file that holds whole tensors."""
    return {name: joined(name, [piece]) for name, piece in read_pieces(path, digest).items()}


def read_pieces(path: Path, digest: str | None) -> dict[str, Piece]:
    """The tensors, on the CPU; `digest` None trusts the file, which a release before this one wrote.

    Raises:
        StorageFailure: the file is missing or damaged.
    """
    try:
        if digest is not None and _digest_of(path) != digest:
            raise StorageFailure(f"{path} is damaged: its bytes are not the ones that were written.", _FIX)
        with safe_open(path, framework="pt") as file:
            rows = json.loads((file.metadata() or {}).get(_ROWS, "{}"))
            return {name: Piece(file.get_tensor(name), *rows.get(name, ())) for name in file.keys()}  # noqa: SIM118  no mapping
    except (OSError, SafetensorError) as err:
        raise StorageFailure(f"{path} cannot be read: {err}.", _FIX) from err


def joined(name: str, pieces: Sequence[Piece]) -> torch.Tensor:
    """The whole tensor of its pieces.

    Raises:
        StorageFailure: a part is missing.
    """
    dim, size = pieces[0].dim, pieces[0].size
    if len(pieces) == 1 and size is None:
        return pieces[0].values
    ordered, end = sorted(pieces, key=lambda piece: piece.first), 0
    what = "row" if dim == 0 else "column"
    for piece in ordered:
        if piece.values.shape[dim] and piece.first != end:
            raise StorageFailure(f"The snapshot's tensor {name} lacks {what} {end}.", _FIX)
        end += piece.values.shape[dim]
    if end != size:
        raise StorageFailure(f"The snapshot's tensor {name} has {end} {what}s, expected {size}.", _FIX)
    return torch.cat([piece.values for piece in ordered], dim)


def _header(tensors: Mapping[str, torch.Tensor], parts: Mapping[str, Part]) -> bytes:
    # Files from before there were parts along other dimensions than rows have no third number.
    placed = {name: (part.first, part.size, part.dim) for name, part in parts.items()}
    entries: dict[str, object] = {"__metadata__": {_ROWS: json.dumps(placed)}} if placed else {}
    end = 0
    for name, value in tensors.items():
        first, end = end, end + value.numel() * value.element_size()
        entries[name] = {"dtype": _DTYPES[value.dtype], "shape": list(value.shape), "data_offsets": [first, end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _bytes_of(value: torch.Tensor) -> memoryview:
    flat = value.detach().to("cpu").contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def _digest_of(path: Path) -> str:
    digest, buffer = blake3(), memoryview(bytearray(_PIECE_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()
