"""One institution's training in this process, round by round: what a participant's worker does, without an agent.

    institution = Institution("north", prepared, (Source(Path("text")),), home)
    trained = train(institution, base, RoundTask(number=1, trained_rounds=0, seed=7))

For simulations and other frameworks' clients. The same base, seed and environment give the same bits as the worker. Between
rounds only the local optimizer's moments are kept, in `home`, as a file: so a process may serve thousands of institutions.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from common.errors import NonFiniteDelta, StorageFailure, UsageError, WrongTensors
from common.ledger.cohort import local_seed
from common.statements.kinds import Tensor
from llmasos.evaluation.perplexity import LossSums, evaluate
from llmasos.models.build import model_of
from llmasos.models.tensors import by_name, read_tensors
from llmasos.preparation import Prepared, load_prepared
from llmasos.tasks.registry import objective_of
from llmasos.tokenizers import load
from llmasos.training.corpus import Corpus, Source, prepare_corpus
from llmasos.training.device import Machine, set_up
from llmasos.training.loop import LocalTraining, RoundSums, RoundWork
from llmasos.training.weighing import num_bytes

Arrays = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Institution:
    """An institution's text, and what it trains with."""

    name: str
    prepared: Path
    """Folder that `llmasos plan prepare` made."""
    sources: tuple[Source, ...]
    home: Path
    """Holds encoded text and moments; owner-only. Several institutions of one run may share it."""
    threads: int = 1
    allow_cuda: bool = True


@dataclass(frozen=True, slots=True)
class RoundTask:
    """A round, as its opening says. `trained_rounds`: committed ones before it, for the learning rate."""

    number: int
    trained_rounds: int
    seed: int
    """The round's; each institution derives its own from it."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a round came to. `arrays` are the trainable tensors after it."""

    arrays: dict[str, NDArray[np.float32]]
    sums: RoundSums
    weight: int
    """What the arrays count for in their round, by the plan's weighting."""
    evaluation: LossSums
    """Held-out loss of the round's base model."""
    seconds: float
    """Of which `training_seconds` were optimizer steps."""
    training_seconds: float


@dataclass(frozen=True, slots=True)
class Bench:
    """What a process keeps between institutions: one model, with the plan's frozen tensors in it."""

    prepared: Prepared
    model: torch.nn.Module
    machine: Machine

    @property
    def trainable(self) -> list[Tensor]:
        return [entry for entry in self.prepared.draft.manifest if entry.group == "trainable"]


@lru_cache(maxsize=1)
def bench(prepared: Path, threads: int, allow_cuda: bool) -> Bench:
    """
    Raises:
        NotInitialised, InvalidConfiguration, BadBlobReference: the prepared folder is not whole.
    """
    machine = set_up(threads, allow_cuda=allow_cuda)
    found = load_prepared(prepared)
    plan = found.draft.plan
    model = model_of(plan, load(found.tokenizer))
    read_tensors(model, found.model, found.draft.manifest)
    return Bench(found, model, machine)


def initial_arrays(prepared: Path) -> dict[str, NDArray[np.float32]]:
    """The trainable tensors of a prepared run's initial weights, in the manifest's order."""
    kept = bench(prepared, 1, False)
    found = by_name(kept.model, kept.prepared.draft.manifest)
    return {entry.name: found[entry.name].detach().numpy().copy() for entry in kept.trainable}


def train(institution: Institution, base: Arrays, task: RoundTask) -> Trained:
    """Measure the base model, train a round from it, keep the moments where the plan says so.

    Raises:
        UsageError: the plan keeps layers personal or corrects steps, which only a participant does.
        WrongTensors: `base` is not the trainable tensors of the plan's manifest.
        NonFiniteDelta: training diverged.
        TooLittleData, UnreadableData, UsageError, StorageFailure: about text and files.
    """
    started = time.monotonic()
    with _ready(institution, base) as (kept, corpus):
        if corpus.plan.personal:
            raise UsageError(
                "The plan names personal layers, which only a participant's worker keeps.", "Leave `personal` out."
            )
        if corpus.plan.corrects:
            raise UsageError(
                "The plan has local.correction scaffold, which only a participant's worker does.", "Leave it out."
            )
        evaluation = _measure(kept, corpus)
        training = LocalTraining(corpus.plan, kept.model, kept.machine)
        training.anchor([entry.name for entry in kept.trainable])
        moments = _Moments(institution) if corpus.plan.local.optimizer_state == "keep" else None
        if moments is not None:
            training.load_moments(moments.before(task.number))
        seed = local_seed(task.seed, institution.name)
        work = RoundWork(trained_rounds=task.trained_rounds, seed=seed)
        steps_from = time.monotonic()
        sums = training.run_round(work, lambda step: corpus.batch(seed=seed, step=step))
        steps_until = time.monotonic()
        arrays = _taken(kept)
        read = num_bytes(corpus, kept.prepared.tokenizer, seed, sums.steps)
        weight = corpus.plan.weighting.of(sums.num_tokens, read)
        if moments is not None:
            moments.write(task.number, training.moments())
    return Trained(arrays, sums, weight, evaluation, time.monotonic() - started, steps_until - steps_from)


def measure(institution: Institution, base: Arrays) -> LossSums:
    """Held-out loss of a model; changes nothing.

    Raises:
        WrongTensors, TooLittleData, UnreadableData, UsageError, StorageFailure: as `train`.
    """
    with _ready(institution, base) as (kept, corpus):
        return _measure(kept, corpus)


@contextmanager
def _ready(institution: Institution, base: Arrays) -> Iterator[tuple[Bench, Corpus]]:
    """The process's model with `base` in it, and the institution's tokens."""
    kept = bench(institution.prepared, institution.threads, institution.allow_cuda)
    kept.model.to(kept.machine.device)
    _load(kept, base)
    root = institution.home / "tokens"
    with prepare_corpus(institution.sources, kept.prepared.tokenizer, root, kept.prepared.draft.plan) as corpus:
        yield kept, corpus


def _load(kept: Bench, base: Arrays) -> None:
    expected = {entry.name: entry.shape for entry in kept.trainable}
    given = {name: tuple(values.shape) for name, values in base.items()}
    if given != expected or any(values.dtype != np.float32 for values in base.values()):
        differing = sorted(
            name for name in given.keys() | expected.keys() if given.get(name, "none") != expected.get(name, "none")
        )
        raise WrongTensors(f"The base model is not the plan's: {', '.join(differing[:3]) or 'not float32'}.")
    found = by_name(kept.model, kept.prepared.draft.manifest)
    with torch.no_grad():
        for name, values in base.items():
            found[name].copy_(torch.from_numpy(np.array(values)))


def _taken(kept: Bench) -> dict[str, NDArray[np.float32]]:
    found = by_name(kept.model, kept.prepared.draft.manifest)
    arrays = {entry.name: found[entry.name].detach().cpu().numpy().copy() for entry in kept.trainable}
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise NonFiniteDelta(f"The delta of tensor {name} holds NaN or infinity.")
    return arrays


def _measure(kept: Bench, corpus: Corpus) -> LossSums:
    local = corpus.plan.local
    batch_size = local.micro_batch_size or local.batch_size
    return evaluate(kept.model, objective_of(corpus.plan.task), corpus.held_out_rows(), batch_size=batch_size)


class _Moments:
    """The local optimizer's moments at the end of the newest round, and of the one before: a round may be trained twice."""

    def __init__(self, institution: Institution) -> None:
        self._folder = institution.home / "moments" / institution.name

    def before(self, round_number: int) -> dict[str, torch.Tensor]:
        """Those of the newest round before; empty where there is none."""
        numbers = [number for number, _ in self._files() if number < round_number]
        return _read(self._path(max(numbers))) if numbers else {}

    def write(self, round_number: int, moments: Mapping[str, torch.Tensor]) -> None:
        path = self._path(round_number)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            save_file({name: value.contiguous() for name, value in moments.items()}, partial)
            os.replace(partial, path)
        except (OSError, SafetensorError) as err:
            raise StorageFailure(f"{path} could not be written: {err}.") from err
        earlier = [number for number, _ in self._files() if number < round_number]
        for number, file in self._files():
            if number > round_number or (earlier and number < max(earlier)):
                file.unlink(missing_ok=True)

    def _path(self, round_number: int) -> Path:
        return self._folder / f"round-{round_number:08d}.safetensors"

    def _files(self) -> list[tuple[int, Path]]:
        return [
            (int(path.stem.removeprefix("round-")), path) for path in sorted(self._folder.glob("round-*.safetensors"))
        ]


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  safe_open is no mapping
    except (OSError, SafetensorError) as err:
        raise StorageFailure(f"{path} could not be read: {err}.", "Remove it; the moments start anew.") from err
