"""A transformers configuration as a plan's model section, or the reason why this release has none for it.

section = section_of(config)            # GPT2Config → GPT2, LlamaConfig → Llama
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from common.errors import UsageError
from common.plan.architectures import GPT2, Llama, Model
from common.plan.pretrained import attention_of
from llmasos.language_model.planning import parsed
from llmasos.models.architecture import config_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_NO_PART = frozenset(
    {
        "architectures",
        "attn_implementation",
        "bos_token_id",
        "chunk_size_feed_forward",
        "decoder_start_token_id",
        "dtype",
        "eos_token_id",
        "gradient_checkpointing",
        "id2label",
        "initializer_range",
        "label2id",
        "model_type",
        "num_labels",
        "output_attentions",
        "output_hidden_states",
        "pad_token_id",
        "pretraining_tp",
        "problem_type",
        "return_dict",
        "sep_token_id",
        "task_specific_params",
        "tokenizer_class",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)
"""Keys that say nothing about what the model computes from its weights."""


def section_of(config: PretrainedConfig, where: str) -> Model:
    """
    Raises:
        UsageError: the configuration asks for something that the section cannot say, so that the model would compute
            something else; names it.
        InvalidConfiguration: a size is out of range.
    """
    model_type = str(config.model_type)
    if model_type not in _SECTIONS:
        raise UsageError(
            f"{where} holds a model of type {model_type!r}, expected one of {', '.join(sorted(_SECTIONS))}."
        )
    section = _SECTIONS[model_type](config)
    found, ours = config.to_dict(), config_of(section, vocab_size=config.vocab_size).to_dict()
    for key in sorted(found.keys() & ours.keys() - _NO_PART):
        if found[key] != ours[key] and not key.startswith(("_", "summary_")) and "drop" not in key:
            raise UsageError(
                f"{where}: config.json says {key} = {found[key]!r}, this release builds {model_type} models with "
                f"{ours[key]!r} only.",
                "Use a model with that setting.",
            )
    return section


def _gpt2(config: Any) -> Model:
    sizes = {name: getattr(config, name) for name in ("n_layer", "n_head", "n_embd", "n_positions")}
    return parsed(GPT2, {**sizes, "dropout": config.resid_pdrop} | attention_of(config.to_dict()), "config.json")


def _llama(config: Any) -> Model:
    names = set(Llama.model_fields) - {"type", "vocab_size"}
    sizes = {name: getattr(config, name) for name in names if hasattr(config, name)}
    return parsed(Llama, sizes | attention_of(config.to_dict()), "config.json")


_SECTIONS: Mapping[str, Callable[[Any], Model]] = {"gpt2": _gpt2, "llama": _llama}
