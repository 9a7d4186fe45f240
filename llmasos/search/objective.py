"""What a trial is: one plan trained, and the held-out number that it reaches; smaller is better.

Local trials train the plan without a federation: all text in one place, `rounds` × `local.steps` steps, measured before each
round, so that a trial that goes badly can be given up. Federated trials are whole simulations.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from common.errors import OperationError, UsageError
from common.ledger.cohort import round_seed
from common.plan.load import plan_yaml
from common.plan.model import Plan
from llmasos.datasets.text import read_documents, split_documents
from llmasos.preparation import Prepared, prepare

if TYPE_CHECKING:
    from llmasos.evaluation.perplexity import LossSums

Measure = Literal["perplexity", "bits-per-byte"]
Report = Callable[[int, float], None]
"""Hears the number after so many rounds; raises to give the trial up."""


@dataclass(frozen=True, slots=True)
class Text:
    """A folder of text; in a federated trial an institution's."""

    name: str
    folder: Path
    text_column: str | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """Where one trial works: its plan, whose paths are absolute, in its own folder; `shared` is the search's."""

    plan: Plan
    folder: Path
    shared: Path


@dataclass(frozen=True, slots=True)
class LocalObjective:
    """Trains with all texts in one place, in this process."""

    texts: tuple[Text, ...]
    measure: Measure = "perplexity"
    threads: int = 1

    def __call__(self, trial: Trial, report: Report) -> float:
        """
        Raises:
            LLMasOSError: the plan cannot be trained, or training diverged.
        """
        from llmasos.training.corpus import Source
        from llmasos.training.institution import Institution, RoundTask, initial_arrays, measure, train

        prepared = prepare_trial(trial)
        shutil.rmtree(trial.shared / "moments", ignore_errors=True)  # the last trial's
        sources = tuple(Source(one.folder.resolve(), one.text_column) for one in self.texts)
        institution = Institution("trial", prepared.folder, sources, trial.shared, self.threads)
        plan = trial.plan
        bytes_per_token = self._bytes_per_token(prepared) if self.measure == "bits-per-byte" else 1.0
        base = initial_arrays(prepared.folder)
        for number in range(1, plan.rounds + 1):
            trained = train(institution, base, RoundTask(number, number - 1, round_seed(str(plan.seed), number)))
            if number > 1:
                report(number - 1, self._value(trained.evaluation, bytes_per_token))
            base = trained.arrays
        value = self._value(measure(institution, base), bytes_per_token)
        report(plan.rounds, value)
        return value

    def _value(self, sums: LossSums, bytes_per_token: float) -> float:
        if self.measure == "perplexity":
            return sums.perplexity
        return math.log2(sums.perplexity) / bytes_per_token

    def _bytes_per_token(self, prepared: Prepared) -> float:
        """Of all held-out text: the number for what was measured, where `evaluation.max_tokens` took a part of it."""
        from llmasos.tokenizers import load

        plan, tokenizer = prepared.draft.plan, load(prepared.tokenizer)
        documents = [
            document
            for one in self.texts
            for document in read_documents(one.folder.resolve(), text_column=one.text_column)
        ]
        _, held_out = split_documents(documents, plan.evaluation.held_out_fraction, seed=plan.seed)
        tokens = sum(len(tokenizer.encode(one.text, add_special_tokens=False).ids) + 1 for one in held_out)
        return sum(len(one.text.encode()) for one in held_out) / tokens


@dataclass(frozen=True, slots=True)
class FederatedObjective:
    """Runs `llmasos simulate` without baselines; the number is the final model's pooled perplexity."""

    texts: tuple[Text, ...]

    def __call__(self, trial: Trial, report: Report) -> float:
        """
        Raises:
            OperationError: the simulation failed; holds the end of what it said.
        """
        write_plan(trial)
        out = trial.folder / "simulation"
        arguments = [str(trial.folder / "plan.yaml"), "--no-baselines", "--out", str(out), "--format", "quiet"]
        for one in self.texts:
            column = f":{one.text_column}" if one.text_column else ""
            arguments += ["--institution", f"{one.name}={one.folder.resolve()}{column}"]
        command = [sys.executable, "-m", "llmasos.cli", "simulate", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        value = _pooled(out / "report.json") if done.returncode == 0 else None
        shutil.rmtree(out, ignore_errors=True)
        if value is None:
            raise OperationError(
                f"The simulation of {trial.folder / 'plan.yaml'} ended with exit code {done.returncode}: "
                f"{done.stderr.strip()[-500:] or 'no perplexity in its report'}",
                "Run llmasos simulate with this plan to see why.",
            )
        report(trial.plan.rounds, value)
        return value


def write_plan(trial: Trial) -> Path:
    trial.folder.mkdir(parents=True, exist_ok=True)
    file = trial.folder / "plan.yaml"
    file.write_text(plan_yaml(trial.plan), encoding="utf-8")
    return file


def prepare_trial(trial: Trial) -> Prepared:
    """Initial weights and tokenizer; what an earlier try of this trial left is removed."""
    file = write_plan(trial)
    out = trial.folder / "prepared"
    shutil.rmtree(out, ignore_errors=True)
    return prepare(file, out)


def absolute(plan: Plan, beside: Path) -> Plan:
    """The plan with paths that lead from anywhere to where they led from the folder `beside`."""
    tokenizer = plan.tokenizer
    if tokenizer.type == "bpe":
        tokenizer = tokenizer.model_copy(update={"text": str((beside / tokenizer.text).resolve())})
    elif tokenizer.type == "given":
        tokenizer = tokenizer.model_copy(update={"path": str((beside / tokenizer.path).resolve())})
    return plan.model_copy(update={"tokenizer": tokenizer})


def check_texts(texts: tuple[Text, ...], plan: Plan, *, federated: bool, measure: Measure) -> None:
    """
    Raises:
        UsageError: no text, two texts of one name, too few for a federation, or a number that such trials do not give.
    """
    names = [one.name for one in texts]
    if not texts or len(set(names)) < len(names):
        raise UsageError(f"Expected folders of text with distinct names, got {', '.join(names) or 'none'}.")
    if federated and measure != "perplexity":
        raise UsageError("A federated search looks for perplexity: reports hold no bytes.", "Leave --measure out.")
    if measure == "bits-per-byte" and plan.task.type != "causal-lm":
        raise UsageError(
            f"Bits per byte are of running text, the plan's task is {plan.task.type}.",
            "Leave --measure out: perplexity.",
        )
    if federated and len(texts) < plan.quorum:
        raise UsageError(
            f"The plan's quorum is {plan.quorum}, but only {len(texts)} institutions are named.",
            "Name more with --institution.",
        )


def _pooled(report: Path) -> float | None:
    try:
        value = json.loads(report.read_text("utf-8"))["final"]["perplexity"]["pooled"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return float(value) if isinstance(value, int | float) else None
