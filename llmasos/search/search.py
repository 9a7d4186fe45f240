"""The loop of a search: ask optuna for settings, try them, tell what came of it. Every trial stands in SQLite at once.

    found = tune(Path("plan.yaml"), {"local.optimizer.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}},
                 data=[Path("corpus")], out=Path("out/search"))
    print(found.best.value, found.best.settings)           # and out/search/best.yaml, report.html, search.svg, trials.json

A search that was killed goes on when it is started again with the same arguments: what it was trying then is tried again, and
what is drawn follows from the seed and from what was tried, so that the trials are those of a search that was never killed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal

from common.errors import HomeLocked, LLMasOSError, OperationError, UsageError
from common.plan.load import load_plan, plan_yaml
from common.plan.model import Plan
from llmasos.extras import require_extra, require_train
from llmasos.search.objective import (
    FederatedObjective,
    LocalObjective,
    Measure,
    Report,
    Text,
    Trial,
    absolute,
    check_texts,
)
from llmasos.search.space import Choices, Range, Space, decimal, from_json, parse_space, read_space

if TYPE_CHECKING:
    import optuna

Sampler = Literal["tpe", "random", "grid"]
Pruning = Literal["median", "hyperband", "none"]
Objective = Callable[[Trial, Report], float]
STUDY = "llmasos"
HOPELESS = 3
"""So many plans that cannot be trained, and none that can, end a search: the fault is in what all have in common."""
_CUT, _ERROR, _CODE = "cut", "error", "code"


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """How a search goes."""

    sampler: Sampler = "tpe"
    """How settings are chosen: "grid", "random", or by what earlier trials came to (Bergstra et al. 2011)."""
    trials: int = 20
    """Settings to try in all, those of an earlier start included; a grid tries all of its own, or so many."""
    pruning: Pruning = "median"
    """Which trials are given up early: worse than the median at the same round, or by Hyperband's brackets."""
    measure: Measure = "perplexity"
    """What the search makes small."""
    federated: bool = False
    """Each trial a simulation of all institutions, in place of training on their text in one place."""
    seed: int = 0
    """Of the choice of settings; what trains has the plan's."""
    threads: int = 1
    """Of each training."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One trial. `curve` holds the number after so many rounds; `error` says why it failed."""

    number: int
    state: Literal["done", "given up", "failed"]
    value: float | None
    settings: Mapping[str, object]
    curve: Mapping[int, float]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Search:
    """All trials of a search, in their order, and the best."""

    out: Path
    measure: Measure
    trials: tuple[Tried, ...]
    best: Tried

    @property
    def best_plan(self) -> Path:
        """The plan file with the best trial's settings."""
        return self.out / "best.yaml"


def tune(
    plan: Path,
    space: Path | Mapping[str, Any],
    *,
    data: Sequence[Path | Text],
    out: Path,
    options: TuneOptions | None = None,
    on_trial: Callable[[Tried], None] = lambda tried: None,
) -> Search:
    """Search the plan's settings in `space` for the smallest held-out number; everything is written into `out`.

    Args:
        space: a YAML file, or the same as a mapping; see llmasos.search.space.
        data: folders of text; without a federation they are one text, in a federated search an institution each.
        on_trial: hears of each trial when it has ended.

    Raises:
        InvalidConfiguration: plan or space are not as they must be.
        UsageError: wrong options, or `out` holds another search.
        HomeLocked: another process searches there.
        OperationError: no trial came to a result; holds what the last one said.
        MissingExtra: optuna, torch, transformers or tokenizers is not installed.
    """
    require_extra("tune", "optuna", task="search for settings")
    require_train("torch", "transformers", "tokenizers", task="search for settings")
    options = options or TuneOptions()
    base = absolute(load_plan(plan), plan.resolve().parent)
    texts = tuple(one if isinstance(one, Text) else Text(_name(one), one) for one in data)
    check_texts(texts, base, federated=options.federated, measure=options.measure)
    if options.trials < 1:
        raise UsageError(f"trials is {options.trials}, expected 1 or more.")
    found = read_space(space) if isinstance(space, Path) else parse_space(space)
    objective: Objective = (
        FederatedObjective(texts) if options.federated else LocalObjective(texts, options.measure, options.threads)
    )
    with _claimed(out):
        return _Loop(plan, base, found, options, out, objective, _identity(base, found, texts, options)).run(on_trial)


class _Loop:
    """One start of a search in its folder."""

    def __init__(
        self,
        file: Path,
        base: Plan,
        space: Space,
        options: TuneOptions,
        out: Path,
        objective: Objective,
        identity: str,
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._file, self._base, self._space, self._options, self._out = file, base, space, options, out
        self._objective = objective
        self._study = optuna.create_study(
            storage=f"sqlite:///{(out / 'search.db').resolve()}",
            study_name=STUDY,
            direction="minimize",
            load_if_exists=True,
            pruner=_pruner(options, base.rounds),
        )
        known = self._study.user_attrs.setdefault("identity", identity)
        if known != identity:
            raise UsageError(
                f"{out} holds another search: plan, space, texts, sampler, measure or seed differ.",
                "Name another --out, or give the same arguments as before; the number of trials may differ.",
            )
        self._study.set_user_attr("identity", identity)

    def run(self, on_trial: Callable[[Tried], None]) -> Search:
        self._take_up()
        while self._is_wanted():
            on_trial(self._try_one())
            self._check_hopeful()
        return self._finish()

    def _take_up(self) -> None:
        """Trials that a killed search was in: tried again, under a new number."""
        from optuna.trial import TrialState

        for trial in self._study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            self._study._storage.set_trial_user_attr(trial._trial_id, _CUT, True)
            self._study.tell(trial.number, state=TrialState.FAIL)
            if trial.params:
                self._study.enqueue_trial(trial.params)

    def _waiting(self) -> bool:
        from optuna.trial import TrialState

        return bool(self._study.get_trials(deepcopy=False, states=[TrialState.WAITING]))

    def _is_wanted(self) -> bool:
        if self._waiting():
            return True
        if len(self._tried()) >= self._options.trials:
            return False
        return self._options.sampler != "grid" or self._next_of_grid() is not None

    def _next_of_grid(self) -> dict[str, Any] | None:
        """The first point of the grid that was not tried, in an order that follows from the seed.

        Not optuna's GridSampler: at its end it stops the loop of `Study.optimize`, which this is not.
        """
        tried = [dict(one.settings) for one in self._tried()]
        values = [one.grid(field) for field, one in self._space.items()]
        points = [dict(zip(self._space, point, strict=True)) for point in product(*values)]
        Random(self._options.seed).shuffle(points)
        return next((point for point in points if point not in tried), None)

    def _try_one(self) -> Tried:
        import optuna
        from optuna.trial import TrialState

        self._study.sampler = self._sampler()
        if self._options.sampler == "grid" and not self._waiting() and (point := self._next_of_grid()) is not None:
            self._study.enqueue_trial(point)
        trial = self._study.ask()
        folder = self._out / "trials" / f"{trial.number:04d}"

        def report(rounds: int, value: float) -> None:
            trial.report(value, rounds)
            if rounds < self._base.rounds and trial.should_prune():
                raise optuna.TrialPruned

        try:
            value = self._objective(Trial(self._plan(trial), folder, self._out / "work"), report)
            self._study.tell(trial, value)
        except optuna.TrialPruned:
            self._study.tell(trial, state=TrialState.PRUNED)
        except LLMasOSError as err:  # a plan that cannot be, or diverges, is an answer too
            trial.set_user_attr(_ERROR, err.message)
            trial.set_user_attr(_CODE, err.code)
            self._study.tell(trial, state=TrialState.FAIL)
        shutil.rmtree(folder / "prepared", ignore_errors=True)
        return _tried(self._study.get_trials(deepcopy=False)[trial.number])

    def _plan(self, trial: optuna.Trial) -> Plan:
        """The plan with this trial's settings.

        Raises:
            InvalidConfiguration: they do not go together, or a field is none of a plan's.
        """
        overrides = {field: one.suggest(trial, field) for field, one in self._space.items()}
        return absolute(load_plan(self._file, overrides=overrides), self._file.resolve().parent)

    def _sampler(self) -> optuna.samplers.BaseSampler:
        """A new one for each trial, seeded by how many were tried: nothing hangs on where a search was cut."""
        from optuna.samplers import RandomSampler, TPESampler

        drawn = hashlib.sha256(f"{self._options.seed}/{len(self._tried())}".encode()).digest()
        seed = int.from_bytes(drawn[:4], "big")
        if self._options.sampler == "tpe":
            return TPESampler(seed=seed, multivariate=True, n_startup_trials=8)
        return RandomSampler(seed=seed)

    def _tried(self) -> list[Tried]:
        return [
            _tried(trial)
            for trial in self._study.get_trials(deepcopy=False)
            if trial.state.is_finished() and not trial.user_attrs.get(_CUT)
        ]

    def _check_hopeful(self) -> None:
        """
        Raises:
            OperationError: the first trials all failed.
        """
        tried = self._tried()
        if len(tried) >= HOPELESS and all(one.state == "failed" for one in tried):
            self._refuse(tried)

    def _refuse(self, tried: Sequence[Tried]) -> None:
        raise OperationError(
            f"{len(tried)} trials, and none came to a result; the last one: {tried[-1].error}",
            "Correct plan, space or text, and name another --out or remove this one.",
        )

    def _finish(self) -> Search:
        from llmasos.search.report import write_reports

        tried = self._tried()
        done = [one for one in tried if one.value is not None]
        if not done:
            self._refuse(tried)
        best = min(done, key=lambda one: (one.value, one.number))
        search = Search(self._out, self._options.measure, tuple(tried), best)
        plan = load_plan(
            self._file, overrides={field: _value(self._space[field], best, field) for field in self._space}
        )
        text = plan_yaml(absolute(plan, self._file.resolve().parent))
        said = f"# {self._options.measure} {best.value:.6g}: trial {best.number}, the best of {len(tried)}"
        search.best_plan.write_text(f"{said}\n\n{text}", encoding="utf-8")
        write_reports(search, title=f"Search over {self._base.name}")
        shutil.rmtree(self._out / "work", ignore_errors=True)  # text as tokens: a copy of what may be private
        return search


def _value(one: Range | Choices, best: Tried, field: str) -> object:
    """What the plan of a trial had in this field."""
    value = best.settings[field]
    if isinstance(one, Choices):
        return from_json(str(value))
    return int(value) if one.whole else decimal(float(value))  # type: ignore[call-overload, arg-type]


def _tried(trial: optuna.trial.FrozenTrial) -> Tried:
    from optuna.trial import TrialState

    states: dict[TrialState, Literal["done", "given up", "failed"]] = {
        TrialState.COMPLETE: "done",
        TrialState.PRUNED: "given up",
    }
    state = states.get(trial.state, "failed")
    value = trial.value if state == "done" else None
    error = str(trial.user_attrs[_ERROR]) if _ERROR in trial.user_attrs else None
    return Tried(trial.number, state, value, dict(trial.params), dict(trial.intermediate_values), error)


def _pruner(options: TuneOptions, rounds: int) -> optuna.pruners.BasePruner:
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    match options.pruning:
        case "median":
            return MedianPruner(n_startup_trials=4, n_warmup_steps=1)
        case "hyperband":
            return HyperbandPruner(min_resource=1, max_resource=max(2, rounds), reduction_factor=3)
        case _:
            return NopPruner()


def _identity(plan: Plan, space: Space, texts: Sequence[Text], options: TuneOptions) -> str:
    """What makes two starts one search; how many trials, and on how many threads, does not."""
    told = {
        "plan": plan.model_dump(mode="json"),
        "space": {field: repr(one) for field, one in space.items()},
        "texts": [[one.name, str(one.folder.resolve()), one.text_column] for one in texts],
        "options": repr(replace(options, trials=1, threads=1)),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _name(folder: Path) -> str:
    return folder.resolve().name or "data"


@contextmanager
def _claimed(out: Path) -> Iterator[None]:
    """
    Raises:
        UsageError: the folder holds something that no search wrote.
        HomeLocked: another process searches in it.
    """
    out.mkdir(parents=True, exist_ok=True)
    lock = out / ".llmasos-search"
    if not lock.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty and holds no search.", "Name another folder with --out.")
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as err:
        os.close(descriptor)
        raise HomeLocked(f"Another search runs in {out}.", "Wait for it, or name another --out.") from err
    try:
        yield
    finally:
        os.close(descriptor)
