"""The plan's `task`: what the model learns from an institution's text."""

from __future__ import annotations

from typing import Literal

from common.plan.fields import PlanSection


class CausalLM(PlanSection):
    """Predict the next token."""

    type: Literal["causal-lm"] = "causal-lm"


Task = CausalLM
