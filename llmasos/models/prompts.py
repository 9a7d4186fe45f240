"""Prompt tuning (arXiv:2104.08691): virtual tokens before each text, whose embeddings alone are trained, as peft reads them.

    parameter                       group      name                shape
    prompt_encoder.weight           trainable  prompt_embeddings   (num_virtual_tokens, width)
    all others                      frozen     as without an adapter

The model is called as without them, and its logits are those of the given tokens. A cache holds them before its first token.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import UsageError
from common.plan.adapters import VirtualTokens
from llmasos.models.architecture import INITIALIZER_RANGE
from llmasos.models.initial import fill_normal

if TYPE_CHECKING:
    import torch

NAME = "prompt_embeddings"
PARAMETER = "prompt_encoder.weight"


def add_prompt(module: torch.nn.Module, adapter: VirtualTokens, *, seed: int) -> None:
    """Freeze a causal language model and put virtual tokens before its texts, in place; their embeddings are normal, with the
    deviation of a new model's, in the bits that llmasos.models.initial defines from seed and name."""
    from peft import PromptTuningConfig

    config: Any = module.config
    module.requires_grad_(False)
    encoder = _attach(module, adapter.num_virtual_tokens, config.hidden_size)
    fill_normal(encoder.weight.detach().numpy().reshape(-1), INITIALIZER_RANGE, name=NAME, seed=seed)
    found: Any = module
    found.peft_config = {
        "default": PromptTuningConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=adapter.num_virtual_tokens,
            token_dim=config.hidden_size,
            num_transformer_submodules=1,
            num_attention_heads=config.num_attention_heads,
            num_layers=config.num_hidden_layers,
        )
    }


def attach_saved(module: torch.nn.Module, folder: Path) -> None:
    """Put the virtual tokens of an export's adapter folder before the texts of the model; another adapter's folder is merged in
    the model already, and nothing changes.

    Raises:
        UsageError: the folder's files are no prompt's, or of another model.
    """
    path = folder / "adapter_config.json"
    if not path.is_file():
        return
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if json.loads(path.read_bytes()).get("peft_type") != "PROMPT_TUNING":
            return
        saved = load_file(folder / "adapter_model.safetensors")[NAME]
        config: Any = module.config
        if saved.dim() != 2 or saved.shape[1] != config.hidden_size:
            raise UsageError(
                f"{folder} holds virtual tokens of shape {tuple(saved.shape)}, not {config.hidden_size} wide."
            )
    except (OSError, ValueError, KeyError, AttributeError, SafetensorError) as err:
        raise UsageError(
            f"{folder} holds an adapter that cannot be read: {str(err)[:200]}", "Export it again."
        ) from err
    encoder = _attach(module, saved.shape[0], saved.shape[1])
    with torch.no_grad():
        encoder.weight.copy_(saved)


def virtual_tokens(module: torch.nn.Module) -> int:
    """How many stand before each text."""
    found: Any = getattr(module, "prompt_encoder", None)
    return 0 if found is None else int(found.num_embeddings)


def _attach(module: torch.nn.Module, tokens: int, width: int) -> torch.nn.Embedding:
    import torch

    encoder = torch.nn.Embedding(tokens, width)
    module.add_module("prompt_encoder", encoder)
    module.register_forward_pre_hook(_before, with_kwargs=True)
    module.register_forward_hook(_after, with_kwargs=True)
    return encoder


def _before(module: Any, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The call with virtual tokens before its text; with a cache that holds tokens, they are in there."""
    import torch

    if args or given.get("labels") is not None or given.get("position_ids") is not None:
        raise UsageError("A model with virtual tokens takes input_ids, attention_mask and past_key_values, by name.")
    cache = given.get("past_key_values")
    module.prompt_encoder.stands_before = cache is None or cache.get_seq_length() == 0
    if not module.prompt_encoder.stands_before:
        return args, given
    ids_BT = given["input_ids"]
    embedded_BTD = module.get_input_embeddings()(ids_BT)
    prompt_PD = module.prompt_encoder.weight
    prompt_BPD = prompt_PD.to(embedded_BTD.dtype).expand(ids_BT.shape[0], -1, -1)
    changed = given | {"input_ids": None, "inputs_embeds": torch.cat((prompt_BPD, embedded_BTD), dim=1)}
    mask_BT = given.get("attention_mask")
    if mask_BT is not None:
        changed["attention_mask"] = torch.cat((mask_BT.new_ones(mask_BT.shape[0], prompt_PD.shape[0]), mask_BT), dim=1)
    return args, changed


def _after(module: Any, args: tuple[Any, ...], given: dict[str, Any], out: Any) -> Any:
    """Logits of the given tokens alone."""
    if module.prompt_encoder.stands_before:
        out.logits = out.logits[:, module.prompt_encoder.num_embeddings :]
    return out
