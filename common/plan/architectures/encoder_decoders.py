"""Architectures that read one sequence and write another, and the 2017 Transformer with either half of it or both."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from common.plan.architectures.base import (
    MAX_CONTEXT,
    MAX_LAYERS,
    Architecture,
    Dropout,
    Heads,
    Inner,
    Layers,
    Width,
    check_divides,
)

_ATTENTION = ("k_proj", "v_proj", "q_proj", "out_proj")


class T5(Architecture):
    """T5: encoder and decoder, relative positions, RMSNorm before each block, tied embeddings (arXiv:1910.10683)."""

    heads: ClassVar[tuple[str, ...]] = ("seq2seq-lm",)

    type: Literal["t5"] = "t5"
    num_layers: Annotated[Layers, Field(description="Blocks of the encoder.")] = 3
    num_decoder_layers: Annotated[
        int | None, Field(ge=1, le=MAX_LAYERS, description="Blocks of the decoder; null: as many as the encoder's.")
    ] = None
    num_heads: Annotated[Heads, Field(description="Attention heads, each d_kv wide.")] = 4
    d_model: Width = 128
    d_kv: Annotated[int, Field(ge=1, le=1024, description="Width of a head.")] = 32
    d_ff: Inner = 256
    feed_forward_proj: Annotated[
        Literal["relu", "gated-gelu"], Field(description="Feed-forward blocks: T5's, or those of T5 1.1.")
    ] = "relu"
    relative_attention_num_buckets: Annotated[
        int, Field(ge=4, le=1024, description="Distances told apart; must be even.", multiple_of=2)
    ] = 32
    relative_attention_max_distance: Annotated[
        int, Field(ge=8, le=MAX_CONTEXT, description="From this distance on, tokens, all are one.")
    ] = 128
    dropout_rate: Dropout = Decimal(0)

    @model_validator(mode="after")
    def _distances_exceed_buckets(self) -> T5:
        if self.relative_attention_max_distance <= self.relative_attention_num_buckets:
            raise ValueError("relative_attention_max_distance must exceed relative_attention_num_buckets")
        return self

    @property
    def width(self) -> int:
        return self.d_model

    @property
    def layers(self) -> int:
        return self.num_layers + (self.num_decoder_layers or self.num_layers)

    @property
    def context_tokens(self) -> int:
        return MAX_CONTEXT

    @property
    def linear_layers(self) -> tuple[str, ...]:
        inner = ("wi", "wo") if self.feed_forward_proj == "relu" else ("wi_0", "wi_1", "wo")
        return (
            *(f"layer.0.SelfAttention.{name}" for name in "qkvo"),
            *(f"layer.1.EncDecAttention.{name}" for name in "qkvo"),
            *(f"layer.{place}.DenseReluDense.{name}" for place in (1, 2) for name in inner),
        )

    @property
    def key_value_layers(self) -> tuple[str, ...]:
        attentions = ("layer.0.SelfAttention", "layer.1.EncDecAttention")
        return tuple(f"{attention}.{name}" for attention in attentions for name in "kv")

    @property
    def feed_forward_ends(self) -> tuple[str, ...]:
        return tuple(f"layer.{place}.DenseReluDense.wo" for place in (1, 2))


class Transformer(Architecture):
    """The Transformer of 2017: sinusoidal positions, ReLU, embeddings shared and times √d_model (arXiv:1706.03762).

    encoder-decoder is the paper's, in transformers' Marian layout. It differs in this: sines stand in the first half of a
    position and cosines in the second, instead of in turn, and an output bias of zeros is there, which never learns.
    decoder-only, in transformers' XGLM layout, has no encoder and no attention to one. It differs in this too: the norm comes
    before each block and once more at the end, and its attention is computed without a fused kernel.
    """

    type: Literal["transformer"] = "transformer"
    architecture: Annotated[
        Literal["decoder-only", "encoder-decoder"],
        Field(description="decoder-only: continues text. encoder-decoder: reads one text and writes another."),
    ] = "decoder-only"
    d_model: Width = 128
    nhead: Annotated[Heads, Field(description="Attention heads; must divide d_model.")] = 4
    num_layers: Annotated[Layers, Field(description="Blocks; of an encoder and of a decoder, each as many.")] = 3
    dim_feedforward: Inner = 512
    dropout: Annotated[Dropout, Field(description="Dropout of embeddings and of each block's output.")] = Decimal(0)
    max_positions: Annotated[int, Field(ge=8, le=16_384, description="Longest sequence, tokens.")] = 128

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Transformer:
        check_divides("nhead", self.nhead, "d_model", self.d_model)
        check_divides("2", 2, "d_model", self.d_model)
        return self

    @property
    def heads(self) -> tuple[str, ...]:  # type: ignore[override]  # here it depends on a field
        return ("causal-lm",) if self.architecture == "decoder-only" else ("seq2seq-lm",)

    @property
    def title(self) -> str:
        return f"{self.type} with architecture {self.architecture}"

    @property
    def model_type(self) -> str:
        return "xglm" if self.architecture == "decoder-only" else "marian"

    @property
    def width(self) -> int:
        return self.d_model

    @property
    def layers(self) -> int:
        return self.num_layers * (1 if self.architecture == "decoder-only" else 2)

    @property
    def context_tokens(self) -> int:
        return self.max_positions

    @property
    def linear_layers(self) -> tuple[str, ...]:
        attentions = ("self_attn",) if self.architecture == "decoder-only" else ("self_attn", "encoder_attn")
        return (*(f"{attention}.{name}" for attention in attentions for name in _ATTENTION), "fc1", "fc2")

    @property
    def key_value_layers(self) -> tuple[str, ...]:
        return tuple(path for path in self.linear_layers if path.endswith((".k_proj", ".v_proj")))

    @property
    def feed_forward_ends(self) -> tuple[str, ...]:
        return ("fc2",)
