"""The plan's `local` and `evaluation`: an institution's work in a round, and what every model is measured on."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field, model_validator

from common.plan.fields import Number, PlanSection
from common.plan.local_optimizers import SGD, AdamW, LocalOptimizer
from common.plan.schedules import CosineSchedule, Schedule

MAX_NUM_TOKENS = 2**29 - 1
"""Weights stay below 2^29, so that weight × float32 is exact in float64 (docs/protocol.md#arithmetic)."""


class NoCorrection(PlanSection):
    """Gradients are each institution's own."""

    type: Literal["none"] = "none"


class Scaffold(PlanSection):
    """SCAFFOLD (arXiv:1910.06378), option II: steps are turned by how the institutions' mean gradient differs from one's own.

    Each institution keeps a control variate, its mean gradient of the last round, and sends by how much it changed.
    """

    type: Literal["scaffold"] = "scaffold"
    max_control_l2: Annotated[
        Number, Field(gt=0, description="Longer changes of a control variate are refused; same unit as gradients.")
    ] = Decimal(1000)


class Local(PlanSection):
    """One institution's work in a round."""

    steps: Annotated[int, Field(ge=1, le=1_000_000, description="Optimizer steps a round.")] = 25
    batch_size: Annotated[int, Field(ge=1, le=65536, description="Sequences a step.")] = 8
    micro_batch_size: Annotated[
        int | None,
        Field(ge=1, description="Sequences at once on the device; the rest accumulates. Default: batch_size."),
    ] = None
    sequence_length: Annotated[int, Field(ge=8, le=131072, description="Tokens a sequence.")] = 128
    optimizer: LocalOptimizer = AdamW()
    schedule: Schedule = CosineSchedule()
    max_gradient_norm: Annotated[
        Number, Field(gt=0, description="Gradients with a longer L2 norm are scaled down to it.")
    ] = Decimal(1)
    fedprox_mu: Annotated[
        Number,
        Field(
            ge=0,
            le=1000,
            description="FedProx (arXiv:1812.06127): mu × (weights − base model) is added to the gradient, so that no "
            "institution drifts far in a round; 0: nothing is.",
        ),
    ] = Decimal(0)
    correction: Annotated[NoCorrection | Scaffold, Field(discriminator="type")] = NoCorrection()
    optimizer_state: Annotated[
        Literal["keep", "reset"], Field(description="Whether the local optimizer's moments live on across rounds.")
    ] = "keep"
    precision: Annotated[
        Literal["float32", "bfloat16"],
        Field(description="bfloat16: autocast where the device has it, recorded if not."),
    ] = "float32"
    gradient_checkpointing: Annotated[
        bool,
        Field(
            description="Keep each layer's input alone for the backward pass and compute the rest again: less memory, a "
            "third more time, the same numbers (arXiv:1604.06174)."
        ),
    ] = False
    compile: Annotated[
        bool, Field(description="Train through torch.compile where the machine can; where it cannot, that is recorded.")
    ] = False

    @property
    def tokens_per_round(self) -> int:
        """What num_tokens may be at most."""
        return self.steps * self.batch_size * self.sequence_length

    @model_validator(mode="after")
    def _weight_stays_exact(self) -> Local:
        if self.tokens_per_round > MAX_NUM_TOKENS:
            raise ValueError(
                f"steps × batch_size × sequence_length is {self.tokens_per_round:,}, at most {MAX_NUM_TOKENS:,} a round"
            )
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError("micro_batch_size must divide batch_size")
        return self

    @model_validator(mode="after")
    def _correction_knows_the_gradients(self) -> Local:
        """Option II takes the round's mean gradient from how far the weights went."""
        if not isinstance(self.correction, Scaffold):
            return self
        if not isinstance(self.optimizer, SGD):
            raise ValueError(f"local.correction scaffold needs local.optimizer sgd, got {self.optimizer.type}")
        if self.optimizer.momentum:
            raise ValueError(
                f"local.correction scaffold needs local.optimizer sgd without momentum, got {self.optimizer.momentum}"
            )
        if self.fedprox_mu:
            raise ValueError(
                f"local.correction scaffold needs local.fedprox_mu 0, got {self.fedprox_mu}: use one of the two"
            )
        if getattr(self.schedule, "final_fraction", 1) == 0:
            raise ValueError(
                "local.correction scaffold needs local.schedule.final_fraction above 0, got 0: the change of a round is "
                "divided by its learning rates"
            )
        return self


class Evaluation(PlanSection):
    """Every institution measures every global model on its own held-out documents."""

    held_out_fraction: Annotated[Number, Field(gt=0, lt=1, description="Share of documents kept out of training.")] = (
        Decimal("0.1")
    )
    max_tokens: Annotated[int, Field(ge=1, le=10**9, description="At most so many held-out tokens a measurement.")] = (
        16384
    )
