"""A decoder cut into stages, one a rank: the first looks tokens up, each has blocks of its own, the last makes the logits.

    cut(model, rank, ranks, "cuda")              # weights of other stages are here by name and shape, without numbers
    stage = stage_module(model, rank, ranks)     # tokens (B, T) or activations (B, T, H) → activations or logits (B, T, V)

The model keeps all its names; a weight that two stages use, as a table for both ends, is in both, and the first's counts.

Source: Huang et al., arXiv:1811.06965 (GPipe).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch

from common.errors import InvalidConfiguration
from llmasos.models.sharding import Stage, mark_stage

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class _Joints(NamedTuple):
    """Where an architecture can be cut: names of the decoder in the model, and of its parts in the decoder."""

    base: str
    blocks: str
    tables: tuple[str, ...]
    norm: str


_ROTARY = _Joints("model", "layers", ("embed_tokens",), "norm")
JOINTS: Final = {
    "gpt2": _Joints("transformer", "h", ("wte", "wpe"), "ln_f"),
    "llama": _ROTARY,
    "mistral": _ROTARY,
    "qwen2": _ROTARY,
    "qwen3": _ROTARY,
}


def check_stages(model: PreTrainedModel, ranks: int) -> None:
    """
    Raises:
        InvalidConfiguration: the architecture cannot be cut, or not into so many stages.
    """
    fix = "Set worker.sharding: full or none, or refuse the plan."
    joints = JOINTS.get(model.config.model_type)
    if joints is None:
        raise InvalidConfiguration(
            f"worker.sharding pipeline does not go with the plan's model {model.config.model_type}; expected one of "
            f"{', '.join(JOINTS)}.",
            fix,
        )
    blocks = len(_blocks(model, joints))
    if blocks < ranks:
        raise InvalidConfiguration(
            f"worker.sharding pipeline: the plan's model has {blocks} blocks, too few for {ranks} ranks.",
            f"Set worker.ranks to {blocks} at most. {fix}",
        )


def cut(model: PreTrainedModel, rank: int, ranks: int, kind: str) -> None:
    """Free the weights of other stages, and bring this one's to its device of that kind."""
    users: dict[torch.nn.Parameter, list[tuple[torch.nn.Module, str, int]]] = {}
    for name, module in model.named_modules():
        for own, weight in module.named_parameters(recurse=False):
            users.setdefault(weight, []).append((module, own, _stage_of(model, name, ranks)))
    for weight, some in users.items():
        if rank in [stage for _, _, stage in some]:
            continue
        absent = torch.nn.Parameter(torch.empty_like(weight, device="meta"), requires_grad=False)
        for module, own, _ in some:
            setattr(module, own, absent)
    model._apply(lambda tensor: tensor if tensor.is_meta else tensor.to(kind))  # type: ignore[no-untyped-call]
    for some in users.values():
        module, own, _ = some[0]
        owner = min(stage for _, _, stage in some)
        sharers = tuple(sorted({stage for _, _, stage in some}))
        mark_stage(getattr(module, own), Stage(owner, sharers, kind, owner == rank))


def stage_module(
    model: PreTrainedModel, rank: int, ranks: int, autocast: Callable[[], AbstractContextManager[object]]
) -> torch.nn.Module:
    """What this rank computes, on the model's own weights, with that precision."""
    return _StageModule(model, rank, ranks, autocast)


class _StageModule(torch.nn.Module):
    def __init__(
        self, model: PreTrainedModel, rank: int, ranks: int, autocast: Callable[[], AbstractContextManager[object]]
    ) -> None:
        super().__init__()
        joints = JOINTS[model.config.model_type]
        is_first, is_last = rank == 0, rank == ranks - 1
        base = _with_own_children(getattr(model, joints.base))
        blocks = _blocks(model, joints)
        own = [block for index, block in enumerate(blocks) if index * ranks // len(blocks) == rank]
        setattr(base, joints.blocks, torch.nn.ModuleList(own))
        if not is_first:
            for table in joints.tables:
                setattr(base, table, _Nothing())
            if hasattr(base, "drop"):
                base.drop = torch.nn.Identity()
        if not is_last:
            setattr(base, joints.norm, torch.nn.Identity())
        self._input = "input_ids" if is_first else "inputs_embeds"
        self._autocast = autocast
        self.part = base
        if is_last:
            self.part = _with_own_children(model)
            setattr(self.part, joints.base, base)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """float32, so that shapes and types between ranks are known before."""
        with self._autocast():
            found = self.part(**{self._input: values}, use_cache=False)
        activations: torch.Tensor = found.logits if "logits" in found else found.last_hidden_state
        return activations.float()


class _Nothing(torch.nn.Module):
    """Adds nothing: what it stands for was added by the first stage."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.zeros((), device=ids.device)


def _with_own_children(module: Any) -> Any:
    """The same module, whose children can be exchanged without exchanging the other's."""
    other = copy.copy(module)
    other._modules = dict(module._modules)
    return other


def _blocks(model: PreTrainedModel, joints: _Joints) -> list[torch.nn.Module]:
    return list(getattr(getattr(model, joints.base), joints.blocks))


def _stage_of(model: PreTrainedModel, name: str, ranks: int) -> int:
    """Which stage uses the module of that name."""
    joints = JOINTS[model.config.model_type]
    path = name.split(".")
    if path[0] == joints.base and len(path) > 1:
        if path[1] in joints.tables:
            return 0
        if path[1] == joints.blocks and len(path) > 2:
            return int(path[2]) * ranks // len(_blocks(model, joints))
    return ranks - 1
