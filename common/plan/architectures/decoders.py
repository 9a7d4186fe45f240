"""Decoder-only architectures: each token sees those before it."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from common.plan.architectures.attention import Attention, FullAttention, WindowedAttention
from common.plan.architectures.base import Architecture, Context, Dropout, Inner, Layers, Width, check_divides
from common.plan.fields import Number

DECODER_HEADS = ("causal-lm", "sequence-classification", "question-answering")


class GPT2(Architecture):
    """GPT-2: decoder-only, learned positions, tied embeddings (Radford et al. 2019)."""

    heads: ClassVar[tuple[str, ...]] = DECODER_HEADS

    type: Literal["gpt2"] = "gpt2"
    n_layer: Layers = 3
    n_head: Annotated[int, Field(ge=1, le=256, description="Attention heads; must divide n_embd.")] = 4
    n_embd: Width = 128
    n_positions: Context = 128
    dropout: Annotated[Dropout, Field(description="Residual, embedding and attention dropout.")] = Decimal(0)
    attention: Attention = FullAttention()

    @model_validator(mode="after")
    def _heads_divide_width(self) -> GPT2:
        check_divides("n_head", self.n_head, "n_embd", self.n_embd)
        return self

    @property
    def width(self) -> int:
        return self.n_embd

    @property
    def layers(self) -> int:
        return self.n_layer

    @property
    def context_tokens(self) -> int:
        return self.n_positions

    @property
    def linear_layers(self) -> tuple[str, ...]:
        return ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")

    @property
    def key_value_layers(self) -> tuple[str, ...]:
        return ("attn.c_attn",)  # one layer makes queries, keys and values

    @property
    def feed_forward_ends(self) -> tuple[str, ...]:
        return ("mlp.c_proj",)


class RotaryDecoder(Architecture):
    """Base of Llama and its kin: rotary positions, RMSNorm, SwiGLU, grouped-query attention."""

    heads: ClassVar[tuple[str, ...]] = DECODER_HEADS

    num_hidden_layers: Layers = 3
    num_attention_heads: Annotated[
        int, Field(ge=1, le=256, description="Attention heads; must divide hidden_size.")
    ] = 4
    num_key_value_heads: Annotated[
        int, Field(ge=1, le=256, description="Key and value heads; must divide num_attention_heads.")
    ] = 4
    hidden_size: Width = 128
    intermediate_size: Inner = 344
    max_position_embeddings: Context = 128
    tie_word_embeddings: Annotated[bool, Field(description="Input and output embeddings are one tensor.")] = True
    rope_theta: Annotated[
        Number, Field(ge=1, le=10**9, description="Base of the rotary positions' wavelengths, tokens / 2π.")
    ] = Decimal(10_000)
    rms_norm_eps: Annotated[Number, Field(gt=0, le=1, description="Added to the mean square in each norm.")] = Decimal(
        "0.000001"
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> RotaryDecoder:
        check_divides("num_key_value_heads", self.num_key_value_heads, "num_attention_heads", self.num_attention_heads)
        if self.width_of_head * self.num_attention_heads != self.hidden_size and not self.has_free_head_width:
            check_divides("num_attention_heads", self.num_attention_heads, "hidden_size", self.hidden_size)
        return self

    @property
    def has_free_head_width(self) -> bool:
        """Whether a head's width is a field of its own."""
        return False

    @property
    def width_of_head(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def width(self) -> int:
        return self.hidden_size

    @property
    def layers(self) -> int:
        return self.num_hidden_layers

    @property
    def context_tokens(self) -> int:
        return self.max_position_embeddings

    @property
    def linear_layers(self) -> tuple[str, ...]:
        attention = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
        return (*attention, "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")

    @property
    def key_value_layers(self) -> tuple[str, ...]:
        return ("self_attn.k_proj", "self_attn.v_proj")

    @property
    def feed_forward_ends(self) -> tuple[str, ...]:
        return ("mlp.down_proj",)


class Llama(RotaryDecoder):
    """Llama: decoder-only, rotary positions, RMSNorm, SwiGLU, grouped-query attention (arXiv:2302.13971)."""

    type: Literal["llama"] = "llama"
    attention: Attention = FullAttention()


class Mistral(RotaryDecoder):
    """Mistral: Llama's layout; its attention can have a window (arXiv:2310.06825)."""

    type: Literal["mistral"] = "mistral"
    attention: WindowedAttention = FullAttention()


class Qwen2(RotaryDecoder):
    """Qwen 2 and 2.5: Llama's layout, with biases on queries, keys and values (arXiv:2407.10671)."""

    type: Literal["qwen2"] = "qwen2"
    attention: WindowedAttention = FullAttention()


class Qwen3(RotaryDecoder):
    """Qwen 3: Llama's layout, with RMSNorm on each head's queries and keys (arXiv:2505.09388)."""

    type: Literal["qwen3"] = "qwen3"
    attention: WindowedAttention = FullAttention()
    head_dim: Annotated[
        int | None, Field(ge=2, le=1024, description="Width of a head; null: hidden_size / num_attention_heads.")
    ] = None

    @property
    def has_free_head_width(self) -> bool:
        return self.head_dim is not None

    @property
    def width_of_head(self) -> int:
        return self.head_dim or self.hidden_size // self.num_attention_heads
