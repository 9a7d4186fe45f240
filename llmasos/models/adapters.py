"""Adapters: LoRA (arXiv:2106.09685) beside frozen weights, as peft builds and reads it.

A target layer, such as transformer.h.0.attn.c_attn, is wrapped by peft. Its tensors have these names in manifests and files:

    parameter                  group      name                                      shape
    base_layer.weight          frozen     transformer.h.0.attn.c_attn.weight        as without an adapter
    lora_A.default.weight      trainable  transformer.h.0.attn.c_attn.lora_A.weight (r, inputs)
    lora_B.default.weight      trainable  transformer.h.0.attn.c_attn.lora_B.weight (outputs, r)

So frozen tensors are called as in the model without an adapter, and trained ones as in peft's files, without their prefix. The
layer computes base(x) + lora_alpha / r (or √r) × B A x. B begins as 0, so the initial model computes what the base model does.

Prompt tuning is in llmasos.models.prompts.

A head for classes or answers is new with each task, so it is trained whole beside the adapter, as peft's modules_to_save; its
tensors are trainable under their own names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from common.errors import UsageError
from common.plan.adapters import Adapter, LoRA, PromptTuning
from common.plan.architectures import GPT2, Model
from llmasos.extras import require_train
from llmasos.models import prompts
from llmasos.models.initial import fill_normal

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig, PeftConfig

ADAPTER = "default"
"""peft's name for the one adapter that a model has."""
FILE_PREFIX = "base_model.model."
"""What peft's files put before each name."""

_TASK_TYPES = {
    "causal-lm": "CAUSAL_LM",
    "seq2seq-lm": "SEQ_2_SEQ_LM",
    "sequence-classification": "SEQ_CLS",
}
"""peft's names of heads. It has none for masked language models, and what it wraps for question answering forgets which
segment a token is of."""
_NEW_HEADS = {"sequence-classification": ("score", "classifier"), "question-answering": ("qa_outputs",)}
"""Modules that a task begins anew, by the head they are of."""
_WRAPPED, _A, _B = ".base_layer.", f".lora_A.{ADAPTER}.", f".lora_B.{ADAPTER}."


def tensor_name(parameter: str) -> str:
    """The name in manifests and files of a parameter or buffer; of a model without an adapter, its own."""
    if parameter == prompts.PARAMETER:
        return prompts.NAME
    return parameter.replace(_WRAPPED, ".").replace(_A, ".lora_A.").replace(_B, ".lora_B.")


def is_adapter_tensor(name: str) -> bool:
    """Whether a name in a manifest is that of an adapter's tensor."""
    return name == prompts.NAME or name.endswith((".lora_A.weight", ".lora_B.weight"))


def file_name(name: str) -> str:
    """What peft's files call a tensor of an adapter."""
    return name if name == prompts.NAME else FILE_PREFIX + name


def add_adapter(module: torch.nn.Module, model: Model, adapter: Adapter, *, seed: int, head: str) -> None:
    """Put the plan's adapter into `module`, in place, and freeze all but it and a new head; without one, nothing changes.

    A is normal with variance 1 / (3 × inputs), which is that of peft's uniform default, in the bits that
    llmasos.models.initial defines from seed and name; B is 0. torch's global random state moves: fork it.

    Raises:
        MissingExtra: peft is not installed.
    """
    if isinstance(adapter, PromptTuning):
        require_train("peft", task="train an adapter")
        prompts.add_prompt(module, adapter, seed=seed)
    if not isinstance(adapter, LoRA):
        return
    require_train("peft", task="train an adapter")
    from peft import inject_adapter_in_model

    new = [name for name in _NEW_HEADS.get(head, ()) if hasattr(module, name)]
    inject_adapter_in_model(_config(adapter, model, module, head), module, adapter_name=ADAPTER)
    for name in new:
        module.get_submodule(name).requires_grad_(True)
    config: Any = adapter_of(module)
    if new:
        config.modules_to_save = new  # for the files; peft itself would put a second copy of the head into the model
    for name, parameter in module.named_parameters():
        if _A in name:
            inputs = parameter.shape[1]
            weights_P = parameter.detach().numpy().reshape(-1)
            fill_normal(weights_P, 1 / math.sqrt(3 * inputs), name=tensor_name(name), seed=seed)
        elif _B in name:
            parameter.detach().zero_()


def _config(adapter: LoRA, model: Model, module: torch.nn.Module, head: str) -> LoraConfig:
    from peft import LoraConfig

    return LoraConfig(
        task_type=_TASK_TYPES.get(head),
        r=adapter.r,
        lora_alpha=adapter.lora_alpha,
        use_rslora=adapter.use_rslora,
        lora_dropout=float(adapter.lora_dropout),
        target_modules=_target_modules(adapter, model, module),
        fan_in_fan_out=isinstance(model, GPT2),  # GPT-2's layers keep their weights transposed
        bias="none",
    )


def _target_modules(adapter: LoRA, model: Model, module: torch.nn.Module) -> list[str]:
    """Ends of names, for peft: as short as they may be without meaning a layer outside the blocks too (BERT's pooler)."""
    paths = adapter.targets(model)
    short = {path.rpartition(".")[2] for path in paths}
    if isinstance(adapter.target_modules, tuple):
        short = set(adapter.target_modules)
    meant = _ending(module, set(paths))
    return sorted(short if _ending(module, short) == meant else paths)


def _ending(module: torch.nn.Module, ends: set[str]) -> set[str]:
    return {name for name, _ in module.named_modules() if any(name.endswith(f".{end}") for end in ends)}


def adapter_of(module: torch.nn.Module) -> PeftConfig | None:
    """peft's configuration of the adapter in `module`, if it has one."""
    configurations: Mapping[str, PeftConfig] = getattr(module, "peft_config", {})
    return configurations.get(ADAPTER)


def adapter_config(module: torch.nn.Module) -> dict[str, Any]:
    """What adapter_config.json says: peft's own fields, lists in order, so that equal models give equal files.

    Raises:
        UsageError: the model has no adapter.
    """
    config = adapter_of(module)
    if config is None:
        raise UsageError("The model has no adapter.", "Export a model that was built with one.")
    settings: dict[str, Any] = config.to_dict()
    fields = {name: sorted(value) if isinstance(value, set) else value for name, value in settings.items()}
    return fields | {"inference_mode": True}


def merged_tensors(module: torch.nn.Module) -> Mapping[str, torch.Tensor]:
    """The tensors of the model without an adapter that computes the same, by name; `module` is left as it is.

    A merged weight is made when it is asked for, so that no second copy of the model exists.
    """
    return _Merged(module)


class _Merged(Mapping[str, "torch.Tensor"]):
    """Frozen tensors by name; those of target layers with lora_alpha / r × BA added."""

    def __init__(self, module: torch.nn.Module) -> None:
        from peft.tuners.lora import LoraLayer

        named = {tensor_name(name): value for name, value in module.state_dict(keep_vars=True).items()}
        self._tensors = {name: value for name, value in named.items() if not is_adapter_tensor(name)}
        self._layers: dict[str, Any] = {
            f"{name}.weight": layer for name, layer in module.named_modules() if isinstance(layer, LoraLayer)
        }

    def __getitem__(self, name: str) -> torch.Tensor:
        value: torch.Tensor = self._tensors[name]
        layer = self._layers.get(name)
        if layer is None:
            return value
        added: torch.Tensor = layer.get_delta_weight(ADAPTER)
        return (value.detach() + added.detach()).contiguous()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)
