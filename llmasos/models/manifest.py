"""The tensor manifest of a module: what a run pins, in the order of the bytes of its files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from common.errors import WrongTensors
from common.statements.kinds import Tensor
from llmasos.models.adapters import tensor_name

if TYPE_CHECKING:
    import torch


def nobody(name: str) -> bool:
    """No tensor is personal."""
    return False


def manifest_of(model: torch.nn.Module, is_personal: Callable[[str], bool] = nobody) -> tuple[Tensor, ...]:
    """The ordered list of a model's tensors: parameters that learn, then parameters and persistent buffers that do not, then
    parameters that learn and never leave an institution: those whose names `is_personal` says so of.

    Of a model with an adapter that is the adapter's tensors, then all others (llmasos.models.adapters has their names).
    A tied weight stands once, under the first of its names. Buffers that are rebuilt from the configuration (rotary
    frequencies, causal masks) are not part of a model's state and do not appear; nor do integer buffers.

    Raises:
        WrongTensors: a tensor is not float32.
    """
    parameters = list(model.named_parameters())
    learning = [(name, value) for name, value in parameters if value.requires_grad]
    trainable = [_tensor(name, value, "trainable") for name, value in learning if not is_personal(tensor_name(name))]
    personal = [_tensor(name, value, "personal") for name, value in learning if is_personal(tensor_name(name))]
    frozen = [_tensor(name, value, "frozen") for name, value in parameters if not value.requires_grad]
    frozen += [_tensor(name, value, "frozen") for name, value in _persistent_float_buffers(model)]
    return (*trainable, *frozen, *personal)


def _persistent_float_buffers(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    kept = model.state_dict(keep_vars=True).keys()
    return ((name, value) for name, value in model.named_buffers() if name in kept and value.is_floating_point())


def _tensor(name: str, value: torch.Tensor, group: str) -> Tensor:
    import torch

    if value.dtype != torch.float32:
        raise WrongTensors(f"Tensor {name} is {value.dtype}, expected float32.", "Build the model in float32.")
    return Tensor.model_validate({"name": tensor_name(name), "shape": tuple(value.shape), "group": group})
