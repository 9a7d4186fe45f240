"""A plan's task section → its objective."""

from __future__ import annotations

from common.plan.tasks import Task
from llmasos.tasks.base import Objective
from llmasos.tasks.causal_lm import NextToken


def objective_of(task: Task) -> Objective:
    """The loss that the plan's task names."""
    return {"causal-lm": NextToken}[task.type]()
