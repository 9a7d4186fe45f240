"""Encoder-only architectures: each token sees all others."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from common.plan.architectures.base import Architecture, Context, Dropout, Inner, Layers, Width, check_divides


class BERT(Architecture):
    """BERT: encoder, learned positions, two kinds of segment, tied embeddings, norm after each block (arXiv:1810.04805)."""

    heads: ClassVar[tuple[str, ...]] = ("masked-lm", "pre-training", "sequence-classification", "question-answering")

    type: Literal["bert"] = "bert"
    num_hidden_layers: Layers = 3
    num_attention_heads: Annotated[
        int, Field(ge=1, le=256, description="Attention heads; must divide hidden_size.")
    ] = 4
    hidden_size: Width = 128
    intermediate_size: Inner = 512
    max_position_embeddings: Context = 128
    type_vocab_size: Annotated[
        int, Field(ge=1, le=64, description="Kinds of segment; next-sentence prediction needs 2.")
    ] = 2
    dropout: Annotated[Dropout, Field(description="Hidden and attention dropout.")] = Decimal(0)

    @model_validator(mode="after")
    def _heads_divide_width(self) -> BERT:
        check_divides("num_attention_heads", self.num_attention_heads, "hidden_size", self.hidden_size)
        return self

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
        attention = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
        return (*attention, "intermediate.dense", "output.dense")

    @property
    def key_value_layers(self) -> tuple[str, ...]:
        return ("attention.self.key", "attention.self.value")

    @property
    def feed_forward_ends(self) -> tuple[str, ...]:
        return ("output.dense",)
