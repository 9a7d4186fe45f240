"""One model over several ranks: each holds its rows of every tensor, and of a layer the whole only while it computes it.

    shard(model, "cuda")                         # on every rank, the same model
    local(weight), first_row(weight)             # this rank's rows, from that one on
    whole(weight)                                # all of them, on every rank; every rank must ask

Rows are those of a tensor's first dimension, the first ranks' the most. A tensor that is not sharded is its own whole.

Source: torch.distributed.fsdp.fully_shard; Zhao et al., arXiv:2304.11277 (FSDP); Rajbhandari et al., arXiv:1910.02054 (ZeRO).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def shard(model: torch.nn.Module, kind: str) -> None:
    """Give each rank its rows, on its device of that kind, block by block. From now on all ranks call the model together."""
    # Here and not above: a second to import, for workers that shard alone.
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(kind, (torch.distributed.get_world_size(),))
    for block in _blocks(model):
        fully_shard(block, mesh=mesh)
    # The outermost, too, gives the rest back after a forward pass: else an evaluation would leave it whole, and not sharded.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether this rank has but its rows."""
    return hasattr(tensor, "device_mesh")


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's rows, not a copy: shape (rows here, …)."""
    return _sharded(tensor).to_local() if is_sharded(tensor) else tensor


def first_row(tensor: torch.Tensor) -> int:
    """The number of the first row that is here."""
    if not is_sharded(tensor):
        return 0
    mesh = _sharded(tensor).device_mesh
    rows = tensor.shape[0]
    rows_each = math.ceil(rows / int(mesh.size()))
    return min(int(mesh.get_local_rank()) * rows_each, rows)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All rows, on this rank's device. Ranks wait for each other here."""
    return _sharded(tensor).full_tensor() if is_sharded(tensor) else tensor


def rows_for(tensor: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Of `values`, which has all rows, those that this rank has of `tensor`."""
    if not is_sharded(tensor):
        return values
    first = first_row(tensor)
    return values[first : first + local(tensor).shape[0]]


def beside(tensor: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """`values`, which has all rows, shared out as `tensor` is; as it is where it has another shape."""
    if not is_sharded(tensor) or values.shape != tensor.shape:
        return values
    from torch.distributed.tensor import DTensor

    like = _sharded(tensor)
    rows = rows_for(tensor, values).to(local(tensor).device).clone()
    return DTensor.from_local(
        rows, like.device_mesh, like.placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
    )


def _sharded(tensor: torch.Tensor) -> Any:
    """As a DTensor, without its module's import."""
    return tensor.detach()


def _blocks(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """What the architecture says is to stay together. Weights that a block shares with others stay with the rest: sharded on
    its own, it would no longer share them."""
    kinds = set(getattr(model, "_no_split_modules", None) or ())
    holders: dict[int, list[str]] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        holders.setdefault(id(weight), []).append(name)
    for name, module in model.named_modules():
        if type(module).__name__ in kinds and all(
            holder.startswith(f"{name}.") for weight in module.parameters() for holder in holders[id(weight)]
        ):
            yield module
