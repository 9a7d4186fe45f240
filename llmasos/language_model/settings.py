"""What a fit is asked for besides data, optimizer, loss and length: how it trains, and what it tells.

    settings = llmasos.TrainingSettings(schedule="linear", warmup_steps=100, precision="bfloat16")
    model.fit(data.train, epochs=3, training=settings, logging=llmasos.LoggingSettings(log_to="tensorboard:logs"))

Names are those of transformers' TrainingArguments where it has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.errors import InvalidConfiguration
from llmasos.training.tracking import LogTo


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """How a fit trains: what a plan's `local` says of it, and the device. One value can serve many fits.

    Args:
        schedule: of the learning rate, by its type in a plan's `local.schedule`: "cosine", "constant", "linear",
            "warmup-stable-decay", "inverse-sqrt", "noam"; or a mapping with its fields.
        warmup_steps: until the learning rate is reached; by default a twentieth of the steps.
        max_grad_norm: longer gradients are scaled down to this L2 norm.
        micro_batch_size: sequences at once on the device, the rest accumulates; by default the whole batch.
        precision: "float32", or "bfloat16" for autocast where the device has it.
        gradient_checkpointing: less memory for a third more time, and the same numbers.
        compile: train through torch.compile where the machine can; the history says where it cannot.
        device: "cpu" or "cuda"; by default CUDA where there is one.

    A value out of range is named by the fit that gets it.
    """

    schedule: str | Mapping[str, Any] = "cosine"
    warmup_steps: int | None = None
    max_grad_norm: float = 1.0
    micro_batch_size: int | None = None
    precision: str = "float32"
    gradient_checkpointing: bool = False
    compile: bool = False
    device: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingSettings:
    """What a fit tells, and to whom.

    Args:
        logging_steps: steps between the history's rows; by default as many as make 200 rows.
        eval_steps: steps between measurements of the fit's `validation`; by default an epoch, or the whole fit where it was
            asked for steps.
        log_to: where the history's rows go too: "tensorboard:DIR", "mlflow" or "mlflow:EXPERIMENT", "wandb" or
            "wandb:PROJECT", a function that takes a row, or several of these. An open run of MLflow's or W&B's is used and
            stays open.

    Raises:
        InvalidConfiguration: steps below 1, or a log_to that is nothing of these.
    """

    logging_steps: int | None = None
    eval_steps: int | None = None
    log_to: LogTo | Sequence[LogTo] | None = None

    def __post_init__(self) -> None:
        for name, steps in (("logging_steps", self.logging_steps), ("eval_steps", self.eval_steps)):
            if steps is not None and (not isinstance(steps, int) or steps < 1):
                raise InvalidConfiguration(f"{name} is {steps!r}, expected a whole number from 1.", "Leave it out.")
        one = isinstance(self.log_to, str) or callable(self.log_to) or self.log_to is None
        if not one and not isinstance(self.log_to, list | tuple):
            raise InvalidConfiguration(
                f"log_to is {self.log_to!r}, expected a service, a function of a row, or a list of them.",
                "As in log_to='tensorboard:DIR'.",
            )

    @property
    def all_logs(self) -> tuple[LogTo, ...]:
        """`log_to` as a tuple."""
        if self.log_to is None:
            return ()
        return (self.log_to,) if isinstance(self.log_to, str) or callable(self.log_to) else tuple(self.log_to)
