"""Local optimizers under torch's names, for `model.fit`; each stands for a plan's `local.optimizer`.

    model.fit(data.train, llmasos.optimizers.Adam(lr=3e-4))
    llmasos.optimizers.AdamW().section()       # {"type": "adamw", "learning_rate": 0.001, …}: as a plan says it

Names, defaults and arithmetic are those of torch.optim; the parameters are the model's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class Optimizer(Protocol):
    """What `fit` takes: something that a plan's `local.optimizer` can be made of."""

    def section(self) -> Mapping[str, Any]:
        """The fields of `local.optimizer`, `type` among them."""
        ...


@dataclass(frozen=True, slots=True)
class AdamW:
    """AdamW, torch.optim.AdamW: weight decay apart from the gradient.

    Args:
        lr: highest learning rate, above 0; the schedule starts and may end below it.
        betas: decay of the gradient's mean and of its squares' mean, each in [0, 1).
        eps: added to the denominator.
        weight_decay: share of the weight, times the learning rate, taken off in each step.

    Source: Loshchilov and Hutter, arXiv:1711.05101.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 1e-2

    def section(self) -> Mapping[str, Any]:
        """The fields of a plan's `local.optimizer`."""
        return {"type": "adamw", **_adam(self.lr, self.betas, self.eps), "weight_decay": self.weight_decay}


@dataclass(frozen=True, slots=True)
class Adam:
    """Adam, torch.optim.Adam.

    Args:
        lr, betas, eps: as AdamW.
        weight_decay: weight_decay × weight joins the gradient.

    Source: Kingma and Ba, arXiv:1412.6980.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def section(self) -> Mapping[str, Any]:
        """The fields of a plan's `local.optimizer`."""
        return {"type": "adam", **_adam(self.lr, self.betas, self.eps), "weight_decay": self.weight_decay}


@dataclass(frozen=True, slots=True)
class SGD:
    """Stochastic gradient descent, torch.optim.SGD.

    Args:
        lr: highest learning rate, above 0.
        momentum: what is left of earlier steps, in [0, 1).
        weight_decay: weight_decay × weight joins the gradient.

    Source: Robbins and Monro 1951; Sutskever et al. 2013 (momentum).
    """

    lr: float = 1e-1
    momentum: float = 0.0
    weight_decay: float = 0.0

    def section(self) -> Mapping[str, Any]:
        """The fields of a plan's `local.optimizer`."""
        return {
            "type": "sgd",
            "learning_rate": self.lr,
            "momentum": self.momentum,
            "weight_decay": self.weight_decay,
        }


@dataclass(frozen=True, slots=True)
class Adafactor:
    """Adafactor, torch.optim.Adafactor: of a matrix it keeps one number a row and one a column.

    Args:
        lr: highest learning rate; a step is at most min(lr, 1 ÷ sqrt(step)) × the weights' root mean square.
        beta2_decay: at step t the squared gradient's mean decays by 1 - t^beta2_decay; in [-1, 0).
        eps: least root mean square of weights that steps are scaled by; the second of torch's pair.
        d: highest root mean square of a step before it is scaled.
        weight_decay: as AdamW.

    Source: Shazeer and Stern, arXiv:1804.04235.
    """

    lr: float = 1e-2
    beta2_decay: float = -0.8
    eps: float = 1e-3
    d: float = 1.0
    weight_decay: float = 0.0

    def section(self) -> Mapping[str, Any]:
        """The fields of a plan's `local.optimizer`."""
        return {
            "type": "adafactor",
            "learning_rate": self.lr,
            "beta2_decay": self.beta2_decay,
            "epsilon": self.eps,
            "clip_threshold": self.d,
            "weight_decay": self.weight_decay,
        }


@dataclass(frozen=True, slots=True)
class Muon:
    """Muon, torch.optim.Muon for matrices of hidden layers, and AdamW for all else, under one learning rate.

    Args:
        lr: highest learning rate; Muon's steps are scaled to AdamW's root mean square.
        momentum: decay of a matrix's mean gradient, in [0, 1).
        weight_decay: as AdamW.
        betas, eps: AdamW's.

    Source: Liu et al., arXiv:2502.16982.
    """

    lr: float = 2e-3
    momentum: float = 0.95
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8

    def section(self) -> Mapping[str, Any]:
        """The fields of a plan's `local.optimizer`."""
        own = {"momentum": self.momentum, "weight_decay": self.weight_decay}
        return {"type": "muon", **_adam(self.lr, self.betas, self.eps), **own}


def _adam(lr: float, betas: tuple[float, float], eps: float) -> dict[str, float]:
    return {"learning_rate": lr, "beta1": betas[0], "beta2": betas[1], "epsilon": eps}
