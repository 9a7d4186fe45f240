"""The learning rate as a pure function of the global step.

The global step counts all local steps of the run: trained rounds × steps a round + step in the round. So a restarted worker,
and a baseline that trains without rounds, follow the same curve.
"""

from __future__ import annotations

import math

from common.plan.local import Local
from common.plan.model import Plan
from common.plan.schedules import (
    ConstantSchedule,
    CosineSchedule,
    InverseSqrtSchedule,
    LinearSchedule,
    NoamSchedule,
    WarmupStableDecaySchedule,
)

Over = ConstantSchedule | CosineSchedule | LinearSchedule | WarmupStableDecaySchedule
"""Those that have an end."""


def total_steps(plan: Plan) -> int:
    """Local steps of one institution that trains in every round."""
    return plan.rounds * plan.local.steps


def total_rate(local: Local, *, first_step: int, steps: int, total: int) -> float:
    """The sum of the rates of so many steps from a global step on: SCAFFOLD's K × lr, where the rate changes."""
    return math.fsum(learning_rate(local, global_step=first_step + step, total=total) for step in range(steps))


def learning_rate(local: Local, *, global_step: int, total: int) -> float:
    """The rate of step `global_step`, counted from 0, of `total`.

    Warm-up is linear and reaches the full rate at step `warmup_steps`; its first step is already above 0. Beyond `total` the
    last rate stays, since an institution may train in rounds that came after abandoned ones; but a rate that does not depend
    on the run's length goes on falling.

    Sources: Loshchilov and Hutter, arXiv:1608.03983 (cosine); Hu et al., arXiv:2404.06395 (warm-up, stable, decay); Vaswani
    et al., arXiv:1706.03762, section 5.3 (noam).
    """
    peak, schedule = float(local.optimizer.learning_rate), local.schedule
    if isinstance(schedule, NoamSchedule):
        step, warmup = global_step + 1, schedule.warmup_steps
        return float(peak * schedule.d_model**-0.5 * min(step**-0.5, step * warmup**-1.5))
    if global_step < schedule.warmup_steps:
        return peak * (global_step + 1) / (schedule.warmup_steps + 1)
    if isinstance(schedule, InverseSqrtSchedule):
        return peak * math.sqrt((schedule.warmup_steps + 1) / (global_step + 1))
    return peak * _share(schedule, global_step, total)


def _share(schedule: Over, step: int, total: int) -> float:
    """Of the highest rate, after warm-up."""
    match schedule:
        case ConstantSchedule():
            return 1.0
        case CosineSchedule():
            progress, final = _progress(step, schedule.warmup_steps, total), float(schedule.final_fraction)
            return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * progress))
        case LinearSchedule():
            first = schedule.warmup_steps
        case WarmupStableDecaySchedule():
            first = max(schedule.warmup_steps, total - math.ceil(total * float(schedule.decay_fraction)) - 1)
    if step < first:
        return 1.0
    return 1.0 - (1.0 - float(schedule.final_fraction)) * _progress(step, first, total)


def _progress(step: int, first: int, total: int) -> float:
    """From 0 at step `first` to 1 at the last one."""
    return min(1.0, (step - first) / max(1, total - first - 1))
