"""What a round counts for by bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from llmasos.training import weighing

Make = Callable[..., Any]
END = 256


def test_bytes_are_those_of_the_targets_of_the_rounds_batches(trainee: Make, tmp_path: Path) -> None:
    one = trainee(weighting={"type": "bytes"})
    targets = np.concatenate([one.corpus.batch(seed=5, step=step)["tokens"][:, 1:] for step in range(3)])
    found = weighing.num_bytes(one.corpus, tmp_path / "tokenizer.json", seed=5, steps=3)
    assert found == int((targets != END).sum())


def test_bytes_beyond_the_plans_count_for_nothing(
    trainee: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weighing, "byte_lengths", lambda tokenizer: np.full(257, 3))
    for most, a_token in ((2, 2), (3, 3), (8, 3)):
        one = trainee(weighting={"type": "bytes", "max_bytes_a_token": most})
        found = weighing.num_bytes(one.corpus, tmp_path / "tokenizer.json", seed=5, steps=2)
        assert found == a_token * 2 * 4 * 32
    monkeypatch.setattr(weighing, "byte_lengths", lambda tokenizer: np.zeros(257, np.int64))
    assert weighing.num_bytes(one.corpus, tmp_path / "tokenizer.json", seed=5, steps=2) == 1


def test_a_plan_that_weighs_otherwise_counts_none(trainee: Make, tmp_path: Path) -> None:
    one = trainee(weighting={"type": "equal"})
    assert weighing.num_bytes(one.corpus, tmp_path / "tokenizer.json", seed=5, steps=2) is None
