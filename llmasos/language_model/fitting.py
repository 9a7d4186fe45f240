"""A fit: the steps of a plan that nobody signed, by the loop that institutions train with (llmasos.training.loop).

Nothing random outlives a step, so a fit that was stopped at a step and goes on from weights and moments gives the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from common.errors import UsageError
from common.ledger.cohort import round_seed
from common.plan.model import Plan
from llmasos.datasets.loading import Split
from llmasos.evaluation.measure import MeasureOptions, measure
from llmasos.evaluation.perplexity import LOSS_SCALE
from llmasos.language_model.asked import Watched
from llmasos.language_model.bars import Bar, open_bar
from llmasos.language_model.history import History, Row
from llmasos.language_model.stopping import Stopping
from llmasos.tasks.base import Data
from llmasos.training.device import Machine, set_up
from llmasos.training.loop import LocalTraining, RoundSums, RoundWork, StepDone
from llmasos.training.schedule import learning_rate, total_steps
from llmasos.training.tracking import tracked

ROWS = 200
"""Of a history, unless it is asked for others."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a fit came, from which it can go on: `moments` as LocalTraining has them, copies on the CPU."""

    steps: int = 0
    seed: int = 0
    optimizer: str = ""
    """The type of the plan's local optimizer, whose moments they are."""
    moments: Mapping[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Telling:
    """What is told of a fit, and when: lengths in steps."""

    bar: Bar
    logging_steps: int
    eval_steps: int
    validation: Split | None = None
    on_log: tuple[Callable[[Row], None], ...] = ()


class _Stopped(Exception):
    """Ctrl-C was pressed, and the step at hand is done."""


class Fit:
    """One call of `fit`. Weights are changed in place; `history` grows with the steps."""

    def __init__(self, plan: Plan, model: torch.nn.Module, machine: Machine, *, steps: int, telling: Telling) -> None:
        self.plan = plan
        self.steps = steps
        self.training = LocalTraining(plan, model, machine)
        self.history = History(steps, deviations=self.training.deviations)
        self._telling = telling
        self._done = 0
        self._tokens = 0
        self._tokens_before = 0
        self._losses: list[int] = []
        self._started = time.monotonic()

    def run(self, data: Split, progress: Progress) -> Progress:
        """Train from where `progress` ended to the last step, or to the first Ctrl-C.

        Raises:
            TooLittleData: the split is empty, or shorter than a sequence.
            NonFiniteDelta: training diverged.
            OutOfMemory: memory is too little for one sequence.
            KeyboardInterrupt: Ctrl-C twice.
        """
        self._done = progress.steps
        self.training.load_moments(progress.moments)
        with data.opened(self.plan) as opened, Stopping() as stopping:
            try:
                while self._done < self.steps:
                    self._run_round(opened, stopping)
            except _Stopped:
                self.history.interrupted = True
        return Progress(self._done, self.plan.seed, self.plan.local.optimizer.type, _copies(self.training.moments()))

    def _run_round(self, data: Data, stopping: Stopping) -> None:
        """What is left of the round in which the next step is."""
        per_round = self.plan.local.steps
        index = self._done // per_round
        seed = round_seed(str(self.plan.seed), index + 1)
        work = RoundWork(
            trained_rounds=index,
            seed=seed,
            done=RoundSums(steps=self._done % per_round),
            steps=min(per_round, self.steps - index * per_round),
        )
        self._tokens_before = self._tokens
        self.training.run_round(
            work, lambda step: data.batch(seed=seed, step=step), lambda done: self._at_boundary(done, stopping)
        )

    def _at_boundary(self, done: StepDone, stopping: Stopping) -> None:
        """Between two steps: tell, measure, stop."""
        telling = self._telling
        self._done += 1
        self._tokens = self._tokens_before + done.sums.num_tokens
        self._losses.append(done.loss_fixed)
        telling.bar.update(1)
        last = self._done == self.steps
        measured = telling.validation is not None and (last or self._done % telling.eval_steps == 0)
        if last or measured or stopping.asked or self._done % telling.logging_steps == 0:
            self._log(measured)
        if stopping.asked and not last:
            raise _Stopped

    def _log(self, measured: bool) -> None:
        """A row of the history."""
        split = self._telling.validation if measured else None
        loss, perplexity = (None, None) if split is None else self._validate(split)
        seconds = time.monotonic() - self._started
        step = self._done - 1
        row: Row = {
            "step": self._done,
            "tokens": self._tokens,
            "loss": sum(self._losses) / len(self._losses) / LOSS_SCALE,
            "learning_rate": learning_rate(self.plan.local, global_step=step, total=total_steps(self.plan)),
            "validation_loss": loss,
            "validation_perplexity": perplexity,
            "seconds": seconds,
            "tokens_per_second": self._tokens / seconds if seconds else None,
        }
        self._losses.clear()
        self.history.rows.append(row)
        self._telling.bar.set_postfix_str(_said(row))
        for told in self._telling.on_log:
            told(dict(row))

    def _validate(self, split: Split) -> tuple[float, float]:
        options = MeasureOptions(batch_size=self.training.micro_batch, loss_alone=True)
        found = measure(self.training.model, split, self.plan, options)
        return found.loss, found.whole.model.token_perplexity


@contextmanager
def telling(watched: Watched, plan: Plan, total: int, done: int) -> Iterator[Telling]:
    """While it lasts, a bar and what the rows are logged to are open.

    Raises:
        InvalidConfiguration, MissingExtra, StorageFailure: as llmasos.training.tracking.tracked.
    """
    settled = plan.model_dump(mode="json", include={"seed", "task", "model", "adapter", "local"})
    asked = watched.logging
    with ExitStack() as opened:
        logs = [opened.enter_context(tracked(one, settled)) for one in asked.all_logs]
        bar = opened.enter_context(closing(open_bar(total=total, done=done, what="fit", shown=watched.progress_bar)))
        yield Telling(
            bar,
            logging_steps=asked.logging_steps or max(1, total // ROWS),
            eval_steps=asked.eval_steps or watched.eval_steps,
            validation=watched.validation,
            on_log=tuple(logs),
        )


@contextmanager
def machine_for(device: str | None) -> Iterator[Machine]:
    """This process set up as an institution's worker is, and torch's deterministic mode as it was afterwards.

    Args:
        device: "cpu", "cuda", or None for CUDA where there is one.

    Raises:
        UsageError: another device, or CUDA where there is none.
    """
    if device not in (None, "cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise UsageError(f"device is {device!r}, expected 'cpu', 'cuda' where torch finds one, or None to choose.")
    before = torch.are_deterministic_algorithms_enabled()
    machine = set_up(torch.get_num_threads(), allow_cuda=device != "cpu")
    try:
        yield machine
    finally:
        torch.use_deterministic_algorithms(before)


def _copies(moments: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    return {name: value.detach().to("cpu", copy=True) for name, value in moments.items()}


def _said(row: Row) -> str:
    text = f"loss {row['loss']:.3f}"
    return text if row["validation_loss"] is None else f"{text}, validation {row['validation_loss']:.3f}"
