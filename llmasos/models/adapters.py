"""Adapters beside frozen weights, as peft builds and reads them: LoRA (arXiv:2106.09685), DoRA (2402.09353), IA³ (2205.05638).

A target layer, such as transformer.h.0.attn.c_attn, is wrapped by peft. Its tensors have these names in manifests and files:

    parameter                             group      name (transformer.h.0.attn.c_attn.…)   shape
    base_layer.weight                     frozen     weight                                 as without an adapter
    lora_A.default.weight                 trainable  lora_A.weight                          (r, inputs)
    lora_B.default.weight                 trainable  lora_B.weight                          (outputs, r)
    lora_magnitude_vector.default.weight  trainable  lora_magnitude_vector                  (outputs,), with DoRA
    ia3_l.default                         trainable  ia3_l                                  (outputs, 1), or (1, inputs)

So frozen tensors are called as in the model without an adapter, and trained ones as in peft's files, without their prefix. With
W the layer's weights, s = lora_alpha / r (or √r), m the magnitudes and l the vector of IA³, it computes with

    LoRA    W + s × B A
    DoRA    m ÷ ‖W + s × B A‖ × (W + s × B A)       lengths ‖…‖ of each output's weights
    IA³     l × (W x + b); where the layer ends a feed-forward block, W (l × x) + b

B begins as 0, m as ‖W‖ and l as 1, so the initial model computes what the base model does; with DoRA within rounding.

Virtual tokens are in llmasos.models.prompts, what an adapter makes of the weights in llmasos.models.merging.

A head for classes or answers is new with each task, so it is trained whole beside the adapter, as peft's modules_to_save; its
tensors are trainable under their own names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from common.errors import UsageError
from common.plan.adapters import IA3, AdapterSection, LayerAdapter, LoRA, VirtualTokens
from common.plan.architectures import GPT2, Model
from llmasos.extras import require_train
from llmasos.models import prompts
from llmasos.models.initial import fill_normal
from llmasos.models.magnitudes import fill_lengths

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig

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
_A, _B = f".lora_A.{ADAPTER}.", f".lora_B.{ADAPTER}."
_NAMES = {
    ".base_layer.": ".",
    _A: ".lora_A.",
    _B: ".lora_B.",
    f".lora_magnitude_vector.{ADAPTER}.weight": ".lora_magnitude_vector",
    f".ia3_l.{ADAPTER}": ".ia3_l",
}
_ENDS = (".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector", ".ia3_l")


def tensor_name(parameter: str) -> str:
    """The name in manifests and files of a parameter or buffer; of a model without an adapter, its own."""
    if parameter == prompts.PARAMETER:
        return prompts.NAME
    for theirs, ours in _NAMES.items():
        parameter = parameter.replace(theirs, ours)
    return parameter


def is_adapter_tensor(name: str) -> bool:
    """Whether a name in a manifest is that of an adapter's tensor."""
    return prompts.is_tensor(name) or name.endswith(_ENDS)


def file_name(name: str) -> str:
    """What peft's files call a tensor of an adapter."""
    return name if prompts.is_tensor(name) else FILE_PREFIX + name


def add_adapter(module: torch.nn.Module, model: Model, adapter: AdapterSection, *, seed: int, head: str) -> None:
    """Put the plan's adapter into `module`, in place, and freeze all but it and a new head; without one, nothing changes.

    A is normal with variance 1 / (3 × inputs), which is that of peft's uniform default, in the bits that
    llmasos.models.initial defines from seed and name; the rest begins as the module's docstring says. torch's global random
    state moves: fork it.

    Raises:
        MissingExtra: peft is not installed.
        InvalidConfiguration: DoRA, and all weights of an output are 0.
    """
    if isinstance(adapter, VirtualTokens):
        require_train("peft", task="train an adapter")
        prompts.add_prompt(module, adapter, seed=seed)
    if not isinstance(adapter, LayerAdapter):
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
    begin_beside(module)


def begin_beside(module: torch.nn.Module) -> None:
    """Give what begins as a function of the frozen weights that value: DoRA's magnitudes. Call it when these were exchanged.

    Raises:
        InvalidConfiguration: all weights of an output are 0.
    """
    for name, layer in module.named_modules():
        magnitudes = getattr(layer, "lora_magnitude_vector", {})
        if ADAPTER in magnitudes:
            weight = layer.get_base_layer().weight.detach()
            weight_OI = weight.T if layer.fan_in_fan_out else weight
            fill_lengths(magnitudes[ADAPTER].weight.detach().numpy(), weight_OI.numpy(), layer=name)


def _config(adapter: LayerAdapter, model: Model, module: torch.nn.Module, head: str) -> PeftConfig:
    from peft import IA3Config, LoraConfig

    shared: dict[str, Any] = {
        "task_type": _TASK_TYPES.get(head),
        "fan_in_fan_out": isinstance(model, GPT2),  # GPT-2's layers keep their weights transposed
    }
    if isinstance(adapter, LoRA):
        return LoraConfig(
            r=adapter.r,
            lora_alpha=adapter.lora_alpha,
            use_rslora=adapter.use_rslora,
            use_dora=adapter.use_dora,
            lora_dropout=float(adapter.lora_dropout),
            target_modules=_target_modules(adapter, model, module),
            bias="none",
            **shared,
        )
    assert isinstance(adapter, IA3)
    before = adapter.scaled_before(model)
    return IA3Config(
        target_modules=_pattern(adapter.targets(model)),
        feedforward_modules=_pattern(before) if before else [],
        **shared,
    )


def _target_modules(adapter: LayerAdapter, model: Model, module: torch.nn.Module) -> list[str]:
    """Ends of names, for peft: as short as they may be without meaning a layer outside the blocks too (BERT's pooler)."""
    paths = adapter.targets(model)
    short = set(adapter.named or {path.rpartition(".")[2] for path in paths})
    meant = _ending(module, set(paths))
    return sorted(short if _ending(module, short) == meant else paths)


def _ending(module: torch.nn.Module, ends: set[str]) -> set[str]:
    return {name for name, _ in module.named_modules() if any(name.endswith(f".{end}") for end in ends)}


def _pattern(paths: Iterable[str]) -> str:
    """Paths in a block as a regular expression, for peft: by ends, BERT's output.dense would be attention.output.dense too."""
    return rf".*\.\d+\.({'|'.join(re.escape(path) for path in paths)})"


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
