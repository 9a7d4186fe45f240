"""What ranks agree on, without other processes: what they would exchange is given. Real ones are in participant/worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402

from common.errors import OutOfMemory  # noqa: E402
from llmasos.training.ranks import ALONE, BUCKET_BYTES, Ranks, _buckets  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What the exchanges to come result in, one after the other."""

    def give(*results: int) -> None:
        coming = iter(results)
        monkeypatch.setattr(Ranks, "_reduced", lambda *arguments: (next(coming),))

    return give


def test_every_row_goes_to_one_rank_also_where_there_are_fewer_rows_than_ranks() -> None:
    batch = {"tokens": np.arange(10).reshape(5, 2), "label": np.arange(5)}
    shares = [Ranks(rank, 3).share(batch) for rank in range(3)]
    assert sorted(int(label) for share in shares for label in share["label"]) == [0, 1, 2, 3, 4]
    assert all((share["tokens"][:, 0] == 2 * share["label"]).all() for share in shares)
    assert [len(Ranks(rank, 8).share(batch)["label"]) for rank in range(8)] == [1, 1, 1, 1, 1, 0, 0, 0]
    assert ALONE.share(batch) is batch


def test_too_little_memory_on_another_rank_makes_micro_batches_smaller_on_all(others: Callable[..., None]) -> None:
    others(1, 0)
    tried: list[int] = []
    assert Ranks(0, 2).within_memory(lambda size: tried.append(size) or size, 8, lambda: None) == (4, 4)
    assert tried == [8, 4]
    others(1)
    with pytest.raises(OutOfMemory, match="one sequence at a time"):
        Ranks(1, 2).within_memory(lambda size: size, 1, lambda: None)


def test_another_error_than_of_memory_is_not_waited_with(others: Callable[..., None]) -> None:
    others()

    def fail(size: int) -> Any:
        raise ValueError("something else")

    with pytest.raises(ValueError, match="something else"):
        Ranks(0, 2).within_memory(fail, 8, lambda: None)


def test_sharded_ranks_compute_as_often_as_the_one_with_the_most(others: Callable[..., None]) -> None:
    others(1, 1, 1, 0)
    spare = "spare"
    assert list(Ranks(1, 2, sharding="full").in_step(["a", "b"], spare)) == [("a", True), ("b", True), (spare, False)]
    assert list(Ranks(1, 2).in_step(["a", "b"], spare)) == [("a", True), ("b", True)]


def test_buckets_hold_every_gradient_once_in_order() -> None:
    sizes = [BUCKET_BYTES // 8, BUCKET_BYTES // 8, 1, BUCKET_BYTES // 2, 2]
    tensors = [torch.empty(size, dtype=torch.float32, device="meta") for size in sizes]
    assert [[one.numel() for one in bucket] for bucket in _buckets(tensors)] == [
        sizes[:2],
        sizes[2:3],
        sizes[3:4],
        sizes[4:],
    ]
