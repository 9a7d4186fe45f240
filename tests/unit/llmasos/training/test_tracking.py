"""Rows reach TensorBoard's files, MLflow, W&B or a function; what is missing is said before anything is trained."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from common.errors import InvalidConfiguration, MissingExtra, StorageFailure
from llmasos import extras
from llmasos.training import tracking
from llmasos.training.tracking import TensorBoard, check_log_to, tracked

SETTINGS = {"seed": 1, "local": {"steps": 3, "optimizer": {"type": "adamw"}}}
FLAT = {"seed": 1, "local.steps": 3, "local.optimizer.type": "adamw"}
ROWS = ({"step": 1, "loss": 5.5, "validation_loss": None}, {"step": 2, "loss": 5.0, "validation_loss": 5.25})


def installed(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> Any:
    module: Any = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    module.__dict__.update(members)
    monkeypatch.setitem(sys.modules, name, module)
    return module


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Any:
    said: list[Any] = []
    return installed(
        monkeypatch,
        "mlflow",
        said=said,
        active_run=lambda: None,
        set_experiment=lambda name: said.append(("experiment", name)),
        start_run=lambda: said.append("start"),
        log_params=lambda params: said.append(("params", params)),
        log_metrics=lambda numbers, step: said.append((step, numbers)),
        end_run=said.append,
    )


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Any:
    said: list[Any] = []
    run = SimpleNamespace(
        define_metric=lambda name, step_metric: said.append((name, step_metric)),
        log=said.append,
        finish=lambda exit_code: said.append(exit_code),  # noqa: PLW0108  by name,
    )
    return installed(
        monkeypatch,
        "wandb",
        said=said,
        run=None,
        open=run,
        init=lambda project, config: said.append((project, config)) or run,
    )


def log_all(log_to: Any) -> None:
    with tracked(log_to, SETTINGS) as log:
        for row in ROWS:
            log(dict(row))


def fail_in(log_to: str) -> None:
    with pytest.raises(ZeroDivisionError), tracked(log_to, SETTINGS):
        raise ZeroDivisionError


def test_a_function_gets_each_row() -> None:
    rows: list[Any] = []
    log_all(rows.append)
    assert tuple(rows) == ROWS


def test_mlflow_gets_settings_numbers_and_how_it_ended(mlflow: Any) -> None:
    log_all("mlflow:tiny models")
    assert mlflow.said == [
        ("experiment", "tiny models"),
        "start",
        ("params", FLAT),
        (1, {"loss": 5.5}),
        (2, {"loss": 5.0, "validation_loss": 5.25}),
        "FINISHED",
    ]
    mlflow.said.clear()
    fail_in("mlflow")
    assert mlflow.said == ["start", ("params", FLAT), "FAILED"]


def test_a_run_of_mlflows_that_is_open_is_used_and_stays_open(mlflow: Any) -> None:
    mlflow.active_run = lambda: "mine"
    log_all("mlflow:tiny models")
    assert mlflow.said == [(1, {"loss": 5.5}), (2, {"loss": 5.0, "validation_loss": 5.25})]


def test_wandb_gets_settings_numbers_and_how_it_ended(wandb: Any) -> None:
    log_all("wandb:tiny")
    rows = [{"step": 1, "loss": 5.5}, ROWS[1]]
    assert wandb.said == [("tiny", FLAT), ("*", "step"), *rows, 0]
    wandb.said.clear()
    fail_in("wandb")
    assert wandb.said == [(None, FLAT), ("*", "step"), 1]
    wandb.said.clear()
    wandb.run = wandb.open
    log_all("wandb:tiny")
    assert wandb.said == [("*", "step"), *rows]


def test_tensorboard_gets_a_scalar_a_number(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("tensorboard")
    log_all(f"tensorboard:{tmp_path / 'logs'}")
    assert scalars(tmp_path / "logs") == {"loss": [(1, 5.5), (2, 5.0)], "validation_loss": [(2, 5.25)]}
    again = TensorBoard(tmp_path / "logs", first_step=2)
    again.log({"step": 2, "loss": 4.0})
    again.close(True)
    assert scalars(tmp_path / "logs")["loss"] == [(1, 5.5), (2, 4.0)]
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailure, match=r"file/logs cannot take TensorBoard's event files: Not a directory"):
        log_all(f"tensorboard:{tmp_path / 'file' / 'logs'}")


def test_what_is_not_installed_or_unknown_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda package: None)
    monkeypatch.setattr(tracking, "find_spec", lambda package: None)
    for log_to, fix in (
        ("tensorboard:logs", "Install them: pip install 'llmasos[tracking]'."),
        ("mlflow", "Install it: pip install mlflow."),
        ("wandb:tiny", "Install it: pip install wandb."),
    ):
        with pytest.raises(MissingExtra, match=log_to.partition(":")[0]) as caught:
            check_log_to(log_to)
        assert caught.value.fix == fix
    with pytest.raises(InvalidConfiguration, match="log_to is 'comet', expected 'tensorboard:DIR'"):
        check_log_to("comet")
    with pytest.raises(InvalidConfiguration, match="log_to names no folder"):
        check_log_to("tensorboard")


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder)).Reload()
    return {
        name: [(each.step, each.value) for each in events.Scalars(name)] for name in sorted(events.Tags()["scalars"])
    }
