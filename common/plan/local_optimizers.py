"""The plan's `local.optimizer`: torch's optimizers by name, with torch's semantics."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from common.plan.fields import Number, PlanSection

_Rate = Annotated[Number, Field(gt=0, le=10, description="Highest local learning rate.")]
_Beta1 = Annotated[Number, Field(ge=0, lt=1, description="Decay of the gradient's mean.")]
_Beta2 = Annotated[Number, Field(ge=0, lt=1, description="Decay of the squared gradient's mean.")]
_Epsilon = Annotated[Number, Field(gt=0, le=1, description="Added to the denominator.")]
_Decoupled = Annotated[Number, Field(ge=0, le=10, description="Decoupled from the gradient.")]


class AdamW(PlanSection):
    """AdamW (arXiv:1711.05101), torch's semantics."""

    type: Literal["adamw"] = "adamw"
    learning_rate: _Rate = Decimal("0.002")
    beta1: _Beta1 = Decimal("0.9")
    beta2: _Beta2 = Decimal("0.95")
    epsilon: _Epsilon = Decimal("0.00000001")
    weight_decay: _Decoupled = Decimal("0.1")

    @property
    def moments_a_weight(self) -> int:
        """How many numbers of each weight it keeps from step to step, at most."""
        return 2


class Adam(PlanSection):
    """Adam (arXiv:1412.6980) with the paper's defaults, torch's semantics."""

    type: Literal["adam"] = "adam"
    learning_rate: _Rate = Decimal("0.001")
    beta1: _Beta1 = Decimal("0.9")
    beta2: _Beta2 = Decimal("0.999")
    epsilon: _Epsilon = Decimal("0.00000001")
    weight_decay: Annotated[Number, Field(ge=0, le=10, description="weight_decay × weight joins the gradient.")] = (
        Decimal(0)
    )

    @property
    def moments_a_weight(self) -> int:
        """How many numbers of each weight it keeps from step to step, at most."""
        return 2


class SGD(PlanSection):
    """Stochastic gradient descent, torch's semantics; what SCAFFOLD asks for, without momentum."""

    type: Literal["sgd"] = "sgd"
    learning_rate: Annotated[Number, Field(gt=0, le=100, description="Highest local learning rate.")] = Decimal("0.1")
    momentum: Annotated[Number, Field(ge=0, lt=1, description="What is left of earlier steps; 0: nothing is kept.")] = (
        Decimal(0)
    )
    weight_decay: Annotated[Number, Field(ge=0, le=10, description="weight_decay × weight joins the gradient.")] = (
        Decimal(0)
    )

    @property
    def moments_a_weight(self) -> int:
        """How many numbers of each weight it keeps from step to step, at most."""
        return 1 if self.momentum else 0


class Adafactor(PlanSection):
    """Adafactor (arXiv:1804.04235), torch's semantics: of a matrix it keeps one number a row and one a column.

    A step is at most min(learning rate, 1 ÷ sqrt(step)) × the weights' root mean square.
    """

    type: Literal["adafactor"] = "adafactor"
    learning_rate: _Rate = Decimal("0.01")
    beta2_decay: Annotated[
        Number, Field(ge=-1, lt=0, description="At step t the squared gradient's mean decays by 1 − t^beta2_decay.")
    ] = Decimal("-0.8")
    epsilon: Annotated[
        Number, Field(gt=0, le=1, description="Least root mean square of weights that steps are scaled by.")
    ] = Decimal("0.001")
    clip_threshold: Annotated[
        Number, Field(ge=1, le=1000, description="Highest root mean square of a step before it is scaled.")
    ] = Decimal(1)
    weight_decay: _Decoupled = Decimal(0)

    @property
    def moments_a_weight(self) -> int:
        """How many numbers of each weight it keeps from step to step, at most: of a vector one, of a matrix far fewer."""
        return 1


class Muon(PlanSection):
    """Muon (arXiv:2502.16982), torch's semantics: matrices of hidden layers by orthogonalised momentum, the rest by AdamW.

    The rest is embeddings, the head and whatever is no matrix. Muon's steps are scaled to AdamW's root mean square, so that
    both share learning rate and weight decay.
    """

    type: Literal["muon"] = "muon"
    learning_rate: _Rate = Decimal("0.002")
    momentum: Annotated[Number, Field(ge=0, lt=1, description="Decay of a matrix's mean gradient.")] = Decimal("0.95")
    beta1: _Beta1 = Decimal("0.9")
    beta2: _Beta2 = Decimal("0.95")
    epsilon: _Epsilon = Decimal("0.00000001")
    weight_decay: _Decoupled = Decimal("0.1")

    @property
    def moments_a_weight(self) -> int:
        """How many numbers of each weight it keeps from step to step, at most: of a matrix one, of the rest two."""
        return 2


def _type(section: object) -> object:
    """Plans of before there was a choice say no type."""
    return section.get("type", "adamw") if isinstance(section, dict) else getattr(section, "type", None)


LocalOptimizer = Annotated[
    Annotated[AdamW, Tag("adamw")]
    | Annotated[Adam, Tag("adam")]
    | Annotated[SGD, Tag("sgd")]
    | Annotated[Adafactor, Tag("adafactor")]
    | Annotated[Muon, Tag("muon")],
    Discriminator(_type),
]
