"""Several processes of one institution that train one model: each takes its share of every batch's rows, or of the model.

    ranks = Ranks.join(0, 2, folder / "store")
    mine = ranks.share(batch)                    # rows 0, 2, 4, …
    ranks.sum_gradients(parameters)              # after the backward pass over one's own rows
    (nats,) = ranks.total(nats)

All ranks do the same step, on the same weights or on parts of one model (llmasos.models.sharding), so what decides over a step
is agreed: sums, wishes of the agent, whether memory was enough. With one rank, ALONE, nothing is exchanged and nothing changes.
For a given number of ranks the same inputs give the same bits; another number adds up in another order.

Source: Li et al., arXiv:2006.15704 (data-parallel training, gradients summed in buckets).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import FileStore

from common.errors import InvalidConfiguration, OutOfMemory
from llmasos.models.sharding import Sharding, gradient_is_partial, stage_of
from llmasos.tasks.base import Batch
from llmasos.training.memory import is_out_of_memory, within_memory

BUCKET_BYTES = 32 * 1024 * 1024
_PATIENCE = timedelta(minutes=30)
"""For the others, at any exchange. A rank that died is noticed at once; this is for one that hangs."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process's place among `size`. All of them must call the same methods in the same order."""

    rank: int = 0
    size: int = 1
    sharding: Sharding = "none"
    """How they share out the model (llmasos.models.sharding); unless `none`, they compute forward and backward together."""

    @classmethod
    def join(cls, rank: int, size: int, store: Path, *, sharding: Sharding = "none") -> Ranks:
        """Wait until all ranks are there. Each takes the CUDA device of its number, where there are any.

        Args:
            store: a file that is not there yet, in a folder of this account's; the ranks find each other by it.

        Raises:
            InvalidConfiguration: there are CUDA devices, but fewer than ranks.
        """
        backend = "gloo"
        if torch.cuda.is_available():
            devices = torch.cuda.device_count()
            if size > devices:
                raise InvalidConfiguration(
                    f"worker.ranks: expected at most {devices}, the CUDA devices that the worker sees, got {size}.",
                    "Set worker.ranks: auto, or let the worker see more by CUDA_VISIBLE_DEVICES.",
                )
            torch.cuda.set_device(rank)
            backend = "cpu:gloo,cuda:nccl"
        dist.init_process_group(
            backend, store=FileStore(str(store), size), rank=rank, world_size=size, timeout=_PATIENCE
        )
        return cls(rank, size, sharding)

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that speaks with the agent and writes what is for all."""
        return self.rank == 0

    @property
    def sharded(self) -> bool:
        """Whether each has but a part of the model."""
        return self.sharding != "none"

    @property
    def shares_rows(self) -> bool:
        """Whether each takes other rows of a batch; else all take all of them, and share out what is computed of each."""
        return self.size > 1 and self.sharding in ("none", "full")

    @property
    def dropout_number(self) -> int:
        """This rank's number among those that draw dropout masks of their own, for rows or blocks of their own."""
        return 0 if self.sharding == "tensor" else self.rank

    def share(self, batch: Batch) -> Batch:
        """This rank's rows of a batch; none where there are fewer rows than ranks."""
        return {name: values[self.rank :: self.size] for name, values in batch.items()} if self.shares_rows else batch

    def every(self, rows: Iterable[T]) -> Iterator[T]:
        """This rank's of so many things that all ranks count in the same order."""
        return islice(rows, self.rank, None, self.size) if self.shares_rows else iter(rows)

    def in_step(self, batches: Iterable[T], spare: T) -> Iterator[tuple[T, bool]]:
        """The batches, and beside each that it counts. Sharded ranks compute as often as the one with the most: then `spare`
        stands for a batch, and does not count.
        """
        own = iter(batches)
        while True:
            batch = next(own, None)
            goes_on = self.any(batch is not None) if self.sharded and self.shares_rows else batch is not None
            if not goes_on:
                return
            yield (spare, False) if batch is None else (batch, True)

    def within_memory(self, work: Callable[[int], T], size: int, release: Callable[[], None]) -> tuple[T, int]:
        """As `memory.within_memory`, with the same size on all ranks, which exchange nothing in `work`.

        But sharded ranks do: one whose memory was too little leaves the others in the middle of a layer, so that there is no
        second try.
        """
        if self.sharded:
            return work(size), size
        return within_memory(lambda smaller: self._attempt(lambda: work(smaller)), size, release)

    def _attempt(self, work: Callable[[], T]) -> T:
        """What `work` returns.

        Raises:
            OutOfMemory: memory was too little, on this rank or another: all go on from the same state.
        """
        if self.size == 1:
            return work()
        result = []
        try:
            result.append(work())
        except Exception as err:
            if not is_out_of_memory(err):
                raise
        # Out here the error is gone, and with its traceback the tensors that the failed try held.
        if self.any(not result):
            raise OutOfMemory(f"Memory was too little on one of {self.size} ranks.")
        return result[0]

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Replace each gradient by the sum over ranks. A rank whose rows do not touch a weight adds zeros to the others'.

        Where ranks share out rows and model, the backward pass has done so, but for their number: it takes the mean. Where they
        share out tensors, it has done so but for weights that each uses for its own heads; in a pipeline, but for weights that
        several stages use.
        """
        if self.sharding == "full":
            for weight in parameters:
                if weight.grad is not None:
                    weight.grad.mul_(self.size)
        if self.sharding == "tensor":
            self._sum([weight for weight in parameters if gradient_is_partial(weight)])
        elif self.sharding == "pipeline":
            self._sum_between_stages(parameters)
        elif not self.sharded and self.size > 1:
            self._sum(parameters)

    def _sum(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        touched = torch.tensor([weight.grad is not None for weight in parameters], dtype=torch.uint8)
        dist.all_reduce(touched, dist.ReduceOp.MAX)
        gradients = []
        for weight, is_touched in zip(parameters, touched.tolist(), strict=True):
            if is_touched:
                weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
                gradients.append(weight.grad)
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            dist.all_reduce(flat)
            for gradient, summed in zip(bucket, torch.split(flat, [one.numel() for one in bucket]), strict=True):
                gradient.copy_(summed.view_as(gradient))

    def _sum_between_stages(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Of tables used at both ends: each of the two stages gets the other's gradient, and both have the same sum."""
        for weight in parameters:
            stage = stage_of(weight)
            if stage is None or len(stage.users) == 1:
                continue
            (other,) = (user for user in stage.users if user != self.rank)
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
            theirs = torch.empty_like(weight.grad)
            both = [dist.P2POp(dist.isend, weight.grad, other), dist.P2POp(dist.irecv, theirs, other)]
            for request in dist.batch_isend_irecv(both):
                request.wait()
            weight.grad += theirs

    def total(self, *numbers: float) -> tuple[float, ...]:
        """Each number's sum over ranks, in float64; where they share out tensors, and so have the same numbers, rank 0's."""
        if self.size == 1:
            return numbers
        mine = numbers if self.sharding != "tensor" or self.is_first else (0.0,) * len(numbers)
        return self._reduced(mine, torch.float64, dist.ReduceOp.SUM)

    def any(self, flag: bool) -> bool:
        """Whether it is so on at least one rank."""
        return flag if self.size == 1 else bool(self._reduced((flag,), torch.int64, dist.ReduceOp.MAX)[0])

    def told(self, *numbers: int) -> tuple[int, ...]:
        """Rank 0's numbers, on every rank; others' are not looked at, but as many."""
        if self.size == 1:
            return numbers
        values = torch.tensor(numbers, dtype=torch.int64)
        dist.broadcast(values, src=0)
        return tuple(int(value) for value in values)

    def told_text(self, text: str) -> str:
        """Rank 0's text, on every rank."""
        if self.size == 1:
            return text
        data = text.encode()
        (length,) = self.told(len(data))
        return bytes(self.told(*(data if self.is_first else bytes(length)))).decode()

    def _reduced(self, numbers: Sequence[float], dtype: torch.dtype, op: dist.ReduceOp.RedOpType) -> tuple[float, ...]:
        values = torch.tensor(numbers, dtype=dtype)
        dist.all_reduce(values, op)
        return tuple(values.tolist())


ALONE = Ranks()
"""One process, which needs no others."""


def _buckets(tensors: Iterable[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Consecutive tensors, BUCKET_BYTES at a time or one that is larger."""
    bucket: list[torch.Tensor] = []
    size = 0
    for tensor in tensors:
        own = tensor.numel() * tensor.element_size()
        if bucket and size + own > BUCKET_BYTES:
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += own
    if bucket:
        yield bucket
