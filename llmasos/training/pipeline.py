"""A model in stages at work: micro-batches go through the ranks one after the other, and their gradients back.

    pipeline = Pipeline(model, objective, ranks, lambda: machine.autocast("bfloat16"))
    nats = pipeline.accumulate(batch, 2)         # gradients of the batch's mean loss, in micro-batches of two rows
    objective.nats → pipeline.nats               # measures, and is an Objective; other ranks than the last have no targets

With as many micro-batches as ranks, or more, they go 1F1B (one forward, one backward), else as in GPipe. Of causal language
models on windows: what all ranks see of a batch are its tokens.

Sources: torch.distributed.pipelining; Huang et al., arXiv:1811.06965 (GPipe); Narayanan et al., arXiv:2104.04473 (1F1B).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import torch

from llmasos.models.stages import stage_module
from llmasos.tasks.base import Batch, Objective, Tensors
from llmasos.tasks.causal_lm import TOKENS
from llmasos.training.ranks import Ranks

if TYPE_CHECKING:
    from torch.distributed.pipelining import PipelineStage
    from transformers import PreTrainedModel

Autocast = Callable[[], AbstractContextManager[object]]


def pipeline_of(
    model: torch.nn.Module, objective: Objective, ranks: Ranks, autocast: Autocast = nullcontext
) -> Pipeline | None:
    """Where ranks are stages; None: they are not."""
    return Pipeline(model, objective, ranks, autocast) if ranks.sharding == "pipeline" else None


class Pipeline:
    """This rank's stage of a model that was cut. All ranks must call the same methods in the same order."""

    def __init__(self, model: torch.nn.Module, objective: Objective, ranks: Ranks, autocast: Autocast) -> None:
        self._model, self._objective, self._ranks = cast("PreTrainedModel", model), objective, ranks
        self._module = stage_module(self._model, ranks.rank, ranks.size, autocast)
        self._schedules: dict[tuple[int, ...], Any] = {}

    @property
    def is_last(self) -> bool:
        """Whether this rank makes logits and loss."""
        return self._ranks.rank == self._ranks.size - 1

    def targets(self, batch: Batch) -> int:
        """As the task's."""
        return self._objective.targets(batch)

    def nats(self, model: torch.nn.Module, batch: Tensors) -> torch.Tensor:
        """As the task's, of a batch that all ranks have; on the last rank, and none on others."""
        tokens_BT = batch[TOKENS]
        logits_BLV = self._run(tokens_BT, tokens_BT.shape[0], losses=None)
        return self._of(logits_BLV, tokens_BT) if self.is_last else torch.zeros(0)

    def accumulate(self, batch: Tensors, size: int) -> float:
        """Add the gradients of the batch's mean loss to what is there, in micro-batches of `size` rows or a few less; the mean
        loss in nats on the last rank, 0 on others.
        """
        tokens_BT, losses = batch[TOKENS], list[torch.Tensor]()
        self._run(tokens_BT, largest_divisor(tokens_BT.shape[0], size), losses)
        return float(sum(loss.detach().double() for loss in losses))

    def _of(self, logits_BLV: torch.Tensor, tokens_BT: torch.Tensor) -> torch.Tensor:
        """The task's loss of each target, given what the last stage made."""
        given: Any = lambda **inputs: SimpleNamespace(logits=logits_BLV)  # noqa: E731  in the model's place
        return self._objective.nats(given, {TOKENS: tokens_BT})

    def _run(self, tokens_BT: torch.Tensor, size: int, losses: list[torch.Tensor] | None) -> Any:
        """Through all stages; with `losses` and back."""
        self._module.train(self._model.training)
        rows, width = tokens_BT.shape
        schedule = self._schedule(rows, size, width - 1, trains=losses is not None)
        inputs = (tokens_BT[:, :-1].contiguous(),) if self._ranks.is_first else ()
        if losses is None:
            return schedule.step(*inputs)
        target = tokens_BT if self.is_last else None
        return schedule.step(*inputs, target=target, losses=losses, return_outputs=False)

    def _schedule(self, rows: int, size: int, length: int, *, trains: bool) -> Any:
        key = (rows, size, length, trains)
        if key not in self._schedules:
            # Here and not above: workers import it that need it.
            from torch.distributed.pipelining import Schedule1F1B, ScheduleGPipe

            micro_batches = rows // size
            kind = Schedule1F1B if trains and micro_batches >= self._ranks.size else ScheduleGPipe
            targets = rows * length

            def loss(logits_BLV: torch.Tensor, tokens_BT: torch.Tensor) -> torch.Tensor:
                return self._of(logits_BLV, tokens_BT).sum() / targets

            # Each micro-batch's loss is of the whole batch's mean already.
            self._schedules[key] = kind(
                self._stage(size, length, trains=trains), micro_batches, loss if trains else None, scale_grads=False
            )
        return self._schedules[key]

    def _stage(self, size: int, length: int, *, trains: bool) -> PipelineStage:
        """With shapes and types told, so that ranks need not ask each other."""
        from torch.distributed.pipelining import PipelineStage

        config = self._model.config

        def expected(width: int) -> torch.Tensor:
            return torch.empty(size, length, width, device="meta", requires_grad=trains)

        tokens = torch.empty(size, length, dtype=torch.int64, device="meta")
        rank, ranks = self._ranks.rank, self._ranks.size
        return PipelineStage(
            self._module,
            rank,
            ranks,
            next(weight.device for weight in self._model.parameters() if not weight.is_meta),
            input_args=tokens if self._ranks.is_first else expected(config.hidden_size),
            output_args=expected(config.vocab_size if self.is_last else config.hidden_size),
        )


def largest_divisor(rows: int, size: int) -> int:
    """At most `size`: micro-batches of a pipeline all have as many rows."""
    return next(smaller for smaller in range(min(size, rows), 0, -1) if rows % smaller == 0)
