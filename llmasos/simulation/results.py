"""What a simulation measured, in one value that table, page and JSON are written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from common.statements.kinds import PlanStatement
from common.verify.report import Outcome
from llmasos.simulation import watch
from llmasos.simulation.verification import Verification
from llmasos.simulation.watch import Round, RunView, perplexity

if TYPE_CHECKING:
    from llmasos.evaluation.measured import Evaluation


@dataclass(frozen=True, slots=True)
class Scores:
    """Held-out perplexity of one model: over all institutions' text, and on each one's own where that is known."""

    pooled: float
    institutions: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The same training without a federation. Keys of `alone` are the institutions."""

    alone: Mapping[str, Scores]
    pooled_data: Scores
    steps: int
    """Optimizer steps of each of them, and of each institution in the federation."""
    batch_multiplier: int
    """`pooled_data` took so many times the plan's batch: what the whole federation saw in a step."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What an n-gram model of all institutions' training text reaches on the same held-out windows."""

    scores: Scores
    order: int
    num_tokens: int
    """Tokens that were counted."""
    left_out: int = 0
    """Tokens of the training text that were not, for want of memory."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Wall seconds of the parts."""

    prepare: float = 0.0
    federation: float = 0.0
    baselines: float = 0.0
    verification: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class Results:
    """Everything that the report says."""

    title: str
    statement: PlanStatement
    institutions: tuple[str, ...]
    view: RunView
    succeeded: bool
    comparison: Comparison | None = None
    federated: Scores | None = None
    ngram: Counted | None = None
    measured: Evaluation | None = None
    """The final model by all measures of its task; its `languages` are the institutions."""
    sample_prompt: str = ""
    sample_text: str = ""
    verification: Verification | None = None
    timing: Timing = field(default_factory=Timing)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The final model's name, `blake3:ROOT`; empty if there is none."""
        model = self.view.model
        return "" if model is None else f"{model.algorithm}:{model.root}"

    @property
    def trustworthy(self) -> bool:
        """Whether no party's verification failed."""
        return self.verification is None or self.verification.outcome is not Outcome.FAILED

    @property
    def steps(self) -> int:
        """Optimizer steps that an institution took part with in every round."""
        return self.view.trained_rounds * self.statement.plan.local.steps

    @property
    def best_alone(self) -> tuple[str, float] | None:
        """Whose model, trained alone, does best on all institutions' text, and its perplexity."""
        if self.comparison is None or not self.comparison.alone:
            return None
        name = min(self.comparison.alone, key=lambda key: self.comparison.alone[key].pooled)  # type: ignore[union-attr]
        return name, self.comparison.alone[name].pooled


def scores_of(evaluations: tuple[watch.Evaluation, ...]) -> Scores | None:
    """Perplexities of one model; None where the plan lets nobody see the pooled one."""
    pooled = next((entry.perplexity for entry in evaluations if entry.scope == "pooled"), None)
    own = {entry.scope: entry.perplexity for entry in evaluations if entry.scope != "pooled"}
    if pooled is None and own:
        single = [entry for entry in evaluations if entry.scope != "pooled"]
        pooled = perplexity(sum(e.loss_sum_fixed for e in single), sum(e.num_tokens for e in single))
    return None if pooled is None else Scores(pooled, own)


def scores_from_sums(sums: Mapping[str, tuple[int, int]]) -> Scores:
    """Perplexities from (loss_sum_fixed, num_tokens) by institution; pooled is of the sums, as in a run."""
    total = [sum(part) for part in zip(*sums.values(), strict=True)]
    return Scores(perplexity(total[0], total[1]), {name: perplexity(*pair) for name, pair in sums.items()})


def final_scores(view: RunView) -> Scores | None:
    """The final model's, measured by the run's last round."""
    last = view.final_round
    return None if last is None else scores_of(last.evaluations)


def by_rounds_trained(rounds: tuple[Round, ...]) -> list[tuple[int, Scores]]:
    """The curve: after so many committed training rounds, the model did so."""
    curve: dict[int, Scores] = {}
    trained = 0
    for entry in rounds:
        scores = scores_of(entry.evaluations)
        if scores is not None:
            curve[trained] = scores
        trained += entry.task == "train" and entry.outcome == "committed"
    return sorted(curve.items())


def better_alone(results: Results) -> list[str]:
    """Institutions whose own model beats the federation's on their own text."""
    if results.comparison is None or results.federated is None:
        return []
    return [
        name
        for name in results.institutions
        if name in results.comparison.alone
        and name in results.federated.institutions
        and results.comparison.alone[name].institutions.get(name, float("inf")) < results.federated.institutions[name]
    ]
