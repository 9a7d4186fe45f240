"""The plan's `task`: what the model learns from an institution's data."""

from __future__ import annotations

from typing import ClassVar, Literal

from common.plan.fields import PlanSection


class TaskSection(PlanSection):
    """Base of every task's section."""

    type: str
    head: ClassVar[str]
    """What the model must end in, as an architecture's `heads` names it."""

    @property
    def num_labels(self) -> int | None:
        """How many classes the head tells apart; None where it predicts tokens or places."""
        return None


class CausalLM(TaskSection):
    """Predict the next token."""

    type: Literal["causal-lm"] = "causal-lm"
    head: ClassVar[str] = "causal-lm"


Task = CausalLM
