"""One model over several ranks: each holds a part of every large tensor.

    shard(model, "cuda", "full")                 # on every rank, the same model
    local(weight), part_of(weight)               # what this rank has, and which part of the whole that is
    whole(weight)                                # all of it, on every rank; every rank must ask

`full`: rows of every tensor; of a layer the whole only while it computes it. `tensor`: what transformers' plan for the
architecture says, rows of one matrix and columns of the next, so that each rank computes its own heads and hidden units, and
norms are whole on all ranks. `pipeline`: whole tensors, of blocks of its own (llmasos.models.stages). The first ranks have the
most. A tensor that is not sharded is its own whole.

Sources: torch.distributed.fsdp.fully_shard; Zhao et al., arXiv:2304.11277 (FSDP); Rajbhandari et al., arXiv:1910.02054 (ZeRO);
transformers.distributed.tensor_parallel; Shoeybi et al., arXiv:1909.08053 (tensor parallelism).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from common.errors import InvalidConfiguration

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Sharding = Literal["none", "full", "tensor", "pipeline"]
"""How ranks share out the model: `none`, each has all of it."""

_SUMMED_LATER = "replicated_with_grad_allreduce"
"""transformers' name for a weight that all ranks have and each uses for its own heads alone: gradients add up over ranks. Its
own hook would add up what earlier micro-batches left once more at each; Ranks.sum_gradients does it once a step."""
_PARTIAL, _STAGE = "gradient_is_partial", "pipeline_stage"


class Part(NamedTuple):
    """Of a tensor's dimension `dim`, which has `size` in all, what begins with number `first`."""

    dim: int
    first: int
    size: int


class Stage(NamedTuple):
    """Whose a weight of a pipeline is: that of the first of the stages that use it, on devices of that kind."""

    owner: int
    users: tuple[int, ...]
    kind: str
    is_own: bool


def check_model(model: torch.nn.Module, sharding: Sharding, ranks: int) -> None:
    """
    Raises:
        InvalidConfiguration: the model cannot be shared out that way, or not among so many.
    """
    if sharding == "pipeline":
        from llmasos.models.stages import check_stages

        check_stages(cast("PreTrainedModel", model), ranks)
    if sharding != "tensor":
        return
    fix = "Set worker.sharding: full or none, or refuse the plan."
    config = cast("PreTrainedModel", model).config.get_text_config()
    if not getattr(model, "tp_plan", None):
        raise InvalidConfiguration(
            f"worker.sharding tensor does not go with the plan's model {config.model_type}, for which transformers has no "
            "plan of tensor parallelism.",
            fix,
        )
    heads = int(config.num_key_value_heads)
    if heads % ranks:
        raise InvalidConfiguration(
            f"worker.sharding tensor: the plan's model has {heads} key-value heads, which {ranks} ranks cannot share out "
            "evenly.",
            f"Set worker.ranks to a divisor of {heads}. {fix}",
        )


def shard(model: torch.nn.Module, kind: str, sharding: Sharding) -> None:
    """Give each rank its part, on its device of that kind. From now on all ranks call the model together."""
    # Here and not above: a second to import, for workers that shard alone.
    import torch
    from torch.distributed.device_mesh import init_device_mesh

    ranks = torch.distributed.get_world_size()
    if sharding == "pipeline":
        from llmasos.models.stages import cut

        cut(cast("PreTrainedModel", model), torch.distributed.get_rank(), ranks, kind)
        return
    mesh = init_device_mesh(kind, (ranks,))
    if sharding == "tensor":
        _share_out_tensors(cast("PreTrainedModel", model), mesh)
        model.to(kind)
    else:
        _share_out_rows(model, mesh)


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether this rank has but a part."""
    return part_of(tensor) is not None


def part_of(tensor: torch.Tensor) -> Part | None:
    """Which part this rank has; None: all of it."""
    if not is_distributed(tensor):
        return None
    for placement in _distributed(tensor).placements:
        if placement.is_shard():
            dim = int(placement.dim) % tensor.ndim
            size, mesh = tensor.shape[dim], _distributed(tensor).device_mesh
            each = math.ceil(size / int(mesh.size()))
            return Part(dim, min(int(mesh.get_local_rank()) * each, size), size)
    return None


def is_distributed(tensor: torch.Tensor) -> bool:
    """Whether it is torch's DTensor, which computes with others of its kind alone."""
    return hasattr(tensor, "device_mesh")


def stage_of(weight: torch.Tensor) -> Stage | None:
    """Whose it is among the stages of a pipeline; None: there is no pipeline."""
    return getattr(weight, _STAGE, None)


def is_own(weight: torch.Tensor) -> bool:
    """Whether it counts on this rank: in norms, and in a snapshot."""
    stage = stage_of(weight)
    return stage is None or stage.is_own


def mark_stage(weight: torch.Tensor, stage: Stage) -> None:
    """Say whose it is."""
    setattr(weight, _STAGE, stage)


def is_shared_out(tensor: torch.Tensor) -> bool:
    """Whether `whole` of it needs other ranks."""
    return is_distributed(tensor) or stage_of(tensor) is not None


def gradient_is_partial(weight: torch.Tensor) -> bool:
    """Whether a rank's backward pass gives a part of the gradient, which adds up over ranks."""
    return getattr(weight, _PARTIAL, False)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part, not a copy."""
    return cast("torch.Tensor", _distributed(tensor).to_local()) if is_distributed(tensor) else tensor


def runs(tensor: torch.Tensor) -> Iterator[tuple[int, int]]:
    """Where this rank's elements stand among the whole tensor's, which are counted in order: (first, how many), one after the
    other as they stand in `local`. Rows are one run, columns one in each row."""
    part, mine = part_of(tensor), local(tensor)
    if tensor.is_meta:
        return  # another stage's
    if part is None:
        yield 0, tensor.numel()
        return
    inner = math.prod(tensor.shape[part.dim + 1 :])
    for outer in range(math.prod(tensor.shape[: part.dim])):
        yield (outer * part.size + part.first) * inner, mine.shape[part.dim] * inner


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of it, on this rank's device. Ranks wait for each other here."""
    stage = stage_of(tensor)
    if stage is not None:
        return _from_owner(tensor, stage)
    return cast("torch.Tensor", _distributed(tensor).full_tensor()) if is_distributed(tensor) else tensor


def part_for(tensor: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Of `values`, which is whole, what this rank has of `tensor`."""
    part = part_of(tensor)
    return values if part is None else values.narrow(part.dim, part.first, local(tensor).shape[part.dim])


def beside(tensor: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """`values`, which is whole, shared out as `tensor` is; as it is where it has another shape."""
    if not is_distributed(tensor) or values.shape != tensor.shape:
        return values
    import torch
    from torch.distributed.tensor import DTensor

    like = _distributed(tensor)
    mine = part_for(tensor, values).to(local(tensor).device).clone(memory_format=torch.contiguous_format)
    return DTensor.from_local(
        mine, like.device_mesh, like.placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
    )


def _from_owner(tensor: torch.Tensor, stage: Stage) -> torch.Tensor:
    import torch

    value = tensor.detach() if stage.is_own else torch.empty(tensor.shape, dtype=tensor.dtype, device=stage.kind)
    torch.distributed.broadcast(value, src=stage.owner)
    return value


def _distributed(tensor: torch.Tensor) -> Any:
    """As a DTensor, without its module's import."""
    return tensor.detach()


# --- full ----------------------------------------------------------------------------------------------------------------


def _share_out_rows(model: torch.nn.Module, mesh: Any) -> None:
    """Block by block."""
    from torch.distributed.fsdp import fully_shard

    for block in _blocks(model):
        fully_shard(block, mesh=mesh)
    # The outermost, too, gives the rest back after a forward pass: else an evaluation would leave it whole, and not sharded.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)


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


# --- tensor --------------------------------------------------------------------------------------------------------------


def _share_out_tensors(model: PreTrainedModel, mesh: Any) -> None:
    """By transformers' plan for the architecture."""
    from transformers.distributed.configuration_utils import DistributedConfig
    from transformers.distributed.tensor_parallel import apply_tensor_parallelism

    plan, _, _ = model._resolve_parallel_plans(DistributedConfig(tp_size=int(mesh.size())))
    known = {name for name, _ in model.named_modules()} | {name for name, _ in model.named_parameters()}
    # A weight under a second name is not shared out twice; it is tied again when the first is.
    styles = {name: style for name, style in plan.items() if name in known and style != _SUMMED_LATER}
    apply_tensor_parallelism(model, mesh, styles)
    model.tie_weights()
    for name, weight in model.named_parameters():
        if plan.get(name) == _SUMMED_LATER:
            setattr(weight, _PARTIAL, True)
