"""The arguments of `fit` as the plan that they amount to, so that a local run and a federation train by the same rules.

plan = plan_of(Settings(steps=100, batch_size=8, …), model=section, task={"type": "causal-lm"})
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from common import validation
from common.errors import InvalidConfiguration
from common.plan.local import MAX_NUM_TOKENS
from common.plan.model import Plan
from llmasos.language_model.settings import TrainingSettings

M = TypeVar("M", bound=BaseModel)

_MAX_STEPS_A_ROUND = 1_000_000
_WARMUP_SHARE = 20
_ALWAYS_WARM = ("inverse-sqrt", "noam")
"""Schedules that begin with at least one step of warm-up."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What `fit` was asked for, its lengths in steps."""

    steps: int
    batch_size: int
    sequence_length: int
    optimizer: Mapping[str, Any]
    seed: int = 0
    training: TrainingSettings = field(default_factory=TrainingSettings)


def plan_of(
    settings: Settings, *, model: BaseModel, task: Mapping[str, Any], adapter: BaseModel | None = None, who: str = "fit"
) -> Plan:
    """A plan that nobody signs: this model, this task, these steps. A round's tokens are bounded, so long fits have several.

    Args:
        who: begins what is said of a wrong value.

    Raises:
        InvalidConfiguration: a value is out of range, or two do not go together; names it.
    """
    rounds, training = _rounds(settings), settings.training
    data: dict[str, Any] = {
        "apiVersion": "llmasos/v1",
        "name": "fit",
        "seed": settings.seed,
        "task": dict(task),
        "model": model.model_dump(mode="json"),
        "adapter": {"type": "none"} if adapter is None else adapter.model_dump(mode="json"),
        "local": {
            "steps": math.ceil(settings.steps / rounds),
            "batch_size": settings.batch_size,
            "micro_batch_size": training.micro_batch_size,
            "sequence_length": settings.sequence_length,
            "optimizer": dict(settings.optimizer),
            "schedule": _schedule(settings),
            "max_gradient_norm": training.max_grad_norm,
            "precision": training.precision,
            "gradient_checkpointing": training.gradient_checkpointing,
            "compile": training.compile,
        },
        "evaluation": {"max_tokens": 10**9},
        "rounds": rounds,
    }
    return parsed(Plan, data, who)


def parsed(model: type[M], data: Mapping[str, Any], who: str, fix: str | None = None) -> M:
    """`data` as a `model`.

    Raises:
        InvalidConfiguration: says of what field, what was expected and what came; `who` begins the sentence.
    """
    try:
        return model.model_validate(data)
    except ValidationError as err:
        problems = validation.explain(err, model, data, lambda path: who)
        raise InvalidConfiguration("; ".join(problems), fix or f"help(llmasos.models) says what {who} takes.") from err


def _rounds(settings: Settings) -> int:
    tokens = max(1, settings.batch_size * settings.sequence_length)
    return max(1, math.ceil(settings.steps / max(1, min(_MAX_STEPS_A_ROUND, MAX_NUM_TOKENS // tokens))))


def _schedule(settings: Settings) -> dict[str, Any]:
    """A name, or a mapping with the fields of a plan's `local.schedule`."""
    schedule, given = settings.training.schedule, settings.training.warmup_steps
    named = {"type": schedule} if isinstance(schedule, str) else dict(schedule)
    least = 1 if named.get("type") in _ALWAYS_WARM else 0
    warmup = max(least, settings.steps // _WARMUP_SHARE) if given is None else given
    return {"warmup_steps": warmup} | named
