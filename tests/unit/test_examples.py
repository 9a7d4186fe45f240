"""Every example runs, at a tiny size: its script here, and its plan as an institution would train it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

torch = pytest.importorskip("torch")

from common.plan.load import load_plan  # noqa: E402
from llmasos.preparation import prepare  # noqa: E402
from llmasos.training.baseline import Config, Institution, train_baseline  # noqa: E402

pytestmark = pytest.mark.torch

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "synthetic")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Scripts find `synthetic` beside them, as when they are run."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    before, threads = set(sys.modules), torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    for name in set(sys.modules) - before:
        if name in {*SCRIPTS, "synthetic"}:
            del sys.modules[name]


def load(name: str) -> ModuleType:
    return importlib.import_module(name)


def test_every_script_has_a_plan_of_its_name() -> None:
    plans = {load_plan(path).name: path.stem for path in (EXAMPLES / "plans").glob("*.yaml")}
    assert {name: name for name in plans} == plans
    assert sorted(name.replace("-", "_") for name in plans) == SCRIPTS


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.usefixtures("example")
def test_an_example_runs_here(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load(name).main(["--steps", "2", "--work", str(tmp_path)])
    told = capsys.readouterr().out
    assert "History(step 2 of 2: loss" in told
    assert (tmp_path / name.replace("_", "-") / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.usefixtures("example")
def test_an_examples_plan_trains_on_its_data(name: str, tmp_path: Path) -> None:
    module, synthetic = load(name), load("synthetic")
    plan = name.replace("_", "-")
    record = next(
        getattr(synthetic, maker)
        for maker in ("bilingual", "dialogue", "question", "summary", "translation", "counting")
        if hasattr(module, maker)
    )
    folders = synthetic.institutions(tmp_path, plan, record, count=12)
    prepared = prepare(EXAMPLES / "plans" / f"{plan}.yaml", tmp_path / "prepared")
    institution = Institution(name="north", folder=folders["north"])
    config = Config(draft=prepared.folder, train=(institution,), evaluate=(institution,), steps=1)
    outcome = train_baseline(config, lambda advance: None)
    assert 0 < outcome.train_loss < 10
    assert outcome.evaluations["north"].num_tokens > 0
