"""What every architecture's section can say about itself."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar

from pydantic import Field

from common.plan.fields import Number, PlanSection

MAX_VOCABULARY = 2**21
MAX_LAYERS, MAX_HEADS, MAX_WIDTH, MAX_INNER, MAX_CONTEXT = 200, 256, 32_768, 131_072, 131_072

Layers = Annotated[int, Field(ge=1, le=MAX_LAYERS, description="Transformer blocks.")]
Heads = Annotated[int, Field(ge=1, le=MAX_HEADS, description="Attention heads; must divide the width.")]
Width = Annotated[int, Field(ge=8, le=MAX_WIDTH, description="Width of the model.")]
Inner = Annotated[int, Field(ge=8, le=MAX_INNER, description="Width inside the feed-forward blocks.")]
Context = Annotated[int, Field(ge=8, le=MAX_CONTEXT, description="Longest context, tokens.")]
Dropout = Annotated[Number, Field(ge=0, lt=1, description="Share of values dropped in training.")]


class Architecture(PlanSection):
    """Base of every architecture's section."""

    type: str
    weights: Annotated[
        str | None,
        Field(
            max_length=4096,
            description="Folder in Hugging Face layout whose weights are the initial ones, relative to the plan file; null: "
            "random ones, from the seed.",
        ),
    ] = None
    vocab_size: Annotated[
        int | None,
        Field(ge=1, le=MAX_VOCABULARY, description="Rows of the embedding; null: as many as the tokenizer has tokens."),
    ] = None
    heads: ClassVar[tuple[str, ...]]
    """What such a model can end in; a task says which it needs (common.plan.tasks)."""

    @property
    def title(self) -> str:
        """The architecture in a sentence, with the choice that decides on its heads."""
        return self.type

    @property
    def model_type(self) -> str:
        """What transformers calls it in a config.json."""
        return self.type

    @property
    @abstractmethod
    def width(self) -> int:
        """Values that stand for a token between blocks."""

    @property
    @abstractmethod
    def layers(self) -> int:
        """Transformer blocks, an encoder's and a decoder's together."""

    @property
    @abstractmethod
    def context_tokens(self) -> int:
        """The longest sequence, tokens; of two sequences, of each."""

    @property
    @abstractmethod
    def linear_layers(self) -> tuple[str, ...]:
        """The linear layers of a transformer block, by their path in it; of an encoder's and of a decoder's block."""

    @property
    @abstractmethod
    def key_value_layers(self) -> tuple[str, ...]:
        """Those of them that make attention's keys and values."""

    @property
    @abstractmethod
    def feed_forward_ends(self) -> tuple[str, ...]:
        """Those of them that a feed-forward block ends with."""


def check_divides(parts_name: str, parts: int, whole_name: str, whole: int) -> None:
    """
    Raises:
        ValueError: `parts` does not divide `whole`.
    """
    if whole % parts:
        raise ValueError(f"{parts_name} must divide {whole_name}, got {parts} and {whole}")
