"""Virtual tokens in the adapter folder of an export: put before the texts of the model that they belong to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import UsageError
from common.plan.adapters import PrefixTuning, PromptTuning
from llmasos.models.prompts import NAME, attach, row_width

if TYPE_CHECKING:
    import torch

_KINDS: dict[str, type[PromptTuning | PrefixTuning]] = {
    "PROMPT_TUNING": PromptTuning,
    "P_TUNING": PromptTuning,
    "PREFIX_TUNING": PrefixTuning,
}
"""By peft's names. What a network made is, in files, tokens as any others."""


def attach_saved(module: torch.nn.Module, folder: Path) -> PromptTuning | PrefixTuning | None:
    """Put the virtual tokens of an export's adapter folder before the texts of the model, which is frozen; say what they are.
    Another adapter's folder is merged in the model already: None, and nothing changes.

    Raises:
        UsageError: the folder's files are no prompt's, or of another model.
    """
    path = folder / "adapter_config.json"
    if not path.is_file():
        return None
    import torch
    from pydantic import ValidationError
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        kind = _KINDS.get(json.loads(path.read_bytes()).get("peft_type"))
        if kind is None:
            return None
        saved_PW = load_file(folder / "adapter_model.safetensors")[NAME].float()
        adapter = kind(num_virtual_tokens=len(saved_PW))
        width = row_width(module, adapter)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, SafetensorError, ValidationError) as err:
        raise UsageError(
            f"{folder} holds an adapter that cannot be read: {str(err).splitlines()[0][:200]}", "Export it again."
        ) from err
    if saved_PW.dim() != 2 or saved_PW.shape[1] != width:
        raise UsageError(
            f"{folder} holds virtual tokens of shape {tuple(saved_PW.shape)}; this model's are {width:,} numbers each.",
            "Name the folder of the model that they were trained with.",
        )
    encoder = torch.nn.Embedding(*saved_PW.shape)
    with torch.no_grad():
        encoder.weight.copy_(saved_PW)
    attach(module, adapter, encoder)
    return adapter
