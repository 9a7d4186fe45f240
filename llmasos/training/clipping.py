"""Gradients that are too long made shorter, wherever ranks have them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn.utils import clip_grad_norm_, clip_grads_with_norm_, get_total_norm

from llmasos.models.sharding import is_distributed, is_own, whole
from llmasos.training.ranks import Ranks


def clip_gradients(parameters: Sequence[torch.nn.Parameter], max_norm: float, ranks: Ranks) -> float:
    """Scale all gradients so that the L2 norm of all of them together is at most `max_norm`; the norm they had.

    Of a weight that is shared out all parts count, and each weight once; ranks wait for each other here.

    Source: Pascanu et al., arXiv:1211.5063.
    """
    if ranks.sharding == "pipeline":
        own = [weight.grad for weight in parameters if weight.grad is not None and is_own(weight)]
        (squares,) = ranks.total(float(get_total_norm(own)) ** 2)
        norm = torch.tensor(math.sqrt(squares))
        clip_grads_with_norm_(parameters, max_norm, norm)
        return float(norm)
    kinds = [[weight for weight in parameters if is_distributed(weight) is kind] for kind in (True, False)]
    if not all(kinds):
        return float(whole(clip_grad_norm_(parameters, max_norm)))
    norms = [whole(get_total_norm([weight.grad for weight in some if weight.grad is not None])) for some in kinds]
    norm = torch.linalg.vector_norm(torch.stack(norms))
    for some in kinds:
        clip_grads_with_norm_(some, max_norm, norm)
    return float(norm)
