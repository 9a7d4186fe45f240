"""Text from a model folder, on the CPU, offline.

print(generate_text(Path("out/demo/model"), "import ", max_new_tokens=100, temperature=0.8))
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import InvalidConfiguration, UsageError
from llmasos.extras import require_train
from llmasos.models.architecture import CAUSAL_LM
from llmasos.models.attention import implementation_of
from llmasos.models.classes import CLASSES, MODEL_TYPES, model_class
from llmasos.models.export import INITIAL_KEY
from llmasos.models.prompts import virtual_tokens
from llmasos.models.saved_prompts import attach_saved
from llmasos.tokenizers import end_of_document_id, load, pad_id

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

_FIX = "Name a folder in Hugging Face layout, as `llmasos simulate` and `llmasos plan export` write it."
SEQ2SEQ_LM = "seq2seq-lm"
WRITING = (CAUSAL_LM, SEQ2SEQ_LM)
"""Heads that write text."""
_FILES = ("config.json", "model.safetensors", "tokenizer.json")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen.

    Args:
        temperature: 0 takes the likeliest token; else one is drawn, the more evenly the higher it is, up to 100.
        top_k: draw from so many of the likeliest; None: from all.
        seed: draws follow from it.

    Raises:
        UsageError: temperature or top_k is out of range.
    """

    temperature: float = 0.8
    top_k: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 100:
            raise UsageError(f"temperature is {self.temperature}, expected 0 to 100.", "0 takes the likeliest token.")
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"top_k is {self.top_k}, expected 1 or more.", "Leave it out to draw from all tokens.")


def generate_text(
    model_dir: Path,
    prompt: str,
    *,
    max_new_tokens: int = 100,
    temperature: float = 0.8,
    top_k: int | None = None,
    seed: int = 0,
) -> str:
    """`prompt` and what the model writes after it, up to the end of a document or `max_new_tokens`; of an encoder-decoder,
    what it writes for `prompt` alone.

    The same arguments give the same text on the same machine. An empty prompt begins a document. Of a text longer than the
    model's context, the model sees the newest part.

    Args:
        model_dir: a folder in Hugging Face layout.
        max_new_tokens: tokens to write at most.
        temperature, top_k, seed: as Sampling.

    Raises:
        UsageError: `model_dir` is not the folder of a model that this release knows, or a setting is out of range.
        MissingExtra: torch, transformers or tokenizers are not installed.
    """
    require_train("torch", "transformers", "tokenizers", task="generate text")
    sampling = Sampling(temperature, top_k, seed)
    head = head_in(model_dir)
    if head not in WRITING:
        raise UsageError(f"{model_dir} holds a model that ends in {head}, which writes no text.", _FIX)
    model, tokenizer = load_module(model_dir, head), load(model_dir / "tokenizer.json")
    if head == SEQ2SEQ_LM:
        return write_target(model, tokenizer, prompt, max_new_tokens=max_new_tokens, sampling=sampling)
    return continue_text(model, tokenizer, prompt, max_new_tokens=max_new_tokens, sampling=sampling)


def head_in(model_dir: Path) -> str:
    """What the model in a folder ends in, by the class that its config.json names; `causal-lm` where it names none that is
    known: what is wrong with the folder is told when the model is loaded."""
    try:
        named = json.loads((model_dir / "config.json").read_bytes())["architectures"][0]
    except (OSError, ValueError, LookupError, TypeError):
        return CAUSAL_LM
    found = (head for heads in CLASSES.values() for head, name in heads.items() if name == named)
    return next(found, CAUSAL_LM)


def continue_text(
    model: PreTrainedModel, tokenizer: Tokenizer, prompt: str, *, max_new_tokens: int, sampling: Sampling
) -> str:
    """As `generate_text`, of a model in memory, on its device and as it is: put it in evaluation mode.

    Raises:
        UsageError: max_new_tokens is below 0.
    """
    if max_new_tokens < 0:
        raise UsageError(f"max_new_tokens is {max_new_tokens}, expected 0 or more.")
    end = end_of_document_id(tokenizer)
    ids = tokenizer.encode(prompt, add_special_tokens=False).ids
    written: list[int] = []
    for token in _continue(model, ids or [end], sampling):
        if token == end or len(written) == max_new_tokens:
            break
        written.append(token)
    return str(tokenizer.decode([*ids, *written], skip_special_tokens=False))


def continue_ids(
    model: PreTrainedModel, tokenizer: Tokenizer, ids: list[int], end: int, *, max_new_tokens: int, sampling: Sampling
) -> str:
    """What comes after tokens, up to `end` or the end of a document."""
    ends = {end, end_of_document_id(tokenizer)}
    written: list[int] = []
    for token in islice(_continue(model, ids, sampling), max_new_tokens):
        if token in ends:
            break
        written.append(token)
    return str(tokenizer.decode(written, skip_special_tokens=False))


def write_target(
    model: PreTrainedModel, tokenizer: Tokenizer, source: str, *, max_new_tokens: int, sampling: Sampling
) -> str:
    """What an encoder-decoder in memory writes for a source, up to its end or `max_new_tokens`; as tasks on pairs train it
    (llmasos.tasks.seq2seq).

    Raises:
        UsageError: max_new_tokens is below 0.
    """
    if max_new_tokens < 0:
        raise UsageError(f"max_new_tokens is {max_new_tokens}, expected 0 or more.")
    end = end_of_document_id(tokenizer)
    longest = getattr(model.config, "max_position_embeddings", None)
    room = max_new_tokens if longest is None else min(max_new_tokens, longest)
    ids = tokenizer.encode(source, add_special_tokens=False).ids
    ids = [*(ids if longest is None else ids[: longest - 1]), end]
    written: list[int] = []
    for token in islice(_target(model, ids, pad_id(tokenizer), sampling), room):
        if token == end:
            break
        written.append(token)
    return str(tokenizer.decode(written, skip_special_tokens=False))


def untrained_tensors(model_dir: Path) -> tuple[str, ...]:
    """Tensors that a run kept personal, so that they have initial values here; empty also where config.json is no such file."""
    try:
        config = json.loads((model_dir / "config.json").read_bytes())
    except (OSError, ValueError):
        return ()  # what is wrong with the folder is told when the model is loaded
    found = config.get(INITIAL_KEY, ()) if isinstance(config, dict) else ()
    return tuple(str(name) for name in found) if isinstance(found, list) else ()


def load_module(model_dir: Path, head: str = CAUSAL_LM) -> PreTrainedModel:
    """The model in the folder, by this release's classes: nothing in the folder is executed, nothing is fetched.

    Args:
        head: what it ends in, as llmasos.models.classes names it.

    Raises:
        UsageError: the folder holds no model, one that this release does not know, or a part of one.
    """
    absent = [name for name in _FILES if not (model_dir / name).is_file()]
    if absent:
        raise UsageError(f"{model_dir} is no model folder: it holds no {' and no '.join(absent)}.", _FIX)
    try:
        config = json.loads((model_dir / "config.json").read_bytes())
        model_type = config.get("model_type") if isinstance(config, dict) else None
        found = model_class(str(model_type), head)
        loaded: Any = found.from_pretrained(
            model_dir,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation="sdpa" if found._supports_sdpa else "eager",
            output_loading_info=True,
        )
    except InvalidConfiguration as err:
        if model_type not in MODEL_TYPES:
            raise UsageError(f"{model_dir} holds a model of a type not in {', '.join(MODEL_TYPES)}.", _FIX) from err
        raise UsageError(
            f"{model_dir} holds a {model_type} that ends in {head_in(model_dir)}, expected one that ends in {head}.",
            "Measure it as its own task does: llmasos evaluate MODEL DATA --plan PLAN.yaml.",
        ) from err
    except (OSError, ValueError, RuntimeError, _safetensors_error()) as err:
        raise UsageError(
            f"{model_dir} holds a model that cannot be loaded: {str(err).splitlines()[0][:300]}", _FIX
        ) from err
    model: PreTrainedModel = loaded[0]
    attach_saved(model, model_dir / "adapter")
    model.config._attn_implementation = implementation_of(model.config, str(model.config._attn_implementation))
    if absent := sorted(loaded[1]["missing_keys"]):  # transformers would fill them with random numbers
        raise UsageError(
            f"{model_dir} holds a part of a model: its weights lack {absent[0]} and {len(absent) - 1} more."
        )
    model.train(False)
    return model


def _safetensors_error() -> type[Exception]:
    from safetensors import SafetensorError

    error: type[Exception] = SafetensorError
    return error


def _continue(model: PreTrainedModel, ids: list[int], sampling: Sampling) -> Iterator[int]:
    """Tokens after `ids`, without end. Keys and values are kept; when the context is full, its newer half starts a new one."""
    import torch

    context = int(model.config.max_position_embeddings) - virtual_tokens(model)
    generator = torch.Generator(device="cpu").manual_seed(sampling.seed)
    device = model.device
    seen = list(ids[-context:])
    fresh, cache = seen, None
    with torch.inference_mode():
        while True:
            out = model(input_ids=torch.tensor([fresh], device=device), past_key_values=cache, use_cache=True)
            token = _choose(out.logits[0, -1].cpu(), sampling, generator)
            yield token
            seen.append(token)
            fresh, cache = [token], out.past_key_values
            if len(seen) > context:
                seen = seen[-max(1, context // 2) :]
                fresh, cache = list(seen), None


def _target(model: PreTrainedModel, ids: list[int], begin: int, sampling: Sampling) -> Iterator[int]:
    """Tokens of the target, without end, after `begin`; at most as many as the decoder has positions may be taken."""
    import torch

    generator = torch.Generator(device="cpu").manual_seed(sampling.seed)
    fresh, cache = begin, None
    with torch.inference_mode():
        encoded = model.get_encoder()(input_ids=torch.tensor([ids], device=model.device))
        while True:
            out = model(
                encoder_outputs=encoded,
                decoder_input_ids=torch.tensor([[fresh]], device=model.device),
                past_key_values=cache,
                use_cache=True,
            )
            fresh, cache = _choose(out.logits[0, -1].cpu(), sampling, generator), out.past_key_values
            yield fresh


def _choose(logits_V: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    import torch

    if sampling.temperature == 0:
        return int(logits_V.argmax())
    scaled_V = logits_V.double() / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < scaled_V.numel():
        least = scaled_V.topk(sampling.top_k).values[-1]
        scaled_V = scaled_V.masked_fill(scaled_V < least, -torch.inf)
    return int(torch.multinomial(scaled_V.softmax(dim=-1), 1, generator=generator))
