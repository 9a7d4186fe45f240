"""What a pipeline decides alone; ranks that train through one are in participant/worker/test_shared_model.py."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from llmasos.training.pipeline import largest_divisor

pytestmark = pytest.mark.torch


@pytest.mark.parametrize(("rows", "size", "expected"), [(8, 8, 8), (8, 4, 4), (7, 3, 1), (6, 4, 3), (2, 8, 2)])
def test_micro_batches_of_a_pipeline_all_have_as_many_rows(rows: int, size: int, expected: int) -> None:
    assert largest_divisor(rows, size) == expected
