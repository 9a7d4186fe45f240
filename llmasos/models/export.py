"""A trained model as a folder that the rest of the world can load.

    config.json  generation_config.json  model.safetensors  tokenizer.json  tokenizer_config.json
    adapter/     adapter_config.json  adapter_model.safetensors         where an adapter was trained

`AutoModelForCausalLM.from_pretrained(folder)`, or the Auto class for the model's head, and
`AutoTokenizer.from_pretrained(folder)` load it offline, with the source's logits. model.safetensors is the run's model blob,
byte for byte, so that anyone can compare its digest with the ledger.

With an adapter it is the merged model, whose bits depend on the machine; `adapter/` holds the run's very bits in peft's format:
`PeftModel.from_pretrained(base, folder / "adapter")`. `export_base` writes the base. Virtual tokens cannot be merged: with
them the model is the base, and `adapter/` belongs to it. Where a network makes them, the folder holds what it made.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import StorageFailure, UsageError
from common.plan.tasks import CLS, MASK, SEP, ChatTemplate, SequenceClassification, TaskSection
from common.statements.kinds import Tensor
from llmasos.atomic import BY_UMASK, replacing
from llmasos.models.adapters import adapter_config, adapter_of, file_name, is_adapter_tensor
from llmasos.models.chat import as_jinja, stops, template_of
from llmasos.models.manifest import manifest_of
from llmasos.models.merging import merged_tensors
from llmasos.models.prompts import NAME, prompt_of, virtual_tokens
from llmasos.models.tensors import by_name, write_tensors, write_values
from llmasos.tokenizers import end_of_document, end_of_document_id, load, pad_id

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

WEIGHTS = "model.safetensors"
INITIAL_KEY = "llmasos_initial_tensors"
"""In config.json: tensors that have a plan's initial values, since the run kept them personal."""


def export_hf(
    model: torch.nn.Module,
    tokenizer_path: Path,
    folder: Path,
    *,
    initial: Sequence[str] = (),
    task: TaskSection | None = None,
) -> None:
    """Write `folder`, which is made if need be; files of an earlier export are replaced.

    A model with an adapter is written merged, with the adapter beside it; `model` itself is left as it is.

    Args:
        tokenizer_path: its tokenizer.json, which is copied.
        initial: tensors that no round changed, since institutions keep theirs to themselves; config.json names them.
        task: what it was trained for: its labels and its chat template are written, too.

    Raises:
        UsageError: `model` was not made by transformers, or the tokenizer has more tokens than the model.
        StorageFailure: a file cannot be written.
    """
    _write_description(model, tokenizer_path, folder, initial, task)
    manifest = manifest_of(model)
    if adapter_of(model) is None:
        write_tensors(model, folder / WEIGHTS, manifest, mode=BY_UMASK)
        return
    write_values(merged_tensors(model), folder / WEIGHTS, without_adapter(manifest), mode=BY_UMASK)
    _write_adapter(model, folder / "adapter")


def export_base(model: torch.nn.Module, tokenizer_path: Path, folder: Path, *, task: TaskSection | None = None) -> None:
    """Write what the adapter of `model` was trained beside, in the same layout; it has no adapter any more.

    Raises:
        UsageError: as `export_hf`, or the model has no adapter.
        StorageFailure: a file cannot be written.
    """
    adapter_config(model)  # first: a model without an adapter has no base
    _write_description(model, tokenizer_path, folder, task=task)
    write_tensors(model, folder / WEIGHTS, without_adapter(manifest_of(model)), mode=BY_UMASK)


def without_adapter(manifest: Sequence[Tensor]) -> list[Tensor]:
    """Of a manifest, what a model without the adapter has, in that order; its trained head is as trained."""
    return [entry for entry in manifest if not is_adapter_tensor(entry.name)]


def _write_adapter(model: torch.nn.Module, folder: Path) -> None:
    """peft's files, with the run's very bits; of virtual tokens what stands before a text, whatever makes them."""
    _make(folder)
    _write(folder / "adapter_config.json", _json(adapter_config(model)))
    weights = folder / "adapter_model.safetensors"
    if virtual_tokens(model):
        prompt_PW = prompt_of(model).detach()
        entry = Tensor(name=NAME, shape=tuple(prompt_PW.shape))
        write_values({NAME: prompt_PW}, weights, [entry], mode=BY_UMASK)
        return
    trained = [entry for entry in manifest_of(model) if entry.group == "trainable"]
    tensors = by_name(model, trained)
    values = {file_name(entry.name): tensors[entry.name] for entry in trained}
    renamed = [entry.model_copy(update={"name": file_name(entry.name)}) for entry in trained]
    write_values(values, weights, renamed, mode=BY_UMASK)


def _write_description(
    model: torch.nn.Module,
    tokenizer_path: Path,
    folder: Path,
    initial: Sequence[str] = (),
    task: TaskSection | None = None,
) -> None:
    """Everything but the weights."""
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
    _describe(config, end, pad_id(tokenizer))
    if isinstance(task, SequenceClassification):
        config.id2label = dict(enumerate(task.labels))
        config.label2id = {label: number for number, label in enumerate(task.labels)}
    chat = template_of(task)
    _make(folder)
    _write(folder / "config.json", _json(config.to_dict() | ({INITIAL_KEY: list(initial)} if initial else {})))
    _write(folder / "generation_config.json", _json(_generation_config(config, stops(chat, tokenizer))))
    _write(folder / "tokenizer.json", tokenizer_path.read_bytes())
    _write(folder / "tokenizer_config.json", _json(_tokenizer_config(config, tokenizer, chat)))


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise StorageFailure(f"{folder} could not be made: {err.strerror or err}.") from err


def _describe(config: Any, end: int, pad: int) -> None:
    """What a released configuration says beyond the architecture."""
    config.use_cache = True
    config.bos_token_id = config.eos_token_id = end
    config.dtype = "float32"
    if config.is_encoder_decoder:
        config.decoder_start_token_id = pad  # as task seq2seq trains it, and as T5's
    if config.is_encoder_decoder or config.model_type == "bert" or config.pad_token_id is not None:
        config.pad_token_id = pad  # elsewhere rows are not padded


def _generation_config(config: Any, stops: Sequence[int]) -> dict[str, object]:
    """`stops`: tokens that end an answer, beside the end of a document."""
    end = [config.eos_token_id, *stops] if stops else config.eos_token_id
    found: dict[str, object] = {"bos_token_id": config.bos_token_id, "eos_token_id": end}
    if config.is_encoder_decoder:
        return found | {"decoder_start_token_id": config.decoder_start_token_id, "pad_token_id": config.pad_token_id}
    return found | {"do_sample": True}


def _tokenizer_config(config: Any, tokenizer: Tokenizer, chat: ChatTemplate | None) -> dict[str, object]:
    end = end_of_document(tokenizer)
    found: dict[str, object] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": end,
        "eos_token": end,
        "unk_token": end,
        "pad_token": tokenizer.id_to_token(pad_id(tokenizer)),
        "clean_up_tokenization_spaces": False,
    }
    for name, token in (("cls_token", CLS), ("sep_token", SEP), ("mask_token", MASK)):
        if tokenizer.token_to_id(token) is not None:
            found[name] = token
    if getattr(config, "type_vocab_size", 0) > 1:
        found["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    if chat is not None:
        found["chat_template"] = as_jinja(chat)
    longest = getattr(config, "max_position_embeddings", None)  # T5's positions are relative and have no end
    return found if longest is None else found | {"model_max_length": longest}


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True, default=str).encode() + b"\n"


def _write(path: Path, content: bytes) -> None:
    with replacing(path, mode=BY_UMASK) as file:
        file.write(content)
