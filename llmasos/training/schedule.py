"""The learning rate as a pure function of the global step.

The global step counts all local steps of the run: trained rounds × steps a round + step in the round. So a restarted worker,
and a baseline that trains without rounds, follow the same curve.
"""

from __future__ import annotations

import math

from common.plan.local import CosineSchedule, Local
from common.plan.model import Plan


def total_steps(plan: Plan) -> int:
    """Local steps of one institution that trains in every round."""
    return plan.rounds * plan.local.steps


def total_rate(local: Local, *, first_step: int, steps: int, total: int) -> float:
    """The sum of the rates of so many steps from a global step on: SCAFFOLD's K × lr, where the rate changes."""
    return math.fsum(learning_rate(local, global_step=first_step + step, total=total) for step in range(steps))


def learning_rate(local: Local, *, global_step: int, total: int) -> float:
    """The rate of step `global_step`, counted from 0, of `total`.

    Warm-up is linear and reaches the full rate at step `warmup_steps`; its first step is already above 0. Beyond `total` the
    last rate stays, since an institution may train in rounds that came after abandoned ones.

    Source: Loshchilov and Hutter, arXiv:1608.03983 (cosine).
    """
    peak = float(local.optimizer.learning_rate)
    warmup = local.schedule.warmup_steps
    if global_step < warmup:
        return peak * (global_step + 1) / (warmup + 1)
    if not isinstance(local.schedule, CosineSchedule):
        return peak
    final = float(local.schedule.final_fraction)
    progress = min(1.0, (global_step - warmup) / max(1, total - warmup - 1))
    return peak * (final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * progress)))
