"""Task plugins: loaded by name and exact version, and trained like any other task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from common.errors import UsageError
from common.plan.tasks import Plugin
from llmasos.evaluation.targets import measure_rows
from llmasos.tasks.plugin import load_plugin
from tests.support.tasks import a_task_plan
from tests.support.texts import make_institutions

pytestmark = pytest.mark.torch

SECTION = {
    "type": "plugin",
    "name": "every-other",
    "version": "1.2.0",
    "model_head": "causal-lm",
    "options": {"each": 2},
}
CODE = """
from llmasos.tasks.causal_lm import NextToken, NextTokenWindows
from llmasos.tasks.windows import WindowRecipe

class EveryOther(NextToken):
    def __init__(self, each): self.each = each
    def targets(self, batch): return -(-super().targets(batch) // self.each)
    def nats(self, model, batch): return super().nats(model, batch)[:: self.each]

class Task:
    def objective(self, task): return EveryOther(task.options["each"])
    def recipe(self, plan, tokenizer):
        return WindowRecipe(NextTokenWindows(plan.local.sequence_length), plan, tokenizer)

task = Task()
nothing = object()
"""


def install(
    root: Path, monkeypatch: pytest.MonkeyPatch, *, version: str = "1.2.0", target: str = "every_other:task"
) -> None:
    """A distribution as pip leaves it."""
    info = root / f"every_other-{version}.dist-info"
    info.mkdir(parents=True)
    (root / "every_other.py").write_text(CODE)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: every-other\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[llmasos.tasks]\nevery-other = {target}\n")
    monkeypatch.syspath_prepend(root)


def test_an_installed_plugin_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, learner: Callable[..., Any]
) -> None:
    install(tmp_path / "site", monkeypatch)
    one = learner(make_institutions(tmp_path / "data", count=1)["clinic"], SECTION)
    done = one.run(one.training())
    assert done[-1].sums.num_tokens == 6 * 4 * 32 // 2
    assert done[-1].loss_fixed < done[0].loss_fixed
    rows = list(one.corpus.held_out_rows())[:3]
    found = measure_rows(one.model(), one.plan.task, rows, batch_size=2)
    assert found.targets == [16, 16, 16]
    assert found.units.accuracy is None, "what a plugin's rows hold, it alone knows"


@pytest.mark.parametrize(
    ("version", "target", "message"),
    [
        (None, "", "is not installed: no entry point of group llmasos.tasks has that name"),
        ("1.2.1", "every_other:task", "is installed in version 1.2.1, the plan names 1.2.0"),
        ("1.2.0", "every_other:nothing", "is no task: expected an object with objective and recipe"),
        ("1.2.0", "every_other:absent", "cannot be imported: AttributeError"),
    ],
)
def test_a_plugin_that_does_not_fit_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None, target: str, message: str
) -> None:
    if version is not None:
        install(tmp_path / "site", monkeypatch, version=version, target=target)
    with pytest.raises(UsageError, match=message):
        load_plugin(Plugin.model_validate(SECTION))


@pytest.mark.parametrize("options", [{"f": 0.5}, {"l": [1]}, {"n": 2**60}])
def test_options_are_texts_and_whole_numbers(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="options"):
        a_task_plan(SECTION | {"options": options})
