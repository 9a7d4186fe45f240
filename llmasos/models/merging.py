"""What an adapter makes of the weights that it stands beside: the model without it that computes the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from llmasos.models.adapters import ADAPTER, is_adapter_tensor, tensor_name

if TYPE_CHECKING:
    import torch


def merged_tensors(module: torch.nn.Module) -> Mapping[str, torch.Tensor]:
    """The tensors of the model without an adapter that computes the same, by name; `module` is left as it is.

    A merged weight is made when it is asked for, so that no second copy of the model exists.
    """
    return _Merged(module)


class _Merged(Mapping[str, "torch.Tensor"]):
    """Frozen tensors by name; those of target layers as the adapter changes them."""

    def __init__(self, module: torch.nn.Module) -> None:
        from peft.tuners.ia3 import IA3Layer
        from peft.tuners.lora import LoraLayer

        named = {tensor_name(name): value for name, value in module.state_dict(keep_vars=True).items()}
        self._tensors = {name: value for name, value in named.items() if not is_adapter_tensor(name)}
        layers = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, LoraLayer | IA3Layer)]
        self._lora: dict[str, Any] = {f"{name}.weight": one for name, one in layers if isinstance(one, LoraLayer)}
        scaled = [(name, layer) for name, layer in layers if isinstance(layer, IA3Layer)]
        self._ia3: dict[str, Any] = {f"{name}.weight": layer for name, layer in scaled}
        self._ia3_biases: dict[str, Any] = {f"{name}.bias": one for name, one in scaled if not one.is_feedforward}

    def __getitem__(self, name: str) -> torch.Tensor:
        value: torch.Tensor = self._tensors[name].detach()
        if name in self._lora:
            return _with_matrices(self._lora[name], value).contiguous()
        if name in self._ia3:
            layer = self._ia3[name]
            vector: torch.Tensor = layer.ia3_l[ADAPTER].detach()
            return (value * (vector.T if layer.fan_in_fan_out else vector)).contiguous()
        if name in self._ia3_biases:
            factors: torch.Tensor = self._ia3_biases[name].ia3_l[ADAPTER].detach().flatten()
            return value * factors
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _with_matrices(layer: Any, weight: torch.Tensor) -> torch.Tensor:
    """W + s × B A; with DoRA, each output's weights scaled to its magnitude. In the layout of the layer's own weight."""
    import torch

    merged: torch.Tensor = weight + layer.get_delta_weight(ADAPTER).detach()
    if ADAPTER not in layer.lora_magnitude_vector:
        return merged
    inputs = 0 if layer.fan_in_fan_out else 1
    factor_O: torch.Tensor = layer.lora_magnitude_vector[ADAPTER].weight.detach() / torch.linalg.norm(
        merged, dim=inputs
    )
    return merged * factor_O.unsqueeze(inputs)
