"""The n-gram row of a simulation, from the institutions' own folders of text."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from llmasos.preparation import load_prepared
from llmasos.simulation.counting import count
from llmasos.simulation.deployment import InstitutionFolder
from tests.support.jobs import a_training_plan, make_prepared
from tests.support.texts import make_institutions

pytestmark = pytest.mark.torch


def test_everybodys_training_text_is_counted_and_everybodys_held_out_text_measured(tmp_path: Path) -> None:
    prepared = load_prepared(make_prepared(tmp_path / "plan", a_training_plan()))
    folders = make_institutions(tmp_path / "text", count=2)
    institutions = [InstitutionFolder(name, folder) for name, folder in folders.items()]
    all_text = count(prepared, institutions, tmp_path / "tokens")
    assert set(all_text.scores.institutions) == set(folders)
    assert 1 < all_text.scores.pooled < 20  # 256 for a model that knows nothing
    assert (all_text.order, all_text.left_out) == (8, 0)
    little = count(prepared, institutions, tmp_path / "tokens", max_tokens=200)
    assert little.num_tokens <= 200
    assert little.num_tokens + little.left_out == all_text.num_tokens
    assert little.scores.pooled > all_text.scores.pooled
