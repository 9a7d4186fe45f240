"""A plan's local optimizer as torch's, and what it keeps of each weight from step to step."""

from __future__ import annotations

import torch

from common.plan.local import SGD, AdamW


def optimizer_of(plan: AdamW | SGD, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    if isinstance(plan, SGD):
        return torch.optim.SGD(
            parameters,
            lr=float(plan.learning_rate),
            momentum=float(plan.momentum),
            weight_decay=float(plan.weight_decay),
            fused=True,
        )
    return torch.optim.AdamW(
        parameters,
        lr=float(plan.learning_rate),
        betas=(float(plan.beta1), float(plan.beta2)),
        eps=float(plan.epsilon),
        weight_decay=float(plan.weight_decay),
        fused=True,
    )


def moments_of(plan: AdamW | SGD) -> tuple[str, ...]:
    """What torch's optimizer keeps of each weight; all but `step` have the weight's shape."""
    if isinstance(plan, SGD):
        return ("momentum_buffer",) if plan.momentum else ()
    return ("step", "exp_avg", "exp_avg_sq")
