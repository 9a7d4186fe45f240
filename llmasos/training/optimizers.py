"""A plan's local optimizer as torch's, and what it keeps of each weight from step to step.

optimizer = LocalOptimizer(plan.local.optimizer, model, named)
optimizer.set_rate(0.001); optimizer.step()
optimizer.moments()                     {"transformer.wte.weight.exp_avg": …, …}, by NAME.MOMENT

type         moments of a weight of shape (…, r, c)
adamw, adam  step (), exp_avg (…, r, c), exp_avg_sq (…, r, c)
sgd          momentum_buffer (…, r, c), with momentum
adafactor    step (), row_var (…, r, 1), col_var (…, 1, c); of a vector step (), variance (c,)
muon         momentum_buffer (r, c) of hidden layers' matrices; AdamW's of the rest
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from common.errors import StorageFailure
from common.plan.local_optimizers import SGD, Adafactor, Adam, AdamW, Muon
from llmasos.models.sharding import beside, is_distributed

Section = AdamW | Adam | SGD | Adafactor | Muon
Named = Sequence[tuple[str, torch.nn.Parameter]]

_FIX = "Remove the snapshot's folder; the round begins again."


class LocalOptimizer:
    """One of torch's optimizers, or two that share out the weights, behind one face."""

    def __init__(self, section: Section, model: torch.nn.Module, named: Named) -> None:
        """
        Args:
            model: whose embeddings and head Muon leaves to AdamW.
            named: what is trained, by the names that moments are kept under.
        """
        self._parts = [_Part(own, some) for own, some in _shared_out(section, model, named) if some]

    def set_rate(self, rate: float) -> None:
        """The learning rate of the steps from now on."""
        for part in self._parts:
            for group in part.optimizer.param_groups:
                group["lr"] = rate

    def zero_grad(self) -> None:
        """Free the gradients."""
        for part in self._parts:
            part.optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Change the weights that have gradients."""
        for part in self._parts:
            part.optimizer.step()

    def moments(self) -> dict[str, torch.Tensor]:
        """By NAME.MOMENT; empty before the first step. A weight that never had a gradient has none. Not copies."""
        return {name: value for part in self._parts for name, value in part.moments().items()}

    def load_moments(self, moments: Mapping[str, torch.Tensor]) -> None:
        """Go on with what `moments` gave; an empty mapping starts afresh.

        Raises:
            StorageFailure: a moment is missing, has another shape, or is of a weight that is not trained here.
        """
        unknown = moments.keys() - {name for part in self._parts for name in part.names()}
        if unknown:
            raise StorageFailure(f"The snapshot's tensor {min(unknown)} is no moment of this training.", _FIX)
        for part in self._parts:
            part.load(moments)


class _Part:
    """Some of the weights, and torch's optimizer that trains them."""

    def __init__(self, section: Section, named: Named) -> None:
        self.optimizer = _MAKERS[section.type](section, [weight for _, weight in named])
        self._named = named
        self._shapes = {name: moment_shapes(section, tuple(weight.shape)) for name, weight in named}

    def names(self) -> list[str]:
        """NAME.MOMENT of all that it can keep."""
        return [f"{name}.{moment}" for name, shapes in self._shapes.items() for moment in shapes]

    def moments(self) -> dict[str, torch.Tensor]:
        state = self.optimizer.state
        return {
            f"{name}.{moment}": state[weight][moment]
            for name, weight in self._named
            if weight in state
            for moment in self._shapes[name]
        }

    def load(self, moments: Mapping[str, torch.Tensor]) -> None:
        state = {
            index: {moment: beside(weight, value) for moment, value in self._of(name, moments).items()}
            for index, (name, weight) in enumerate(self._named)
            if any(f"{name}.{moment}" in moments for moment in self._shapes[name])
        }
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})

    def _of(self, name: str, moments: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {moment: picked(moments, f"{name}.{moment}", shape) for moment, shape in self._shapes[name].items()}


def picked(tensors: Mapping[str, torch.Tensor], name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A snapshot's tensor.

    Raises:
        StorageFailure: it is missing or has another shape.
    """
    if name not in tensors:
        raise StorageFailure(f"The snapshot lacks tensor {name}.", _FIX)
    if tensors[name].shape != shape:
        raise StorageFailure(
            f"The snapshot's tensor {name} has shape {tuple(tensors[name].shape)}, the model's {shape}.", _FIX
        )
    return tensors[name]


def moment_shapes(section: Section, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """What torch's optimizer keeps of a weight of that shape, as the table above says."""
    match section:
        case SGD(momentum=momentum):
            return {"momentum_buffer": shape} if momentum else {}
        case Muon():
            return {"momentum_buffer": shape}
        case Adafactor() if len(shape) > 1:
            return {"step": (), "row_var": (*shape[:-1], 1), "col_var": (*shape[:-2], 1, shape[-1])}
        case Adafactor():
            return {"step": (), "variance": shape}
    return {"step": (), "exp_avg": shape, "exp_avg_sq": shape}


def _shared_out(section: Section, model: torch.nn.Module, named: Named) -> list[tuple[Section, Named]]:
    """Which optimizer trains which weights: one all of them, but Muon only matrices of hidden layers. Weights that ranks
    share out and others that stand beside them are computed apart, as torch wants it."""
    if not isinstance(section, Muon):
        return [(section, [one for one in named if is_distributed(one[1]) is kind]) for kind in (True, False)]
    others = _embeddings_and_head(model)
    matrices = [(name, weight) for name, weight in named if weight.ndim == 2 and weight not in others]
    taken = {name for name, _ in matrices}
    rest = AdamW(
        learning_rate=section.learning_rate,
        beta1=section.beta1,
        beta2=section.beta2,
        epsilon=section.epsilon,
        weight_decay=section.weight_decay,
    )
    return [(section, matrices), (rest, [(name, weight) for name, weight in named if name not in taken])]


def _embeddings_and_head(model: torch.nn.Module) -> set[torch.Tensor]:
    """The tables that tokens and positions are looked up in, and what makes logits."""
    found: set[torch.Tensor] = {module.weight for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    get_head = getattr(model, "get_output_embeddings", None)
    head = get_head() if get_head is not None else None
    return found if head is None else found | {head.weight}


# --- torch's own ---------------------------------------------------------------------------------------------------------

_Make = Callable[..., torch.optim.Optimizer]
Weights = list[torch.nn.Parameter]


def _adam(plan: Adam | AdamW, weights: Weights) -> torch.optim.Optimizer:
    made = torch.optim.AdamW if isinstance(plan, AdamW) else torch.optim.Adam
    return made(
        weights,
        lr=float(plan.learning_rate),
        betas=(float(plan.beta1), float(plan.beta2)),
        eps=float(plan.epsilon),
        weight_decay=float(plan.weight_decay),
        fused=True,
    )


def _sgd(plan: SGD, weights: Weights) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        weights,
        lr=float(plan.learning_rate),
        momentum=float(plan.momentum),
        weight_decay=float(plan.weight_decay),
        fused=not is_distributed(weights[0]),  # torch has no rule yet for how ranks share that one out
    )


def _adafactor(plan: Adafactor, weights: Weights) -> torch.optim.Optimizer:
    return torch.optim.Adafactor(
        weights,
        lr=float(plan.learning_rate),
        beta2_decay=float(plan.beta2_decay),
        eps=(None, float(plan.epsilon)),
        d=float(plan.clip_threshold),
        weight_decay=float(plan.weight_decay),
    )


def _muon(plan: Muon, weights: Weights) -> torch.optim.Optimizer:
    return torch.optim.Muon(
        weights,
        lr=float(plan.learning_rate),
        momentum=float(plan.momentum),
        weight_decay=float(plan.weight_decay),
        adjust_lr_fn="match_rms_adamw",
    )


_MAKERS: Mapping[str, _Make] = {"adamw": _adam, "adam": _adam, "sgd": _sgd, "adafactor": _adafactor, "muon": _muon}
