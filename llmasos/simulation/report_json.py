"""report.json: the same results for programs. Numbers that are not there are null; keys stay what they are.

rounds[]      round, task, outcome, perplexity {pooled, institutions}, cohort, contributors, seconds, bytes_up, bytes_down.
              Perplexity is that of the model which the round started from; the last round trains nothing and measures the
              final model.
final         perplexity {pooled, institutions}, digest, path, measures {pooled, institutions}: all that the task has, by name,
              as loss, accuracy, bits_per_byte, macro_f1
alone         pooled perplexity by institution, each model trained on that institution's text only
alone_own     the same models, each on its own institution's held-out text
pooled_data   perplexity {pooled, institutions} of the upper bound
ngram         perplexity {pooled, institutions} of an n-gram model of all training text, order, counted_tokens, left_out_tokens
verification  result, findings, sides: what each party's own verification says
seconds       wall time of the whole; `timing` has its parts
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from llmasos.evaluation.measured import Evaluation, numbers, plain_json
from llmasos.simulation.results import Counted, Results, Scores, better_alone, scores_of
from llmasos.simulation.watch import Round


def report(results: Results, *, model: Path) -> dict[str, Any]:
    """The report's content; `model` is the folder in Hugging Face layout."""
    comparison = results.comparison
    alone = comparison.alone if comparison else {}
    return {
        "title": results.title,
        "run": results.view.run,
        "succeeded": results.succeeded,
        "end_reason": results.view.end_reason,
        "institutions": list(results.institutions),
        "rounds": [_round(entry) for entry in results.view.rounds],
        "refusals": [entry.model_dump() for entry in results.view.refusals],
        "final": {
            "perplexity": _scores(results.federated),
            "digest": results.digest,
            "path": str(model),
            "measures": _measures(results.measured),
        },
        "alone": {name: _number(scores.pooled) for name, scores in alone.items()},
        "alone_own": {name: _number(scores.institutions.get(name)) for name, scores in alone.items()},
        "pooled_data": _scores(comparison.pooled_data) if comparison else None,
        "ngram": _counted(results.ngram),
        "equal_steps": results.steps,
        "pooled_batch_multiplier": comparison.batch_multiplier if comparison else None,
        "better_off_alone": better_alone(results),
        "seconds": round(results.timing.total, 3),
        "timing": {
            "prepare": round(results.timing.prepare, 3),
            "federation": round(results.timing.federation, 3),
            "baselines": round(results.timing.baselines, 3),
            "verification": round(results.timing.verification, 3),
        },
        "verification": _verification(results),
        "plan": results.statement.plan.model_dump(mode="json"),
        "sample": {"prompt": results.sample_prompt, "text": results.sample_text},
        "versions": dict(results.versions),
    }


def write_report_json(results: Results, *, model: Path, file: Path) -> None:
    text = json.dumps(report(results, model=model), indent=2, allow_nan=False, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")


def _round(entry: Round) -> dict[str, Any]:
    return {
        "round": entry.round,
        "task": entry.task,
        "outcome": entry.outcome,
        "reason": entry.reason,
        "perplexity": _scores(scores_of(entry.evaluations)),
        "cohort": list(entry.cohort),
        "contributors": list(entry.contributors),
        "seconds": entry.seconds,
        "bytes_up": entry.bytes_up,
        "bytes_down": entry.bytes_down,
    }


def _verification(results: Results) -> dict[str, Any] | None:
    found = results.verification
    if found is None:
        return None
    sides = {side.who: {"result": side.outcome, "rounds": side.rounds} for side in found.sides}
    return {"result": found.outcome, "findings": list(found.findings), "sides": sides}


def _counted(ngram: Counted | None) -> dict[str, Any] | None:
    if ngram is None:
        return None
    return {
        "perplexity": _scores(ngram.scores),
        "order": ngram.order,
        "counted_tokens": ngram.num_tokens,
        "left_out_tokens": ngram.left_out,
    }


def _measures(found: Evaluation | None) -> dict[str, Any] | None:
    if found is None:
        return None
    plain: dict[str, Any] = plain_json(
        {
            "pooled": numbers(found.whole, found.task),
            "institutions": {name: numbers(scores, found.task) for name, scores in found.languages.items()},
        }
    )
    return plain


def _scores(scores: Scores | None) -> dict[str, Any]:
    if scores is None:
        return {"pooled": None, "institutions": {}}
    return {
        "pooled": _number(scores.pooled),
        "institutions": {name: _number(value) for name, value in scores.institutions.items()},
    }


def _number(value: float | None) -> float | None:
    """JSON has no infinity."""
    return value if value is not None and math.isfinite(value) else None
