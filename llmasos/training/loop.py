"""The local optimizer at work: steps of a round, each a pure function of weights, moments, seed and step.

    training = LocalTraining(plan, model, machine)
    sums = training.run_round(RoundWork(trained_rounds=0, seed=7), draw)      # weights are changed in place

Nothing random outlives a step: dropout is reseeded from (seed, step), batches come from `draw(step)`, the learning rate from
the global step. So training that stops at a step boundary and goes on from weights and moments gives the same bits.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

import torch

from common.errors import NonFiniteDelta
from common.plan.model import Plan
from llmasos.evaluation.perplexity import to_fixed
from llmasos.models.adapters import tensor_name
from llmasos.models.sharding import is_own, local, part_for
from llmasos.tasks.base import Batch, rows_in, split, tensors_of
from llmasos.tasks.registry import objective_of
from llmasos.training.clipping import clip_gradients
from llmasos.training.device import Machine
from llmasos.training.forward import prepare_forward
from llmasos.training.optimizers import LocalOptimizer, picked
from llmasos.training.pipeline import pipeline_of
from llmasos.training.ranks import ALONE, Ranks
from llmasos.training.schedule import learning_rate, total_rate, total_steps

Draw = Callable[[int], Batch]
"""The batch of a step in the round."""


@dataclass(frozen=True, slots=True)
class RoundSums:
    """What was trained so far in a round. `loss_sum_fixed` adds up mean step losses, nats × 2^16."""

    steps: int = 0
    num_tokens: int = 0
    loss_sum_fixed: int = 0

    @property
    def mean_loss_fixed(self) -> int | None:
        return None if self.steps == 0 else round(self.loss_sum_fixed / self.steps)


@dataclass(frozen=True, slots=True)
class RoundWork:
    """One round's work. `done` is where a snapshot left off; `steps` cuts the plan's steps short."""

    trained_rounds: int
    seed: int
    done: RoundSums = field(default_factory=RoundSums)
    steps: int | None = None


@dataclass(frozen=True, slots=True)
class StepDone:
    """A step boundary, at which weights and moments may be read. `loss_fixed` is the step's mean loss."""

    step: int
    steps: int
    loss_fixed: int
    sums: RoundSums


def _ignore(done: StepDone) -> None:
    pass


def _step_seed(seed: int, step: int, rank: int) -> int:
    """Of dropout; each rank has masks of its own for rows of its own."""
    of_rank = f" rank {rank}" if rank else ""
    digest = hashlib.sha256(f"llmasos step {seed} {step}{of_rank}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class LocalTraining:
    """Trains `model` in place as the plan's `local` section says. The model stays on the machine's device.

    Only what requires a gradient is trained: of a model with an adapter, the adapter. Weight decay is torch's, on every
    trained parameter: AdamW's decoupled, SGD's a part of the gradient. With several `ranks`, each of them does all of this,
    and computes gradients of its own rows of each batch.
    """

    def __init__(self, plan: Plan, model: torch.nn.Module, machine: Machine, ranks: Ranks = ALONE) -> None:
        self.model = model if ranks.sharded else model.to(machine.device)
        self.machine = machine
        self._ranks = ranks
        self._forward, deviations = prepare_forward(plan.local, self.model, machine)
        self.deviations = (*machine.deviations(plan.local.precision), *deviations)
        self.micro_batch = plan.local.micro_batch_size or plan.local.batch_size
        """Rows at once on a rank; a step for which memory was too little makes it smaller, and it stays so."""
        self._local = plan.local
        self._objective = objective_of(plan.task)
        self._total_steps = total_steps(plan)
        named = [(name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad]
        self._names = [tensor_name(name) for name, _ in named]
        self._parameters = [weight for _, weight in named]
        self._optimizer = LocalOptimizer(
            self._local.optimizer, self.model, list(zip(self._names, self._parameters, strict=True))
        )
        self._elsewhere = {tensor_name(name) for name, weight in self.model.named_parameters() if weight.is_meta}
        self._pipeline = pipeline_of(self.model, self._objective, ranks, lambda: machine.autocast(plan.local.precision))
        self._anchors: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
        self._corrections: list[tuple[torch.nn.Parameter, torch.Tensor]] = []

    def anchor(self, names: Collection[str]) -> None:
        """From now on the plan's `fedprox_mu` pulls the weights of these names to what they are now: a round's base model.

        Without a call nothing pulls, as in training without a federation. With mu 0 nothing is copied or added.

        Source: Li et al., arXiv:1812.06127: the local objective gains mu / 2 × ‖weights − base‖².
        """
        if not self._local.fedprox_mu:
            return
        named = zip(self._names, self._parameters, strict=True)
        self._anchors = [(weight, weight.detach().clone()) for name, weight in named if name in names]

    def correct(self, corrections: Mapping[str, torch.Tensor]) -> None:
        """From now on these are added to the gradients of the weights of these names, after the gradients were clipped.

        So a clipped gradient stays what an institution contributes to the mean, and what turns it is not cut down.
        """
        named = zip(self._names, self._parameters, strict=True)
        self._corrections = [
            (weight, corrections[name].to(weight.device)) for name, weight in named if name in corrections
        ]

    def total_rate(self, work: RoundWork) -> float:
        """The sum of the learning rates of a round's steps, those included that a snapshot has done."""
        steps = self._local.steps if work.steps is None else work.steps
        first = work.trained_rounds * self._local.steps
        return total_rate(self._local, first_step=first, steps=steps, total=self._total_steps)

    def run_round(self, work: RoundWork, draw: Draw, on_step: Callable[[StepDone], None] = _ignore) -> RoundSums:
        """Train the steps of a round that are not done yet; `on_step` is called at each step boundary.

        Raises:
            NonFiniteDelta: loss or gradient became NaN or infinite.
            OutOfMemory: memory is too little for a step, in micro-batches of one sequence.
        """
        self.model.train()
        sums, steps = work.done, self._local.steps if work.steps is None else work.steps
        for step in range(sums.steps, steps):
            batch = draw(step)
            loss_fixed = to_fixed(self._step(batch, work, step))
            sums = replace(
                sums,
                steps=step + 1,
                num_tokens=sums.num_tokens + self._objective.targets(batch),
                loss_sum_fixed=sums.loss_sum_fixed + loss_fixed,
            )
            on_step(StepDone(step + 1, steps, loss_fixed, sums))
        self._optimizer.zero_grad()  # gradients are as large as the model, which lives on
        return sums

    def _step(self, batch: Batch, work: RoundWork, step: int) -> float:
        """One optimizer step; its mean loss in nats."""
        global_step = work.trained_rounds * self._local.steps + step
        rate = learning_rate(self._local, global_step=global_step, total=self._total_steps)
        self._optimizer.set_rate(rate)

        def gradients(size: int) -> float:
            torch.manual_seed(_step_seed(work.seed, step, self._ranks.dropout_number))
            self._optimizer.zero_grad()
            return self._accumulate(batch, size)

        # Weights and moments change only after this; what that takes is the same for any micro-batch.
        release = self.machine.release_memory
        loss, self.micro_batch = self._ranks.within_memory(gradients, self.micro_batch, release)
        self._ranks.sum_gradients(self._parameters)
        (loss,) = self._ranks.total(loss)
        self._pull()
        max_norm = float(self._local.max_gradient_norm)
        norm = clip_gradients(self._parameters, max_norm, self._ranks)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise NonFiniteDelta(
                f"Step {step + 1} of this round: loss is {loss}, gradient norm {norm}, expected finite numbers."
            )
        self._turn()
        self._optimizer.step()
        return loss

    def _accumulate(self, batch: Batch, size: int) -> float:
        """Gradients of the batch's mean loss, by micro-batches of `size` rows scaled by targets; the mean loss in nats. Of
        both, this rank's part: parts add up.
        """
        if self._pipeline is not None:
            return self._pipeline.accumulate(tensors_of(batch, self.machine.device), size)
        targets, mine = self._objective.targets(batch), self._ranks.share(batch)
        nats = torch.zeros((), dtype=torch.float64, device=self.machine.device)
        micro_batches = split(tensors_of(mine, self.machine.device), size) if rows_in(mine) else ()
        spare = {name: values[:1] for name, values in batch.items()} if self._ranks.sharded else {}
        for micro_batch, counts in self._ranks.in_step(micro_batches, tensors_of(spare, self.machine.device)):
            with self.machine.autocast(self._local.precision):
                micro_nats = self._objective.nats(self._forward, micro_batch).sum()
            (micro_nats / targets if counts else 0 * micro_nats).backward()  # type: ignore[no-untyped-call]
            nats += micro_nats.detach() * counts
        return float(nats) / targets

    def _pull(self) -> None:
        """FedProx's part of the gradient; what is clipped is the whole gradient, this included."""
        mu = float(self._local.fedprox_mu)
        with torch.no_grad():
            for weight, base in self._anchors:
                if weight.grad is not None:
                    weight.grad.add_(weight - base, alpha=mu)

    def _turn(self) -> None:
        """SCAFFOLD's part of the step."""
        with torch.no_grad():
            for weight, correction in self._corrections:
                if weight.grad is None:
                    weight.grad = correction.clone()
                else:
                    weight.grad.add_(correction)

    def moments(self) -> dict[str, torch.Tensor]:
        """The optimizer's state by `NAME.MOMENT`, as `weights`; empty before the first step. Not copies."""
        own = self.weights()
        return {name: value for name, value in self._optimizer.moments().items() if name.rpartition(".")[0] in own}

    def weights(self) -> dict[str, torch.Tensor]:
        """Trainable weights by name, of a pipeline those that are this stage's own. Not copies."""
        named = zip(self._names, self._parameters, strict=True)
        return {name: weight.detach() for name, weight in named if is_own(weight)}

    def load_moments(self, moments: Mapping[str, torch.Tensor]) -> None:
        """Go on with the moments of a snapshot; an empty mapping starts afresh.

        Raises:
            StorageFailure: a moment is missing, has another shape, or is of a weight that is not trained here.
        """
        here = {name: value for name, value in moments.items() if name.rpartition(".")[0] not in self._elsewhere}
        self._optimizer.load_moments(here)

    def load_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Set the trainable weights.

        Raises:
            StorageFailure: a weight is missing or has another shape.
        """
        with torch.no_grad():
            for name, weight in zip(self._names, self._parameters, strict=True):
                local(weight).copy_(part_for(weight, picked(weights, name, tuple(weight.shape))))
