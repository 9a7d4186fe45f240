"""Tensors in a safetensors file with the digest of its bytes: written piece by piece beside training, read only if whole.

    digest = write(path, {"weight.w": tensor})        # on disk when it returns
    tensors = read(path, digest)

safetensors' own `save_file` holds the interpreter's lock while it copies and writes, so that training would wait for the disk.

Source: the safetensors format, https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from blake3 import blake3
from safetensors import SafetensorError
from safetensors.torch import load_file

from common.errors import StorageFailure

OWNER_ONLY = 0o600
_FIX = "Remove the snapshot's folder; the round begins again."
_PIECE_BYTES = 4 * 1024 * 1024
_DTYPES: Final = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
}


def write(path: Path, tensors: Mapping[str, torch.Tensor]) -> str:
    """Make the file and have it on disk; BLAKE3 of its bytes, in hex.

    Args:
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

        put(_header(tensors))
        for value in tensors.values():
            data = _bytes_of(value)
            for first in range(0, len(data), _PIECE_BYTES):
                put(data[first : first + _PIECE_BYTES])
        os.fsync(file.fileno())
    return digest.hexdigest()


def read(path: Path, digest: str | None) -> dict[str, torch.Tensor]:
    """The tensors, on the CPU; `digest` None trusts the file, which a release before this one wrote.

    Raises:
        StorageFailure: the file is missing or damaged.
    """
    try:
        if digest is not None and _digest_of(path) != digest:
            raise StorageFailure(f"{path} is damaged: its bytes are not the ones that were written.", _FIX)
        return load_file(path)
    except (OSError, SafetensorError) as err:
        raise StorageFailure(f"{path} cannot be read: {err}.", _FIX) from err


def _header(tensors: Mapping[str, torch.Tensor]) -> bytes:
    entries, end = {}, 0
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
