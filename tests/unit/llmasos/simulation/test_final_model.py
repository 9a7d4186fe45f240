"""A simulation's final model on everybody's held-out text, each institution's with its own layers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import llmasos  # noqa: E402
from llmasos.models.personal import PersonalFolder  # noqa: E402
from llmasos.preparation import load_prepared  # noqa: E402
from llmasos.simulation.deployment import InstitutionFolder  # noqa: E402
from llmasos.simulation.final_model import export_final, load_final, measure, measure_more  # noqa: E402
from tests.support.jobs import a_training_plan, make_prepared  # noqa: E402
from tests.support.records import LABELS, a_labelled_text, make_records  # noqa: E402
from tests.support.tasks import a_task_plan  # noqa: E402
from tests.support.texts import make_institutions  # noqa: E402
from tests.unit.llmasos.tasks.test_training import CASES  # noqa: E402

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


def test_more_is_measured_on_what_each_institution_holds_out_and_the_folder_says_what_it_is(tmp_path: Path) -> None:
    task = {"type": "sequence-classification", "labels": list(LABELS)}
    prepared = load_prepared(make_prepared(tmp_path / "plan", a_task_plan(task)))
    folders = make_records(tmp_path / "data", a_labelled_text, count=2)
    institutions = [InstitutionFolder(name, folder) for name, folder in folders.items()]
    for name in folders:
        PersonalFolder(tmp_path / name, prepared.draft.manifest).write(load_final(prepared, prepared.model), 0)

    def own(name: str) -> tuple[Path, int]:
        return tmp_path / name, 0

    run = measure(prepared, prepared.model, institutions, tmp_path / "tokens", own)
    found = measure_more(prepared, prepared.model, institutions, own)
    assert {name: math.exp(one.model.loss) for name, one in found.languages.items()} == pytest.approx(
        run.institutions, 1e-3
    )
    assert math.exp(found.loss) == pytest.approx(run.pooled, 1e-3)
    assert {"macro_f1", "micro_f1"} == set(found.scores) == set(found.languages["bank"].own)
    assert found.tokens == sum(one.model.tokens for one in found.languages.values())
    export_final(prepared, prepared.model, tmp_path / "model", base=tmp_path / "base")
    measured = llmasos.evaluate(tmp_path / "model", folders["bank"])
    assert measured.task == task["type"]
    (tmp_path / "model" / "llmasos.json").unlink()
    assert llmasos.evaluate(tmp_path / "model", folders["bank"]).whole == measured.whole, "config.json names the labels"


def test_text_is_measured_by_bits_per_byte_too_up_to_the_plans_number_of_tokens(tmp_path: Path) -> None:
    prepared = load_prepared(make_prepared(tmp_path / "plan", a_training_plan(evaluation={"max_tokens": 100})))
    institutions = [InstitutionFolder(*one) for one in make_institutions(tmp_path / "text", count=2).items()]
    found = measure_more(prepared, prepared.model, institutions, lambda name: (tmp_path / name, 0))
    assert set(found.languages) == {"bank", "clinic"}
    assert found.bits_per_byte is not None
    assert all(one.documents == 1 for one in found.languages.values())


@pytest.mark.parametrize("name", CASES)
def test_every_task_is_measured_on_the_rows_that_the_institution_measures(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    prepared = load_prepared(make_prepared(tmp_path / "plan", a_task_plan(case.task, **case.plan)))
    institutions = [InstitutionFolder("clinic", case.folder(tmp_path / "data"))]

    def own(name: str) -> tuple[Path, int]:
        return tmp_path / name, 0

    run = measure(prepared, prepared.model, institutions, tmp_path / "tokens", own)
    found = measure_more(prepared, prepared.model, institutions, own)
    assert math.exp(found.loss) == pytest.approx(run.pooled, 1e-3)
    assert found.accuracy is not None
