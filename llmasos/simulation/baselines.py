"""The same training without a federation, for comparison: each institution alone, and all text in one place.

Each baseline is a process, `python -m llmasos.training.baseline CONFIG.json`. Half of the cores go to the pooled training,
which is as much work as all the others together; these take turns on the other half, a thread each.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from common.errors import OperationError
from llmasos.simulation.deployment import InstitutionFolder, module_command
from llmasos.simulation.layout import Layout
from llmasos.simulation.processes import Child, Lines, Processes, failed
from llmasos.simulation.progress import BaselineState, Progress
from llmasos.simulation.results import Comparison, Scores, scores_from_sums
from llmasos.simulation.watch import LOSS_SCALE, View

POOLED_DATA = "pooled data"
COMMAND = module_command("llmasos.training.baseline")
IDLE_SECONDS = 0.5


class Advanced(View):
    """A line of progress."""

    event: Literal["progress"]
    steps_done: int
    steps_total: int
    loss_fixed: int


class Sums(View):
    """A held-out loss, nats × 2^16, and over how many tokens."""

    loss_sum_fixed: int
    num_tokens: int


class Measured(View):
    """The last line: held-out losses by institution."""

    event: Literal["result"]
    evaluations: dict[str, Sums]

    def scores(self) -> Scores:
        return scores_from_sums({name: (s.loss_sum_fixed, s.num_tokens) for name, s in self.evaluations.items()})


LINE: TypeAdapter[Advanced | Measured] = TypeAdapter(Annotated[Advanced | Measured, Field(discriminator="event")])


@dataclass(frozen=True, slots=True)
class BaselineJob:
    """One training: on whose text, with how many times the plan's batch, on how many threads."""

    name: str
    train_on: tuple[InstitutionFolder, ...]
    batch_multiplier: int = 1
    threads: int = 1


@dataclass(frozen=True, slots=True)
class BaselineSet:
    """What all baselines of a simulation share. `steps` are an institution's in the federation."""

    institutions: tuple[InstitutionFolder, ...]
    steps: int
    batch_multiplier: int
    seed: int
    cores: int

    def jobs(self) -> list[BaselineJob]:
        """The pooled training first: it is the longest."""
        threads = max(1, self.cores // 2)
        pooled = BaselineJob(POOLED_DATA, self.institutions, self.batch_multiplier, threads)
        return [pooled, *(BaselineJob(f"alone: {one.name}", (one,)) for one in self.institutions)]


def run_baselines(work: BaselineSet, layout: Layout, processes: Processes, show: Progress) -> Comparison:
    """Train and measure all of them. `encode_texts` must have been called: they share its tokens.

    Raises:
        OperationError: one failed; holds the end of its log.
    """
    scores = Schedule(work, layout, processes, show).run()
    alone = {one.name: scores[f"alone: {one.name}"] for one in work.institutions}
    return Comparison(alone, scores[POOLED_DATA], work.steps, work.batch_multiplier)


class Schedule:
    """Runs jobs in order, as many at once as there are threads for."""

    def __init__(self, work: BaselineSet, layout: Layout, processes: Processes, show: Progress) -> None:
        self._work = work
        self._layout = layout
        self._processes = processes
        self._show = show
        self._waiting = work.jobs()
        self._running: dict[Child, BaselineJob] = {}
        self._scores: dict[str, Scores] = {}
        self._lines = Lines()

    def run(self) -> dict[str, Scores]:
        """Scores by the jobs' names."""
        try:
            while self._waiting or self._running:
                self._start_what_fits()
                for child, line in self._lines.wait(IDLE_SECONDS):
                    self._hear(self._running[child], line)
                for child in [child for child in self._running if child not in self._lines.open]:
                    self._finish(child, self._running.pop(child))
        finally:
            self._lines.close()
        return self._scores

    def _start_what_fits(self) -> None:
        used = sum(job.threads for job in self._running.values())
        while self._waiting and (not self._running or used + self._waiting[0].threads <= self._work.cores):
            job = self._waiting.pop(0)
            child = self._start(job)
            self._running[child] = job
            self._lines.add(child)
            used += job.threads

    def _start(self, job: BaselineJob) -> Child:
        folder = self._folder(job)
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "config.json"
        config.write_text(json.dumps(configuration(job, self._work, self._layout), indent=2), encoding="utf-8")
        argv = [*COMMAND, str(config)]
        self._show.baseline(BaselineState(job.name, 0, self._work.steps))
        return self._processes.start(job.name, argv, log=folder / "baseline.log", capture=True)

    def _hear(self, job: BaselineJob, line: bytes) -> None:
        """A line of a baseline's output: progress, or at last its result."""
        found = parse_line(job.name, line)
        if isinstance(found, Advanced):
            loss = found.loss_fixed / LOSS_SCALE
            self._show.baseline(BaselineState(job.name, found.steps_done, found.steps_total, loss))
        else:
            self._scores[job.name] = found.scores()

    def _finish(self, child: Child, job: BaselineJob) -> None:
        child.close()
        if child.exit_code != 0 or job.name not in self._scores:
            raise failed(child)
        self._show.baseline(BaselineState(job.name, self._work.steps, self._work.steps, done=True))

    def _folder(self, job: BaselineJob) -> Path:
        return self._layout.baselines / job.name.replace(": ", "-").replace(" ", "-")


def configuration(job: BaselineJob, work: BaselineSet, layout: Layout) -> dict[str, Any]:
    """What the baseline's process reads. It measures on every institution's held-out text, whoever's it trained on."""
    return {
        "draft": str(layout.prepared),
        "train": [_source(one) for one in job.train_on],
        "evaluate": [_source(one) for one in work.institutions],
        "steps": work.steps,
        "batch_multiplier": job.batch_multiplier,
        "seed": work.seed,
        "threads": job.threads,
        "tokens": str(layout.tokens),
    }


def _source(one: InstitutionFolder) -> dict[str, str | None]:
    return {"name": one.name, "folder": str(one.folder.resolve()), "text_column": one.text_column}


def parse_line(name: str, line: bytes) -> Advanced | Measured:
    """A line of a baseline's standard output.

    Raises:
        OperationError: it is something else.
    """
    try:
        return LINE.validate_json(line)
    except ValidationError as error:
        raise OperationError(
            f"The baseline {name!r} printed a line that is no progress and no result: {line[:120]!r}.",
            "Look at its baseline.log.",
        ) from error
