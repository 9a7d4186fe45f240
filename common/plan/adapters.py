"""The plan's `adapter`: whether all of the model is trained, or small tensors beside it."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field, model_validator

from common.plan.architectures import Model
from common.plan.fields import Number, PlanSection


class NoAdapter(PlanSection):
    """Every tensor of the model is trained."""

    type: Literal["none"] = "none"


class LoRA(PlanSection):
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
        Literal["all-linear"] | Annotated[tuple[Annotated[str, Field(max_length=100)], ...], Field(min_length=1)],
        Field(
            description="Linear layers of a block that get an adapter, by the end of their names, as in [q_proj, v_proj]; "
            "all-linear: each of them."
        ),
    ] = "all-linear"

    use_rslora: Annotated[
        bool, Field(description="Scale by lora_alpha / √r instead, which suits large r (arXiv:2312.03732).")
    ] = False

    @model_validator(mode="after")
    def _names_are_distinct(self) -> LoRA:
        if isinstance(self.target_modules, tuple) and len(set(self.target_modules)) != len(self.target_modules):
            raise ValueError("target_modules names a layer twice")
        return self

    def targets(self, model: Model) -> tuple[str, ...]:
        """The linear layers of a block of `model` that get an adapter, by their path in it."""
        if isinstance(self.target_modules, str):
            return model.linear_layers
        return tuple(path for path in model.linear_layers if any(_ends(path, name) for name in self.target_modules))

    def unknown(self, model: Model) -> tuple[str, ...]:
        """What target_modules names and a block of `model` has not."""
        if isinstance(self.target_modules, str):
            return ()
        return tuple(name for name in self.target_modules if not any(_ends(path, name) for path in model.linear_layers))


class PromptTuning(PlanSection):
    """Prompt tuning (arXiv:2104.08691): virtual tokens before each text, whose embeddings alone are trained and travel."""

    type: Literal["prompt-tuning"] = "prompt-tuning"
    num_virtual_tokens: Annotated[
        int, Field(ge=1, le=4096, description="How many; they and a sequence must fit into the model's context.")
    ] = 16


def _ends(path: str, name: str) -> bool:
    """Whether `name` is the end of a dotted path, whole parts of it."""
    return path == name or path.endswith(f".{name}")


Adapter = Annotated[NoAdapter | LoRA | PromptTuning, Field(discriminator="type")]
