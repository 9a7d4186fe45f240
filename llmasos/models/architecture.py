"""A plan's architecture as a transformers configuration. Only what the plan's schema names gets through.

The plan comes from the operator, so nothing of it is passed on by name: each value is written to its place here, the rest is
ours to set (attention kernel, caches), and a configuration never points to code or to a path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from common.errors import InvalidConfiguration
from common.plan.architectures import BERT, GPT2, T5, Model, Qwen3, RotaryDecoder, Transformer
from common.plan.architectures.attention import BlockSparse, SlidingWindow
from common.plan.architectures.base import MAX_VOCABULARY
from llmasos.extras import require_train
from llmasos.models.attention import use_block_sparse
from llmasos.models.classes import model_class

if TYPE_CHECKING:
    from transformers import PretrainedConfig

INITIALIZER_RANGE = 0.02
"""Standard deviation of initial weights (Radford et al. 2019)."""
CAUSAL_LM = "causal-lm"

_NO_SPECIAL_TOKENS: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
"""Which ids they have is the tokenizer's to say; an export writes them."""


def config_of(
    model: Model, *, vocab_size: int, head: str = CAUSAL_LM, num_labels: int | None = None
) -> PretrainedConfig:
    """The transformers configuration of a plan's model section: float32, scaled-dot-product attention where transformers has
    it for the architecture, no key-value cache.

    Args:
        head: what the model ends in, one of the section's `heads`.
        num_labels: classes that a head for sequence classification tells apart.

    Raises:
        InvalidConfiguration: vocabulary out of range, rotary positions with an odd width a head, or a head that the
            architecture has not, or has no number of labels.
    """
    require_train("torch", "transformers", task="build a model")
    if not 1 <= vocab_size <= MAX_VOCABULARY:
        raise InvalidConfiguration(f"The vocabulary holds {vocab_size:,} tokens, expected 1 to {MAX_VOCABULARY:,}.")
    if head not in model.heads:
        raise InvalidConfiguration(
            f"A model of type {model.title} has no head {head[:40]!r}; it has {', '.join(model.heads)}."
        )
    if (head == "sequence-classification") != (num_labels is not None):
        raise InvalidConfiguration(f"num_labels is {num_labels}; head {head} needs {_labels_of(head)}.")
    found = model_class(model.model_type, head)
    config = _config(model, vocab_size)
    if num_labels is not None:
        config.num_labels = num_labels
    config._attn_implementation = "sdpa" if found._supports_sdpa else "eager"
    attention = getattr(model, "attention", None)
    if isinstance(attention, BlockSparse):
        use_block_sparse(config, attention)
    config.use_cache = False
    config.architectures = [found.__name__]
    return config


def _labels_of(head: str) -> str:
    return "a number of classes" if head == "sequence-classification" else "none"


def _config(model: Model, vocab_size: int) -> PretrainedConfig:
    match model:
        case GPT2():
            return _gpt2(model, vocab_size)
        case BERT():
            return _bert(model, vocab_size)
        case T5():
            return _t5(model, vocab_size)
        case Transformer():
            return _transformer(model, vocab_size)
        case _:
            return _rotary(model, vocab_size)


def _gpt2(model: GPT2, vocab_size: int) -> PretrainedConfig:
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
        **_NO_SPECIAL_TOKENS,
    )


def _rotary(model: RotaryDecoder, vocab_size: int) -> PretrainedConfig:
    from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

    if model.width_of_head % 2:
        name = "head_dim" if model.has_free_head_width else "hidden_size / model.num_attention_heads"
        raise InvalidConfiguration(f"model.{name} is {model.width_of_head}; rotary positions need an even number.")
    family: dict[str, Any] = {
        "llama": LlamaConfig,
        "mistral": MistralConfig,
        "qwen2": Qwen2Config,
        "qwen3": Qwen3Config,
    }
    own = _window(model)
    if isinstance(model, Qwen3):
        own["head_dim"] = model.width_of_head
    config: PretrainedConfig = family[model.type](
        vocab_size=vocab_size,
        num_hidden_layers=model.num_hidden_layers,
        num_attention_heads=model.num_attention_heads,
        num_key_value_heads=model.num_key_value_heads,
        hidden_size=model.hidden_size,
        intermediate_size=model.intermediate_size,
        max_position_embeddings=model.max_position_embeddings,
        tie_word_embeddings=model.tie_word_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": float(model.rope_theta)},
        rms_norm_eps=float(model.rms_norm_eps),
        initializer_range=INITIALIZER_RANGE,
        **own,
        **_NO_SPECIAL_TOKENS,
    )
    return config


def _window(model: RotaryDecoder) -> dict[str, Any]:
    """How the type's configuration says which attention is windowed."""
    attention = getattr(model, "attention", None)
    window = attention.window if isinstance(attention, SlidingWindow) else None
    if model.type == "mistral":
        return {"sliding_window": window}
    if window is None:
        return {}
    return {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 0}


def _bert(model: BERT, vocab_size: int) -> PretrainedConfig:
    from transformers import BertConfig

    dropout = float(model.dropout)
    return BertConfig(
        vocab_size=vocab_size,
        num_hidden_layers=model.num_hidden_layers,
        num_attention_heads=model.num_attention_heads,
        hidden_size=model.hidden_size,
        intermediate_size=model.intermediate_size,
        max_position_embeddings=model.max_position_embeddings,
        type_vocab_size=model.type_vocab_size,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=INITIALIZER_RANGE,
        tie_word_embeddings=True,
        **_NO_SPECIAL_TOKENS,
    )


def _t5(model: T5, vocab_size: int) -> PretrainedConfig:
    from transformers import T5Config

    return T5Config(
        vocab_size=vocab_size,
        num_layers=model.num_layers,
        num_decoder_layers=model.num_decoder_layers,
        num_heads=model.num_heads,
        d_model=model.d_model,
        d_kv=model.d_kv,
        d_ff=model.d_ff,
        feed_forward_proj=model.feed_forward_proj,
        relative_attention_num_buckets=model.relative_attention_num_buckets,
        relative_attention_max_distance=model.relative_attention_max_distance,
        dropout_rate=float(model.dropout_rate),
        **_NO_SPECIAL_TOKENS,
    )


def _transformer(model: Transformer, vocab_size: int) -> PretrainedConfig:
    from transformers import MarianConfig, XGLMConfig

    shared: dict[str, Any] = {
        "vocab_size": vocab_size,
        "d_model": model.d_model,
        "max_position_embeddings": model.max_positions,
        "activation_function": "relu",
        "dropout": float(model.dropout),
        "attention_dropout": 0.0,
        "scale_embedding": True,
        "tie_word_embeddings": True,
        "decoder_start_token_id": 0,
        **_NO_SPECIAL_TOKENS,
    }
    if model.architecture == "decoder-only":
        return XGLMConfig(
            num_layers=model.num_layers, attention_heads=model.nhead, ffn_dim=model.dim_feedforward, **shared
        )
    return MarianConfig(
        encoder_layers=model.num_layers,
        decoder_layers=model.num_layers,
        encoder_attention_heads=model.nhead,
        decoder_attention_heads=model.nhead,
        encoder_ffn_dim=model.dim_feedforward,
        decoder_ffn_dim=model.dim_feedforward,
        forced_eos_token_id=None,
        **shared,
    )
