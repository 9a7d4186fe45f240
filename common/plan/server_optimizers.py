"""The plan's `server_optimizer`: from the combined delta to the new model."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from common.plan.fields import Number, PlanSection

_Rate = Annotated[Number, Field(gt=0, le=100)]
_Decay = Annotated[Number, Field(ge=0, le=Decimal("0.9999"))]
"""Well below 1: in float64 and in float32 what is left of 1 is not 0."""
_Added = Annotated[Number, Field(ge=Decimal("0.000000000001"), le=1)]
"""In float32 it is not 0."""


class ServerStep(PlanSection):
    """Base of all server optimizers. What they keep from round to round is in the round's server_state."""

    type: str

    scalars: ClassVar[tuple[str, ...]] = ()
    """Numbers of the whole model, float64."""
    slots: ClassVar[tuple[str, ...]] = ()
    """Numbers of each trainable element, float32."""


class ServerSGD(ServerStep):
    """new = base + learning_rate × mean delta; 1 is FedAvg."""

    type: Literal["sgd"] = "sgd"
    learning_rate: Annotated[_Rate, Field(description="How much of the mean delta is applied; 1 is FedAvg.")] = Decimal(
        1
    )


class ServerMomentum(ServerStep):
    """SGD with momentum: learning_rate × the sum of all mean deltas, older ones decayed. FedAvgM (arXiv:1909.06335)."""

    slots: ClassVar[tuple[str, ...]] = ("momentum",)

    type: Literal["momentum"] = "momentum"
    learning_rate: Annotated[
        _Rate, Field(description="How much of the momentum is applied; of steady deltas, ÷ (1 − momentum).")
    ] = Decimal("0.3")
    momentum: Annotated[_Decay, Field(description="What is left of earlier deltas after each round.")] = Decimal("0.9")


class ServerNesterov(ServerStep):
    """SGD with Nesterov momentum: DiLoCo's outer optimizer with its defaults (arXiv:2311.08105)."""

    slots: ClassVar[tuple[str, ...]] = ("momentum",)

    type: Literal["nesterov"] = "nesterov"
    learning_rate: Annotated[_Rate, Field(description="How much of mean delta and momentum is applied.")] = Decimal(
        "0.7"
    )
    momentum: Annotated[_Decay, Field(description="What is left of earlier deltas after each round.")] = Decimal("0.9")


class _ServerAdam(ServerStep):
    scalars: ClassVar[tuple[str, ...]] = ("beta1_power", "beta2_power")
    slots: ClassVar[tuple[str, ...]] = ("mean", "square")

    learning_rate: Annotated[_Rate, Field(description="About the longest step of an element in a round.")] = Decimal(
        "0.01"
    )
    beta1: Annotated[_Decay, Field(description="Decay of the deltas' mean.")] = Decimal("0.9")
    beta2: Annotated[_Decay, Field(description="Decay of the squared deltas' mean.")] = Decimal("0.99")
    epsilon: Annotated[
        _Added, Field(description="Added to the denominator; deltas far below it are hardly adapted.")
    ] = Decimal("0.001")
    bias_correction: Annotated[
        bool, Field(description="Whether both means are of the rounds so far alone, as in torch, or start from zeros.")
    ] = True


class ServerAdam(_ServerAdam):
    """Adam over mean deltas, torch's formula; with bias_correction: false FedAdam (arXiv:2003.00295), epsilon its tau."""

    type: Literal["adam"] = "adam"


class ServerAdamW(_ServerAdam):
    """Adam, and each round takes learning_rate × weight_decay off every weight (arXiv:1711.05101), torch's formula."""

    type: Literal["adamw"] = "adamw"
    weight_decay: Annotated[
        Number, Field(ge=0, le=10, description="Share of a weight that decays a round, × learning_rate.")
    ] = Decimal("0.01")


class ServerYogi(ServerStep):
    """FedYogi (arXiv:2003.00295): as Adam without bias correction, but the squares' mean changes by additions alone."""

    slots: ClassVar[tuple[str, ...]] = ("mean", "square")

    type: Literal["yogi"] = "yogi"
    learning_rate: Annotated[_Rate, Field(description="About the longest step of an element in a round.")] = Decimal(
        "0.01"
    )
    beta1: Annotated[_Decay, Field(description="Decay of the deltas' mean.")] = Decimal("0.9")
    beta2: Annotated[_Decay, Field(description="1 − beta2 is how fast the squares' mean follows.")] = Decimal("0.99")
    tau: Annotated[_Added, Field(description="Added to the denominator; deltas far below it are hardly adapted.")] = (
        Decimal("0.001")
    )
    initial_square: Annotated[
        Number, Field(ge=0, le=1, description="Where the squares' mean starts; the paper's: at least tau².")
    ] = Decimal("0.000001")


class ServerAdagrad(ServerStep):
    """FedAdagrad (arXiv:2003.00295) without momentum, as torch's Adagrad: steps shorten where deltas were long so far."""

    slots: ClassVar[tuple[str, ...]] = ("square",)

    type: Literal["adagrad"] = "adagrad"
    learning_rate: Annotated[_Rate, Field(description="About the first step of an element.")] = Decimal("0.01")
    tau: Annotated[_Added, Field(description="Added to the denominator; deltas far below it are hardly adapted.")] = (
        Decimal("0.001")
    )
    initial_square: Annotated[
        Number, Field(ge=0, le=1, description="Where the sum of squares starts; the paper's: at least tau².")
    ] = Decimal("0.000001")


ServerOptimizer = Annotated[
    ServerSGD | ServerMomentum | ServerNesterov | ServerAdam | ServerAdamW | ServerYogi | ServerAdagrad,
    Field(discriminator="type"),
]
