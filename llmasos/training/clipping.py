"""Gradients that are too long made shorter, also where ranks share out some weights and not others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.utils import clip_grad_norm_, clip_grads_with_norm_, get_total_norm

from llmasos.models.sharding import is_distributed, whole


def clip_gradients(parameters: Sequence[torch.nn.Parameter], max_norm: float) -> float:
    """Scale all gradients so that the L2 norm of all of them together is at most `max_norm`; the norm they had.

    Of a weight that is shared out all parts count; ranks wait for each other here.

    Source: Pascanu et al., arXiv:1211.5063.
    """
    kinds = [[weight for weight in parameters if is_distributed(weight) is kind] for kind in (True, False)]
    if not all(kinds):
        return float(whole(clip_grad_norm_(parameters, max_norm)))
    norms = [whole(get_total_norm([weight.grad for weight in some if weight.grad is not None])) for some in kinds]
    norm = torch.linalg.vector_norm(torch.stack(norms))
    for some in kinds:
        clip_grads_with_norm_(some, max_norm, norm)
    return float(norm)
