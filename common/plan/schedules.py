"""The plan's `local.schedule`: the learning rate over all local steps of the run."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field

from common.plan.fields import Number, PlanSection

_Warmup = Annotated[int, Field(ge=0, description="Steps from 0 up to the learning rate.")]
_Final = Annotated[Number, Field(ge=0, le=1, description="Learning rate at the last step, as a share of the highest.")]


class CosineSchedule(PlanSection):
    """Linear warm-up, then cosine down to `final_fraction` of the learning rate, over all local steps of the run."""

    type: Literal["cosine"] = "cosine"
    warmup_steps: _Warmup = 10
    final_fraction: _Final = Decimal("0.1")


class ConstantSchedule(PlanSection):
    """Linear warm-up, then the learning rate itself."""

    type: Literal["constant"] = "constant"
    warmup_steps: _Warmup = 10


class LinearSchedule(PlanSection):
    """Linear warm-up, then straight down to `final_fraction` of the learning rate, over all local steps of the run."""

    type: Literal["linear"] = "linear"
    warmup_steps: _Warmup = 10
    final_fraction: _Final = Decimal("0.1")


class WarmupStableDecaySchedule(PlanSection):
    """Linear warm-up, then the learning rate itself, and in the last steps straight down to `final_fraction` of it.

    Source: Hu et al., arXiv:2404.06395.
    """

    type: Literal["warmup-stable-decay"] = "warmup-stable-decay"
    warmup_steps: _Warmup = 10
    decay_fraction: Annotated[Number, Field(gt=0, le=1, description="Share of all local steps in which it falls.")] = (
        Decimal("0.2")
    )
    final_fraction: _Final = Decimal("0.1")


class InverseSqrtSchedule(PlanSection):
    """Linear warm-up, then down with the inverse square root of the step; it does not depend on how long the run is."""

    type: Literal["inverse-sqrt"] = "inverse-sqrt"
    warmup_steps: Annotated[int, Field(ge=1, description="Steps from 0 up to the learning rate.")] = 10


class NoamSchedule(PlanSection):
    """learning_rate × d_model^-0.5 × min(step^-0.5, step × warmup_steps^-1.5): the 2017 Transformer's (arXiv:1706.03762).

    The optimizer's learning_rate is a factor here, 1 in the paper, and not the highest rate.
    """

    type: Literal["noam"] = "noam"
    warmup_steps: Annotated[int, Field(ge=1, description="Steps up to the highest rate.")] = 4000
    d_model: Annotated[int, Field(ge=1, le=1_000_000, description="Width of the model that the rate is made for.")] = (
        512
    )


Schedule = Annotated[
    CosineSchedule | ConstantSchedule | LinearSchedule | WarmupStableDecaySchedule | InverseSqrtSchedule | NoamSchedule,
    Field(discriminator="type"),
]
