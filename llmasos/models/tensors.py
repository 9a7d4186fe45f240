"""A module's tensors as files in the wire's layout (common.tensors): the very bytes that become blobs.

    model file   header | trainable tensors | frozen tensors         float32, little-endian, in the manifest's order
    delta file   header | trainable tensors: after − before          personal tensors are in neither

Everything streams through one buffer of BUFFER_BYTES; a second copy of the model never exists, on disk included, since files
are written under a temporary name and renamed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from common.errors import NonFiniteDelta, StorageFailure, WrongTensors
from common.statements.kinds import Tensor
from common.tensors import check_header, declared_header_bytes, delta_size, model_header, model_size, trainable_header
from llmasos.atomic import OWNER_ONLY, replacing
from llmasos.models.adapters import tensor_name
from llmasos.models.sharding import is_shared_out, local, runs, whole

if TYPE_CHECKING:
    import torch

BUFFER_BYTES = 4 * 1024 * 1024
_FLOAT = np.dtype("<f4")
_LENGTH_BYTES = 8
_PIECE = BUFFER_BYTES // _FLOAT.itemsize

FloatPiece = NDArray[np.float32]


def write_tensors(model: torch.nn.Module, path: Path, manifest: Sequence[Tensor], *, mode: int = OWNER_ONLY) -> None:
    """Write the model file of `manifest`: `model_size(manifest)` bytes, equal bit for bit on any machine.

    Args:
        path: where the file goes; it appears whole or not at all.
        mode: its permissions.

    Raises:
        WrongTensors: the model lacks a tensor of the manifest, or has it in another shape or dtype.
        StorageFailure: the file cannot be written.
    """
    write_values(by_name(model, manifest), path, manifest, mode=mode)


def write_values(
    tensors: Mapping[str, torch.Tensor], path: Path, manifest: Sequence[Tensor], *, mode: int = OWNER_ONLY
) -> None:
    """As `write_tensors`, of tensors by name, each asked for once; their shapes and dtypes are the caller's care.

    Raises:
        StorageFailure: the file cannot be written.
    """
    with replacing(path, mode=mode) as file:
        file.write(model_header(manifest))
        for entry in _carried(manifest):
            for piece_P in _pieces(tensors[entry.name]):
                file.write(np.ascontiguousarray(piece_P, dtype=_FLOAT).data)


def read_tensors(model: torch.nn.Module, path: Path, manifest: Sequence[Tensor]) -> None:
    """Fill the model's tensors from the model file at `path`, of sharded ones this rank's part. They keep place and device.

    Raises:
        WrongTensors: file or model differ from the manifest in names, order, shapes, dtype or size. The header and the size
            are checked before the first tensor is touched.
        StorageFailure: the file cannot be read.
    """
    import torch

    tensors = by_name(model, manifest)
    buffer_P = np.empty(_PIECE, dtype=_FLOAT)
    with _open_model(path, manifest) as file, torch.no_grad():
        for entry in _carried(manifest):
            start, tensor = file.tell(), tensors[entry.name].detach()  # without numbers where it is another stage's
            flat, filled = local(tensor).view(-1), 0
            for first, count in runs(tensor):
                file.seek(start + first * _FLOAT.itemsize)
                for begin in range(filled, filled + count, _PIECE):
                    piece_P = _read(file, buffer_P[: min(_PIECE, filled + count - begin)])
                    flat[begin : begin + piece_P.size].copy_(torch.from_numpy(piece_P.astype(np.float32, copy=False)))
                filled += count
            file.seek(start + entry.elements * _FLOAT.itemsize)


def write_delta(
    path: Path, before_path: Path, model: torch.nn.Module, manifest: Sequence[Tensor], *, spare: Path | None = None
) -> None:
    """Write the delta file at `path`: for each trainable element float32(after − before), `delta_size(manifest)` bytes.

    Args:
        before_path: the model file that training started from.
        model: after training.
        spare: a file that is written over and renamed, if it is there: cheaper than a new one.

    Raises:
        WrongTensors: model or `before_path` are not the manifest's.
        NonFiniteDelta: names the first tensor with NaN or infinity; no file is left behind.
        StorageFailure: a file cannot be read or written.
    """
    tensors = by_name(model, manifest)
    buffer_P = np.empty(_PIECE, dtype=_FLOAT)
    with _open_model(before_path, manifest) as before, replacing(path, spare=spare) as file:
        file.write(trainable_header(manifest))
        for entry in manifest:
            if entry.group != "trainable":
                break  # the manifest's order: no trainable tensor follows
            for after_P in _pieces(tensors[entry.name]):
                delta_P = _read(before, buffer_P[: after_P.size])
                np.subtract(after_P, delta_P, out=delta_P)
                if not np.isfinite(delta_P).all():
                    raise NonFiniteDelta(f"The delta of tensor {entry.name} holds NaN or infinity.")
                file.write(delta_P.data)
        written = file.tell()
    if written != delta_size(manifest):
        raise WrongTensors(f"{path.name} has {written:,} bytes, the manifest gives {delta_size(manifest):,}.")


def gather_delta(model: torch.nn.Module, manifest: Sequence[Tensor]) -> None:
    """Another rank's part in rank 0's `write_delta`: give it one's part, tensor by tensor."""
    tensors = by_name(model, manifest)
    for entry in manifest:
        if entry.group == "trainable" and is_shared_out(tensors[entry.name]):
            whole(tensors[entry.name])


def _carried(manifest: Sequence[Tensor]) -> Iterator[Tensor]:
    return (entry for entry in manifest if entry.group != "personal")


def by_name(model: torch.nn.Module, manifest: Sequence[Tensor]) -> dict[str, torch.Tensor]:
    """The model's tensors by name, all names of tied weights included; every entry of the manifest is checked."""
    tensors = {tensor_name(name): value for name, value in model.state_dict(keep_vars=True).items()}
    for entry in manifest:
        found = tensors.get(entry.name)
        if found is None:
            raise WrongTensors(f"The model has no tensor {entry.name}, which the manifest lists.")
        if tuple(found.shape) != entry.shape:
            raise WrongTensors(
                f"Tensor {entry.name} of the model has shape {tuple(found.shape)}, expected {entry.shape}."
            )
        if not local(found).is_contiguous() or str(found.dtype) != "torch.float32":
            raise WrongTensors(f"Tensor {entry.name} of the model is {found.dtype}, expected contiguous float32.")
    return tensors


def _pieces(tensor: torch.Tensor) -> Iterator[FloatPiece]:
    """The tensor's elements in order, in pieces of at most BUFFER_BYTES, on the CPU."""
    flat = whole(tensor).detach().view(-1)
    for first in range(0, flat.numel(), _PIECE):
        yield flat[first : first + _PIECE].cpu().numpy()


def _open_model(path: Path, manifest: Sequence[Tensor]) -> FileIO:
    """Open a model file behind its header, which is checked together with the size."""
    try:
        file = path.open("rb", buffering=0)
    except OSError as err:
        raise StorageFailure(f"{path} could not be read: {err.strerror or err}.") from err
    try:
        start = file.read(_LENGTH_BYTES)
        check_header(start + file.read(declared_header_bytes(start) - len(start)), model_header(manifest))
        size = os.fstat(file.fileno()).st_size
        if size != model_size(manifest):
            raise WrongTensors(f"{path.name} has {size:,} bytes, the manifest gives {model_size(manifest):,}.")
    except BaseException:
        file.close()
        raise
    return file


def _read(file: FileIO, into_P: FloatPiece) -> FloatPiece:
    """Fill `into_P` from the file."""
    rest = into_P.data.cast("B")
    while rest:
        count = file.readinto(rest)
        if not count:
            raise WrongTensors(f"{file.name} ended {len(rest):,} bytes early; it was changed while it was read.")
        rest = rest[count:]
    return into_P
