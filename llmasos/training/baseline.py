"""The same training without a federation, to compare with: one institution alone, or all text in one place.

    python -m llmasos.training.baseline CONFIG.json

Prints JSON lines: progress while it trains, and at last the result.

    {"event": "progress", "steps_done": 25, "steps_total": 200, "tokens_done": 25600, "loss_fixed": 301250}
    {"event": "result", "evaluations": {"north": {"loss_sum_fixed": 1, "num_tokens": 1}}, "train_loss": 2.1, "seconds": 9.5}

Model, initial weights, schedule, split and optimizer are the plan's. A step draws from each institution's text what its
participant draws in that step of that round, given the same round seeds: so *alone* trains on the very batches that the
institution gives the federation, and *pooled* on those of all institutions, in steps that many times as large.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from common.errors import InvalidConfiguration, LLMasOSError, UsageError
from common.ledger.cohort import local_seed, round_seed
from common.names import Name
from common.plan.model import Plan
from llmasos.evaluation.perplexity import LOSS_SCALE, LossSums, evaluate
from llmasos.extras import require_train
from llmasos.models.build import export_hf, model_of
from llmasos.models.tensors import read_tensors
from llmasos.preparation import Prepared, load_prepared
from llmasos.tasks.base import Batch, together
from llmasos.tasks.registry import objective_of
from llmasos.tokenizers import load
from llmasos.training.corpus import Corpus, Source, prepare_corpus
from llmasos.training.device import set_up
from llmasos.training.loop import LocalTraining, RoundSums, RoundWork, StepDone

_PROGRESS_SECONDS = 0.25


class Section(BaseModel):
    """Base of what the configuration holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Institution(Section):
    """An institution's folder of text."""

    name: Name
    folder: Path
    text_column: str | None = None


class Config(Section):
    """What to train and measure. Paths are relative to the working folder."""

    draft: Annotated[Path, Field(description="Folder that `llmasos plan prepare` made.")]
    train: Annotated[tuple[Institution, ...], Field(min_length=1)]
    evaluate: Annotated[tuple[Institution, ...], Field(min_length=1)]
    steps: Annotated[int, Field(ge=1, description="Optimizer steps in all; a federation's are rounds × local.steps.")]
    batch_multiplier: Annotated[int | None, Field(ge=1, description="Batches a step. Default: one an institution.")] = (
        None
    )
    seed: Annotated[int, Field(ge=0, lt=2**32, description="Round seeds come from it where round_seeds ends.")] = 0
    round_seeds: Annotated[
        tuple[int, ...], Field(description="Seeds of a federation's rounds, from the first on.")
    ] = ()
    threads: Annotated[int, Field(ge=1)] = 1
    out: Annotated[Path | None, Field(description="Where to put the model in Hugging Face layout.")] = None
    tokens: Annotated[Path | None, Field(description="Where encoded text is kept and found again; owner-only.")] = None

    @property
    def institutions(self) -> tuple[Institution, ...]:
        """All that are named, once each."""
        return tuple({one.name: one for one in (*self.train, *self.evaluate)}.values())

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Config:
        if len(set(self.train) | set(self.evaluate)) != len(self.institutions):
            raise ValueError("one name stands for two folders")
        return self


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a baseline came to. `train_loss` is the mean over its last round, nats a token."""

    evaluations: dict[str, LossSums]
    train_loss: float
    seconds: float

    def as_json(self) -> dict[str, Any]:
        return {
            "event": "result",
            "evaluations": {name: sums._asdict() for name, sums in self.evaluations.items()},
            "train_loss": self.train_loss,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, slots=True)
class Advance:
    """How far a baseline is, over all rounds. `loss_fixed` is the newest step's mean loss, nats × 2^16."""

    steps_done: int
    steps_total: int
    tokens_done: int
    loss_fixed: int


Report = Callable[[Advance], None]


class Draws:
    """Batches of several institutions, as their participants would draw them."""

    def __init__(self, config: Config, plan: Plan, corpora: dict[str, Corpus]) -> None:
        self._config = config
        self._corpora = corpora
        self._local_steps = plan.local.steps
        self._batches = config.batch_multiplier or len(config.train)

    def seed(self, index: int, name: str, turn: int = 0) -> int:
        """An institution's seed in the round of that index, from 0; `turn` counts its batches within one step."""
        given = self._config.round_seeds
        seed = given[index] if index < len(given) else round_seed(str(self._config.seed), index + 1)
        return local_seed(seed, name if turn == 0 else f"{name}/{turn}")

    def batch(self, index: int, step: int) -> Batch:
        """The batches of one step in round `index`, one below the other.

        They go round the institutions; an institution's first batch in a step is the one that its participant draws.
        """
        institutions = self._config.train
        first = (index * self._local_steps + step) * self._batches
        parts = []
        for number in range(first, first + self._batches):
            name = institutions[number % len(institutions)].name
            seed = self.seed(index, name, (number - first) // len(institutions))
            parts.append(self._corpora[name].batch(seed=seed, step=step))
        return together(parts)


def train_baseline(config: Config, report: Report) -> Outcome:
    """Train the plan's model on `config.train` and measure it on `config.evaluate`; `report` hears of every step.

    Nothing pulls to a base model, whatever the plan's `fedprox_mu`: there are no rounds and nobody to drift from.

    Raises:
        NotInitialised, InvalidConfiguration, BadBlobReference: the prepared folder is not whole.
        TooLittleData, UnreadableData, UsageError: about a folder of text.
        NonFiniteDelta: training diverged.
    """
    started = time.monotonic()
    machine = set_up(config.threads)
    prepared = load_prepared(config.draft)
    plan = prepared.draft.plan
    with ExitStack() as resources:
        root = config.tokens or Path(resources.enter_context(TemporaryDirectory(prefix="llmasos-baseline-")))
        corpora = {
            one.name: resources.enter_context(
                prepare_corpus([Source(one.folder, one.text_column)], prepared.tokenizer, root, plan)
            )
            for one in config.institutions
        }
        training = LocalTraining(plan, _initial_model(prepared), machine)
        sums = _train(config, plan, training, Draws(config, plan, corpora), report)
        evaluations = {one.name: _measure(training.model, corpora[one.name]) for one in config.evaluate}
    if config.out is not None:
        export_hf(training.model.to("cpu"), prepared.tokenizer, config.out)
    train_loss = (sums.mean_loss_fixed or 0) / LOSS_SCALE
    return Outcome(evaluations, train_loss, time.monotonic() - started)


def _train(config: Config, plan: Plan, training: LocalTraining, draws: Draws, report: Report) -> RoundSums:
    """All rounds, the last one cut short if need be; the sums of the last one."""
    sums, tokens_before, per_round = RoundSums(), 0, plan.local.steps

    def at_boundary(boundary: StepDone) -> None:
        done = index * per_round + boundary.step
        report(Advance(done, config.steps, tokens_before + boundary.sums.num_tokens, boundary.loss_fixed))

    def draw(step: int) -> Batch:
        return draws.batch(index, step)

    for index in range(-(-config.steps // per_round)):
        if plan.local.optimizer_state == "reset":
            training.load_moments({})
        steps = min(per_round, config.steps - index * per_round)
        seed = draws.seed(index, config.train[0].name)
        sums = training.run_round(RoundWork(trained_rounds=index, seed=seed, steps=steps), draw, at_boundary)
        tokens_before += sums.num_tokens
    return sums


def _initial_model(prepared: Prepared) -> torch.nn.Module:
    plan = prepared.draft.plan
    model = model_of(plan, load(prepared.tokenizer))
    read_tensors(model, prepared.model, prepared.draft.manifest)
    return model


def _measure(model: torch.nn.Module, corpus: Corpus) -> LossSums:
    local = corpus.plan.local
    batch_size = local.micro_batch_size or local.batch_size
    return evaluate(model, objective_of(corpus.plan.task), corpus.held_out_rows(), batch_size=batch_size)


class _Printer:
    """Progress as JSON lines, at most one each `_PROGRESS_SECONDS`, and the last step in any case."""

    def __init__(self) -> None:
        self._next_at = 0.0

    def __call__(self, advance: Advance) -> None:
        now = time.monotonic()
        if now >= self._next_at or advance.steps_done == advance.steps_total:
            self._next_at = now + _PROGRESS_SECONDS
            print(json.dumps({"event": "progress", **asdict(advance)}), flush=True)


def load_config(path: Path) -> Config:
    """
    Raises:
        UsageError: the file cannot be read.
        InvalidConfiguration: it is not a configuration.
    """
    try:
        return Config.model_validate_json(path.read_bytes())
    except OSError as err:
        raise UsageError(f"{path} could not be read: {err.strerror or err}.") from err
    except ValidationError as err:
        raise InvalidConfiguration(f"{path} is not a baseline's configuration: {err}") from err


def main(arguments: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(prog="python -m llmasos.training.baseline", description="Train without a federation.")
    parser.add_argument("config", type=Path, help="JSON file; see Config")
    path: Path = parser.parse_args(arguments).config
    try:
        require_train("torch", "transformers", "tokenizers", task="train a baseline")
        outcome = train_baseline(load_config(path), _Printer())
    except LLMasOSError as err:
        print(err, file=sys.stderr)
        return err.exit_code
    print(json.dumps(outcome.as_json()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
