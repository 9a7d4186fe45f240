"""Where the numbers of a training on this machine go besides the terminal: TensorBoard, MLflow, Weights & Biases, a function.

with tracked("tensorboard:logs/first", settings) as log:
    log({"step": 10, "loss": 5.2})

MLflow and W&B are the user's own installs, configured and logged in as always; where they send things is what they were told. A
federation's worker writes TensorBoard's files alone (participant.worker.tracking).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from common.errors import InvalidConfiguration, MissingExtra, StorageFailure
from llmasos.extras import require_extra

Row = dict[str, Any]
Log = Callable[[Row], None]
"""Takes a row: `step`, and other numbers by name; None where one was not measured."""
LogTo = str | Log

TENSORBOARD, MLFLOW, WANDB = "tensorboard", "mlflow", "wandb"


def check_log_to(*logs: LogTo) -> None:
    """Before anything is trained, whether `tracked` can do each.

    Raises:
        InvalidConfiguration: it names no service, or TensorBoard without a folder.
        MissingExtra: the service's package is not installed.
    """
    for log_to in logs:
        if not callable(log_to):
            _check_service(*_parts(log_to))


def _check_service(service: str, name: str) -> None:
    if service == TENSORBOARD:
        if not name:
            raise InvalidConfiguration("log_to names no folder.", "Write log_to='tensorboard:DIR'.")
        require_extra("tracking", "tensorboard", task="write TensorBoard's event files")
    elif find_spec(service) is None:
        raise MissingExtra(
            f"To log to {service}, {service} must be installed, and cannot be found.",
            f"Install it: pip install {service}.",
        )


@contextmanager
def tracked(log_to: LogTo, settings: Mapping[str, Any]) -> Iterator[Log]:
    """While it lasts, what it gives takes rows. A run of MLflow's or W&B's that is open already is used, and stays open.

    Args:
        log_to: "tensorboard:DIR", "mlflow" or "mlflow:EXPERIMENT", "wandb" or "wandb:PROJECT", or a function of a row.
        settings: what is trained and how, kept with the numbers by MLflow and W&B.

    Raises:
        InvalidConfiguration, MissingExtra: as check_log_to.
        StorageFailure: the folder cannot be written.
    """
    check_log_to(log_to)
    if callable(log_to):
        yield log_to
        return
    tracker = _open(log_to, flat(settings))
    done = False
    try:
        yield tracker.log
        done = True
    finally:
        tracker.close(done)


class Tracker(Protocol):
    """One service."""

    def log(self, row: Row) -> None: ...

    def close(self, done: bool) -> None:
        """All was logged; `done` unless the training failed."""
        ...


class TensorBoard:
    """Event files in a folder: one scalar a number."""

    def __init__(self, folder: Path, *, first_step: int | None = None) -> None:
        """
        Args:
            first_step: points at this step and after it that stand there already are taken back.

        Raises:
            StorageFailure: the folder cannot be written.
        """
        writer = import_module("torch.utils.tensorboard").SummaryWriter
        try:
            self._writer: Any = writer(str(folder), purge_step=first_step)
        except OSError as err:
            raise StorageFailure(f"{folder} cannot take TensorBoard's event files: {err.strerror or err}.") from err

    def log(self, row: Row) -> None:
        for name, value in measured(row).items():
            if name != "step":
                self._writer.add_scalar(name, value, row["step"])

    def close(self, done: bool) -> None:
        self._writer.close()


class MLflow:
    """A run of MLflow's."""

    def __init__(self, experiment: str, settings: Mapping[str, Any]) -> None:
        self._mlflow: Any = import_module(MLFLOW)
        self._own = self._mlflow.active_run() is None
        if self._own:
            if experiment:
                self._mlflow.set_experiment(experiment)
            self._mlflow.start_run()
            self._mlflow.log_params(dict(settings))

    def log(self, row: Row) -> None:
        numbers = measured(row)
        self._mlflow.log_metrics(numbers, step=numbers.pop("step"))

    def close(self, done: bool) -> None:
        if self._own:
            self._mlflow.end_run("FINISHED" if done else "FAILED")


class WandB:
    """A run of Weights & Biases'. Its own step counts calls, of all fits in it; so the fit's is logged as a number."""

    def __init__(self, project: str, settings: Mapping[str, Any]) -> None:
        wandb: Any = import_module(WANDB)
        self._own = wandb.run is None
        self._run = wandb.init(project=project or None, config=dict(settings)) if self._own else wandb.run
        self._run.define_metric("*", step_metric="step")

    def log(self, row: Row) -> None:
        self._run.log(measured(row))

    def close(self, done: bool) -> None:
        if self._own:
            self._run.finish(exit_code=0 if done else 1)


def measured(row: Row) -> Row:
    """What of a row was measured."""
    return {name: value for name, value in row.items() if value is not None}


def flat(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """{"local": {"steps": 3}} as {"local.steps": 3}."""
    result: dict[str, Any] = {}
    for name, value in settings.items():
        result |= flat(value, f"{before}{name}.") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return result


def _parts(log_to: str) -> tuple[str, str]:
    service, _, name = log_to.partition(":")
    if service not in (TENSORBOARD, MLFLOW, WANDB):
        raise InvalidConfiguration(
            f"log_to is {log_to!r}, expected 'tensorboard:DIR', 'mlflow', 'mlflow:EXPERIMENT', 'wandb', 'wandb:PROJECT', "
            "or a function of a row."
        )
    return service, name


def _open(log_to: str, settings: Mapping[str, Any]) -> Tracker:
    service, name = _parts(log_to)
    if service == TENSORBOARD:
        return TensorBoard(Path(name))
    return MLflow(name, settings) if service == MLFLOW else WandB(name, settings)
