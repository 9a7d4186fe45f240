"""A search: the best is found and written, a killed one goes on, bad trials are given up, hopeless ones end."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

pytest.importorskip("optuna")

from common.errors import MissingExtra, NonFiniteDelta, OperationError, UsageError
from common.plan.load import load_plan
from common.plan.model import Plan
from common.terminal import exit_code_of
from llmasos import extras
from llmasos.cli import app
from llmasos.search import search
from llmasos.search.objective import Report, Trial
from llmasos.search.search import Search, TuneOptions, tune
from tests.support.texts import make_institutions

PLAN = """
apiVersion: llmasos/v1
name: tiny
model: {type: gpt2, n_layer: 1, n_head: 2, n_embd: 16, n_positions: 16}
local: {steps: 4, batch_size: 4, sequence_length: 16}
evaluation: {max_tokens: 256}
rounds: 4
"""
SPACE = {"local.optimizer.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}, "local.batch_size": [2, 4]}


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    file = tmp_path / "plan.yaml"
    file.write_text(PLAN)
    return file


@pytest.fixture
def data(tmp_path: Path) -> list[Path]:
    return list(make_institutions(tmp_path / "text", count=2).values())


def badness(plan: Plan) -> float:
    """Smallest at a learning rate of 0.01 and a batch of 4."""
    rate = float(plan.local.optimizer.learning_rate)
    return 2 + abs(Decimal(rate).log10() + 2).__float__() + (plan.local.batch_size != 4)


Fake = Callable[[Trial, Report], float]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fake], None]:
    """Puts a function in the place of training."""

    def put(fake: Fake) -> None:
        monkeypatch.setattr(search, "LocalObjective", lambda *_: fake)

    return put


def quick(trial: Trial, report: Report) -> float:
    for rounds in range(1, 5):
        report(rounds, badness(trial.plan) + 4 - rounds)
    return badness(trial.plan)


def settings(found: Search) -> list[dict[str, object]]:
    return [dict(one.settings) for one in found.trials]


@pytest.mark.parametrize(("sampler", "pruning"), [("tpe", "hyperband"), ("random", "none")])
def test_the_best_of_all_trials_is_a_plan_with_its_settings(
    plan: Path, data: list[Path], tmp_path: Path, pretend: Any, sampler: Any, pruning: Any
) -> None:
    pretend(quick)
    out = tmp_path / "out"
    found = tune(plan, SPACE, data=data, out=out, options=TuneOptions(sampler=sampler, trials=9, pruning=pruning))
    assert len(found.trials) == 9
    assert found.best.value == min(one.value for one in found.trials if one.value is not None)
    best = load_plan(found.best_plan)
    assert badness(best) == pytest.approx(found.best.value)
    assert best.name == "tiny"
    told = json.loads((out / "trials.json").read_text())
    assert told["best"]["value"] == found.best.value
    assert told["best"]["curve"]["4"] == pytest.approx(told["best"]["value"])
    ElementTree.fromstring((out / "search.svg").read_text())
    assert "Best of 9 trials: perplexity" in (out / "report.html").read_text()


def test_a_grid_tries_every_point_once(plan: Path, data: list[Path], tmp_path: Path, pretend: Any) -> None:
    pretend(quick)
    space = {"local.optimizer.learning_rate": {"low": 1e-3, "high": 1e-1, "log": True, "points": 3}}
    options = TuneOptions(sampler="grid", trials=100, pruning="none")
    found = tune(plan, space | {"local.batch_size": [2, 4]}, data=data, out=tmp_path / "out", options=options)
    assert len(found.trials) == 6
    assert len({tuple(one.items()) for one in settings(found)}) == 6
    assert found.best.value == pytest.approx(2)


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_a_killed_search_goes_on_and_tries_what_an_undisturbed_one_tries(
    plan: Path, data: list[Path], tmp_path: Path, pretend: Any, sampler: Any
) -> None:
    space = {"local.optimizer.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True, "points": 5}}
    options = TuneOptions(sampler=sampler, trials=5, pruning="none")
    pretend(quick)
    undisturbed = tune(plan, space, data=data, out=tmp_path / "whole", options=options)
    asked = 0

    def killed(trial: Trial, report: Report) -> float:
        nonlocal asked
        asked += 1
        if asked in (2, 4):
            raise KeyboardInterrupt
        return quick(trial, report)

    pretend(killed)
    starts = 0
    while True:
        starts += 1
        try:
            found = tune(plan, space, data=data, out=tmp_path / "cut", options=options)
            break
        except KeyboardInterrupt:
            continue
    assert starts == 3
    assert settings(found) == settings(undisturbed)
    again = tune(plan, space, data=data, out=tmp_path / "cut", options=options)
    assert again.trials == found.trials  # all are done: nothing is tried any more


def test_more_trials_may_be_asked_for_later(plan: Path, data: list[Path], tmp_path: Path, pretend: Any) -> None:
    pretend(quick)
    first = tune(plan, SPACE, data=data, out=tmp_path / "out", options=TuneOptions(trials=3, pruning="none"))
    more = tune(plan, SPACE, data=data, out=tmp_path / "out", options=TuneOptions(trials=5, pruning="none"))
    assert more.trials[:3] == first.trials
    assert len(more.trials) == 5
    with pytest.raises(UsageError, match="holds another search: plan, space, texts, sampler, measure or seed differ"):
        tune(plan, SPACE, data=data, out=tmp_path / "out", options=TuneOptions(seed=1))
    with pytest.raises(UsageError, match="is not empty and holds no search"):
        tune(plan, SPACE, data=data, out=tmp_path)


def test_trials_worse_than_the_median_are_given_up(plan: Path, data: list[Path], tmp_path: Path, pretend: Any) -> None:
    reported: list[int] = []

    def worse_each_time(trial: Trial, report: Report) -> float:
        number = int(trial.folder.name)
        for rounds in range(1, 5):
            report(rounds, 10.0 + number)
            reported.append(number)
        return 10.0 + number

    pretend(worse_each_time)
    found = tune(plan, SPACE, data=data, out=tmp_path / "out", options=TuneOptions(trials=8, sampler="random"))
    assert [one.state for one in found.trials[:4]] == ["done"] * 4
    assert {one.state for one in found.trials[4:]} == {"given up"}
    assert max(reported.count(number) for number in range(4, 8)) < 4
    assert found.best.number == 0


def test_a_trial_that_diverges_is_an_answer_and_only_failures_are_an_error(
    plan: Path, data: list[Path], tmp_path: Path, pretend: Any
) -> None:
    def diverges_often(trial: Trial, report: Report) -> float:
        if int(trial.folder.name) % 2:
            raise NonFiniteDelta("The loss is nan.")
        return 5.0

    pretend(diverges_often)
    found = tune(plan, SPACE, data=data, out=tmp_path / "some", options=TuneOptions(trials=4))
    assert [one.state for one in found.trials] == ["done", "failed", "done", "failed"]
    assert found.trials[1].error == "The loss is nan."
    with pytest.raises(OperationError, match=r"3 trials, and none came to a result; the last one: .*local.absent"):
        tune(plan, {"local.absent": [1, 2, 3]}, data=data, out=tmp_path / "none", options=TuneOptions(trials=9))


def test_wrong_options_are_told_before_anything_is_made(plan: Path, data: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="quorum is 3, but only 2 institutions are named"):
        tune(plan, SPACE, data=data, out=out, options=TuneOptions(federated=True))
    with pytest.raises(UsageError, match="A federated search looks for perplexity"):
        tune(plan, SPACE, data=data, out=out, options=TuneOptions(federated=True, measure="bits-per-byte"))
    with pytest.raises(UsageError, match="distinct names, got none"):
        tune(plan, SPACE, data=[], out=out)
    instruction = tmp_path / "instruction.yaml"
    instruction.write_text(PLAN + "task: {type: instruction}\n")
    with pytest.raises(UsageError, match="Bits per byte are of running text, the plan's task is instruction"):
        tune(instruction, SPACE, data=data, out=out, options=TuneOptions(measure="bits-per-byte"))
    assert not out.exists()
    assert exit_code_of(app, ["tune", str(plan), str(plan), "--federated", "--data", str(data[0])]) == 2


def test_without_optuna_it_says_which_extra_to_install(
    plan: Path, data: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda package: None)
    with pytest.raises(MissingExtra, match="To search for settings, optuna must be installed") as caught:
        tune(plan, SPACE, data=data, out=tmp_path / "out")
    assert caught.value.fix == "Install them: pip install 'llmasos[tune]'."


@pytest.mark.torch
def test_the_command_trains_each_trial_and_a_learning_rate_that_learns_wins(
    plan: Path, data: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    space = tmp_path / "space.yaml"
    space.write_text("local.optimizer.learning_rate: [0.00001, 0.02]\n")
    named = [argument for folder in data for argument in ("--data", str(folder))]
    arguments = ["tune", str(plan), str(space), *named, "--out", str(tmp_path / "out"), "--threads", "1"]
    options = ["--sampler", "grid", "--measure", "bits-per-byte", "--pruning", "none", "--format", "json"]
    assert exit_code_of(app, [*arguments, *options]) == 0
    told = json.loads(capsys.readouterr().out)
    assert load_plan(Path(told["best"]["plan"])).local.optimizer.learning_rate == Decimal("0.02")
    by_rate = {one["settings"]["local.optimizer.learning_rate"]: one for one in told["trials"]}
    assert len(by_rate["0.02"]["curve"]) == 4
    assert by_rate["0.02"]["value"] < by_rate["1e-05"]["value"] < 8.1  # 8 bits a byte is knowing nothing
    assert not (tmp_path / "out" / "work").exists()
