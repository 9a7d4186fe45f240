"""A simulation's final model on everybody's held-out text, each institution's with its own layers."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from llmasos.models.personal import PersonalFolder  # noqa: E402
from llmasos.preparation import load_prepared  # noqa: E402
from llmasos.simulation.deployment import InstitutionFolder  # noqa: E402
from llmasos.simulation.final_model import load_final, measure  # noqa: E402
from tests.support.jobs import a_training_plan, make_prepared  # noqa: E402
from tests.support.texts import make_institutions  # noqa: E402

pytestmark = pytest.mark.torch


def test_each_institution_is_measured_with_its_own_personal_layers(tmp_path: Path) -> None:
    prepared = load_prepared(make_prepared(tmp_path / "plan", a_training_plan(personal=["ln_f"])))
    folders = make_institutions(tmp_path / "text", count=2)
    institutions = [InstitutionFolder(name, folder) for name, folder in folders.items()]
    first, second = folders
    model = load_final(prepared, prepared.model)
    for name in folders:
        PersonalFolder(tmp_path / name, prepared.draft.manifest).write(model, 0)
    with torch.no_grad():
        model.get_parameter("transformer.ln_f.weight").mul_(40)  # nonsense of its own
    PersonalFolder(tmp_path / second, prepared.draft.manifest).write(model, 2)

    def scores(rounds: dict[str, int]) -> dict[str, float]:
        own = {name: (tmp_path / name, rounds.get(name, 0)) for name in folders}
        found = measure(prepared, prepared.model, institutions, tmp_path / "tokens", own.__getitem__)
        return dict(found.institutions)

    initial, with_own = scores({}), scores({second: 2})
    assert with_own[first] == initial[first]
    assert with_own[second] > 1.5 * initial[second]
