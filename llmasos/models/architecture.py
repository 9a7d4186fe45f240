"""A plan's architecture as a transformers configuration. Only what the plan's schema names gets through.

The plan comes from the operator, so nothing of it is passed on by name: each value is written to its place here, the rest is
ours to set (attention kernel, caches), and a configuration never points to code or to a path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.errors import InvalidConfiguration
from common.plan.architectures import GPT2, Llama, Model
from llmasos.extras import require_train

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

MAX_VOCABULARY = 2**21
INITIALIZER_RANGE = 0.02
"""Standard deviation of initial weights (Radford et al. 2019)."""

MODEL_TYPES = ("gpt2", "llama")


def config_of(model: Model, *, vocab_size: int) -> PretrainedConfig:
    """The transformers configuration of a plan's model section: float32, scaled-dot-product attention, no key-value cache.

    Raises:
        InvalidConfiguration: vocabulary out of range, or rotary positions with an odd width a head.
    """
    require_train("torch", "transformers", task="build a model")
    if not 1 <= vocab_size <= MAX_VOCABULARY:
        raise InvalidConfiguration(f"The vocabulary holds {vocab_size:,} tokens, expected 1 to {MAX_VOCABULARY:,}.")
    match model:
        case GPT2():
            config = _gpt2_config(model, vocab_size)
        case Llama():
            config = _llama_config(model, vocab_size)
    config._attn_implementation = "sdpa"
    config.use_cache = False
    config.architectures = [model_class(model.type).__name__]
    return config


def model_class(model_type: str) -> type[PreTrainedModel]:
    """The transformers class of one of MODEL_TYPES. Never resolved through a configuration's own claims.

    Raises:
        InvalidConfiguration: another type.
    """
    require_train("torch", "transformers", task="build or load a model")
    if model_type == "gpt2":
        from transformers import GPT2LMHeadModel

        return GPT2LMHeadModel
    if model_type == "llama":
        from transformers import LlamaForCausalLM

        return LlamaForCausalLM
    raise InvalidConfiguration(f"Model type {model_type[:40]!r} is not one of {', '.join(MODEL_TYPES)}.")


def _gpt2_config(model: GPT2, vocab_size: int) -> PretrainedConfig:
    from transformers import GPT2Config

    dropout = float(model.dropout)
    return GPT2Config(
        vocab_size=vocab_size,
        n_layer=model.n_layer,
        n_head=model.n_head,
        n_embd=model.n_embd,
        n_positions=model.n_positions,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        initializer_range=INITIALIZER_RANGE,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )


def _llama_config(model: Llama, vocab_size: int) -> PretrainedConfig:
    from transformers import LlamaConfig

    if (model.hidden_size // model.num_attention_heads) % 2:
        raise InvalidConfiguration(
            f"model.hidden_size / model.num_attention_heads is {model.hidden_size // model.num_attention_heads}; "
            "rotary positions need an even number."
        )
    return LlamaConfig(
        vocab_size=vocab_size,
        num_hidden_layers=model.num_hidden_layers,
        num_attention_heads=model.num_attention_heads,
        num_key_value_heads=model.num_key_value_heads,
        hidden_size=model.hidden_size,
        intermediate_size=model.intermediate_size,
        max_position_embeddings=model.max_position_embeddings,
        tie_word_embeddings=model.tie_word_embeddings,
        initializer_range=INITIALIZER_RANGE,
        bos_token_id=None,
        eos_token_id=None,
    )
