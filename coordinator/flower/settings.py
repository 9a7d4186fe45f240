"""The section `aggregation.flower` of coordinator.yaml."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Argument = bool | int | float | str


class FlowerSettings(BaseModel):
    """A strategy of flwr.serverapp.strategy, which combines the rounds of plans whose rule is `operator`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9]{0,99}$", description="Its name, as FedTrimmedAvg.")]
    arguments: Annotated[dict[str, Argument], Field(description="Of the strategy's constructor, by name.")] = {}
    max_bytes: Annotated[
        int,
        Field(ge=1, description="Rounds that would need more memory are abandoned: Flower holds every model at once."),
    ] = 2**30


class AggregationSettings(BaseModel):
    """What combines rounds besides the plans' own rules."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    flower: FlowerSettings | None = None
