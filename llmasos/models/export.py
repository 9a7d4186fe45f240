"""A trained model as a folder that the rest of the world can load.

    config.json  generation_config.json  model.safetensors  tokenizer.json  tokenizer_config.json

`AutoModelForCausalLM.from_pretrained(folder)` and `AutoTokenizer.from_pretrained(folder)` load it offline, with the source's
logits. model.safetensors is the run's model blob, byte for byte, so that anyone can compare its digest with the ledger.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import StorageFailure, UsageError
from llmasos.atomic import BY_UMASK, replacing
from llmasos.models.manifest import manifest_of
from llmasos.models.tensors import write_tensors
from llmasos.tokenizers import END_OF_DOCUMENT, end_of_document_id, load

if TYPE_CHECKING:
    import torch


def export_hf(model: torch.nn.Module, tokenizer_path: Path, folder: Path) -> None:
    """Write `folder`, which is made if need be; files of an earlier export are replaced.

    Raises:
        UsageError: `model` was not made by transformers, or the tokenizer has more tokens than the model.
        StorageFailure: a file cannot be written.
    """
    config = copy.deepcopy(getattr(model, "config", None))
    if config is None:
        raise UsageError("The model has no transformers configuration.", "Export a model that build_model made.")
    tokenizer = load(tokenizer_path)
    end = end_of_document_id(tokenizer)
    if end >= config.vocab_size:
        raise UsageError(
            f"{tokenizer_path} ends documents with token {end}, the model knows {config.vocab_size} tokens.",
            "Export a model with the tokenizer that it was trained with.",
        )
    _describe(config, end)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise StorageFailure(f"{folder} could not be made: {err.strerror or err}.") from err
    _write(folder / "config.json", _json(config.to_dict()))
    _write(folder / "generation_config.json", _json({"bos_token_id": end, "eos_token_id": end, "do_sample": True}))
    _write(folder / "tokenizer.json", tokenizer_path.read_bytes())
    _write(folder / "tokenizer_config.json", _json(_tokenizer_config(config)))
    write_tensors(model, folder / "model.safetensors", manifest_of(model), mode=BY_UMASK)


def _describe(config: Any, end: int) -> None:
    """What a released configuration says beyond the architecture."""
    config.use_cache = True
    config.bos_token_id = config.eos_token_id = end
    config.dtype = "float32"


def _tokenizer_config(config: Any) -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_DOCUMENT,
        "eos_token": END_OF_DOCUMENT,
        "unk_token": END_OF_DOCUMENT,
        "clean_up_tokenization_spaces": False,
        "model_max_length": config.max_position_embeddings,
    }


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True, default=str).encode() + b"\n"


def _write(path: Path, content: bytes) -> None:
    with replacing(path, mode=BY_UMASK) as file:
        file.write(content)
