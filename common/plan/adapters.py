"""The plan's `adapter`: whether all of the model is trained, or small tensors beside it.

    lora, ia3                                 beside linear layers of the blocks; an export has them in its weights
    prompt-tuning, prefix-tuning, p-tuning    virtual tokens before each text; an export has them beside its weights

What each goes with is in common.plan.adapter_checks.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field, model_validator

from common.plan.architectures import Model
from common.plan.architectures.base import MAX_WIDTH
from common.plan.fields import Number, PlanSection

_Names = Annotated[tuple[Annotated[str, Field(max_length=100)], ...], Field(min_length=1, max_length=100)]
_VirtualTokens = Annotated[
    int, Field(ge=1, le=4096, description="How many; they and a sequence must fit into the model's context.")
]


class AdapterSection(PlanSection):
    """Base of every adapter's section."""

    type: str

    @property
    def words(self) -> str:
        """What is trained, as a table says it; nothing where that is the whole model."""
        return ""

    @property
    def virtual_tokens(self) -> int:
        """Places of the context that the adapter takes from text."""
        return 0


class NoAdapter(AdapterSection):
    """Every tensor of the model is trained."""

    type: Literal["none"] = "none"


class LayerAdapter(AdapterSection):
    """Base of those that stand beside linear layers of the blocks."""

    @property
    def named(self) -> tuple[str, ...] | None:
        """The layers as the plan names them; None where it leaves that to the architecture."""
        found = getattr(self, "target_modules", None)
        return found if isinstance(found, tuple) else None

    @abstractmethod
    def usual(self, model: Model) -> tuple[str, ...]:
        """The layers of a block of `model` that are meant where none are named."""

    def targets(self, model: Model) -> tuple[str, ...]:
        """The linear layers of a block of `model` that get an adapter, by their path in it."""
        names = self.named
        if names is None:
            return self.usual(model)
        return tuple(path for path in model.linear_layers if any(_ends(path, name) for name in names))

    def unknown(self, model: Model) -> tuple[str, ...]:
        """What target_modules names and a block of `model` has not."""
        names = self.named or ()
        return tuple(name for name in names if not any(_ends(path, name) for path in model.linear_layers))

    @model_validator(mode="after")
    def _names_are_distinct(self) -> LayerAdapter:
        if self.named is not None and len(set(self.named)) != len(self.named):
            raise ValueError("target_modules names a layer twice")
        return self


class LoRA(LayerAdapter):
    """LoRA (arXiv:2106.09685): only two small matrices beside each target layer are trained and travel. Fields are peft's."""

    type: Literal["lora"] = "lora"
    r: Annotated[
        int, Field(ge=1, le=4096, description="Rank: rows of A, columns of B, in weight + lora_alpha / r × BA.")
    ] = 8
    lora_alpha: Annotated[
        int, Field(ge=1, le=65536, description="Scales what the adapter adds, by lora_alpha / r.")
    ] = 16
    lora_dropout: Annotated[Number, Field(ge=0, lt=1, description="Dropout on the adapter's input, in training.")] = (
        Decimal(0)
    )
    target_modules: Annotated[
        Literal["all-linear"] | _Names,
        Field(
            description="Linear layers of a block that get an adapter, by the end of their names, as in [q_proj, v_proj]; "
            "all-linear: each of them."
        ),
    ] = "all-linear"

    use_rslora: Annotated[
        bool, Field(description="Scale by lora_alpha / √r instead, which suits large r (arXiv:2312.03732).")
    ] = False
    use_dora: Annotated[
        bool,
        Field(
            description="DoRA (arXiv:2402.09353): the matrices change the direction of each output's weights alone, and a "
            "vector beside them, trained too, is their length."
        ),
    ] = False

    def usual(self, model: Model) -> tuple[str, ...]:
        return model.linear_layers

    @property
    def words(self) -> str:
        kind = f"{self.type} with DoRA" if self.use_dora else self.type
        return f"{kind}, r {self.r} on {'all-linear' if self.named is None else ', '.join(self.named)}"


class IA3(LayerAdapter):
    """IA³ (arXiv:2205.05638): a vector for each target layer is trained and travels; what leaves the layer is multiplied by
    it, or, where the layer ends a feed-forward block, what enters.
    """

    type: Literal["ia3"] = "ia3"
    target_modules: Annotated[
        _Names | None,
        Field(
            description="Linear layers of a block that get a vector, by the end of their names; null: those that make keys "
            "and values, and those that end a feed-forward block."
        ),
    ] = None

    def usual(self, model: Model) -> tuple[str, ...]:
        return (*model.key_value_layers, *model.feed_forward_ends)

    def scaled_before(self, model: Model) -> tuple[str, ...]:
        """Those of its layers whose input is multiplied, not their output."""
        return tuple(path for path in self.targets(model) if path in model.feed_forward_ends)

    @property
    def words(self) -> str:
        named = self.named
        return f"{self.type} on {'keys, values and feed-forward' if named is None else ', '.join(named)}"


class VirtualTokens(AdapterSection):
    """Base of those that stand before each text."""

    num_virtual_tokens: _VirtualTokens = 16

    @property
    def virtual_tokens(self) -> int:
        return self.num_virtual_tokens

    @property
    def words(self) -> str:
        return f"{self.type}, {self.num_virtual_tokens} virtual tokens"


class PromptTuning(VirtualTokens):
    """Prompt tuning (arXiv:2104.08691): virtual tokens before each text, whose embeddings alone are trained and travel."""

    type: Literal["prompt-tuning"] = "prompt-tuning"


class PrefixTuning(VirtualTokens):
    """Prefix tuning (arXiv:2101.00190): virtual tokens before each text, whose keys and values in every block are trained and
    travel.
    """

    type: Literal["prefix-tuning"] = "prefix-tuning"
    prefix_projection: Annotated[
        bool,
        Field(
            description="Train a network of two layers that makes them from embeddings: steadier, as in the paper, and far "
            "more numbers travel."
        ),
    ] = False
    encoder_hidden_size: Annotated[
        int | None, Field(ge=1, le=MAX_WIDTH, description="Width inside that network; null: the model's.")
    ] = None

    @model_validator(mode="after")
    def _width_is_of_a_network(self) -> PrefixTuning:
        if self.encoder_hidden_size is not None and not self.prefix_projection:
            raise ValueError("encoder_hidden_size needs prefix_projection: true, without it there is no network")
        return self


class PTuning(VirtualTokens):
    """P-tuning (arXiv:2103.10385): virtual tokens before each text, made from embeddings by a small network; both are trained
    and travel.
    """

    type: Literal["p-tuning"] = "p-tuning"
    encoder_reparameterization_type: Annotated[
        Literal["MLP", "LSTM"],
        Field(description="The network: three layers for each token, or an LSTM over all of them and two layers."),
    ] = "MLP"
    encoder_hidden_size: Annotated[
        int | None, Field(ge=1, le=MAX_WIDTH, description="Width inside the network; null: the model's.")
    ] = None
    encoder_num_layers: Annotated[int, Field(ge=1, le=16, description="Layers of the LSTM.")] = 2
    encoder_dropout: Annotated[Number, Field(ge=0, lt=1, description="Dropout between layers of the LSTM.")] = Decimal(
        0
    )

    @model_validator(mode="after")
    def _layers_are_of_an_lstm(self) -> PTuning:
        if self.encoder_reparameterization_type == "MLP" and (self.encoder_num_layers != 2 or self.encoder_dropout):
            raise ValueError(
                "encoder_num_layers and encoder_dropout are of encoder_reparameterization_type LSTM, got MLP: leave them out"
            )
        if self.encoder_dropout and self.encoder_num_layers == 1:
            raise ValueError(
                "encoder_dropout is between layers of the LSTM, and encoder_num_layers is 1: leave one out"
            )
        return self


def _ends(path: str, name: str) -> bool:
    """Whether `name` is the end of a dotted path, whole parts of it."""
    return path == name or path.endswith(f".{name}")


# No validator before these: after one pydantic reads JSON's lists as Python's, which are no tuples, and refuses statements.
Adapter = Annotated[NoAdapter | LoRA | IA3 | PromptTuning | PrefixTuning | PTuning, Field(discriminator="type")]


def adapter_types(sections: Iterable[type[AdapterSection]]) -> str:
    """Their types, as a sentence names them."""
    return " or ".join(section.model_fields["type"].default for section in sections)
