"""The one way in which a model is measured: `model.evaluate`, `fit`'s validation and `llmasos evaluate` come here.

    measure(module, split, plan, MeasureOptions(batch_size=16))

causal language models    documents, each from its beginning to its end: causal.py
all other tasks           the task's rows, as an institution's held-out data become rows: targets.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from common.plan.model import Plan
from common.plan.tasks import CausalLM
from llmasos.datasets.loading import Split
from llmasos.datasets.records import Example
from llmasos.datasets.text import Document
from llmasos.evaluation.answers import NOTHING_WRITTEN, Answers, Writing, answers_of, check_writing, own_measures
from llmasos.evaluation.bootstrap import Interval
from llmasos.evaluation.causal import CountedText, measure_text
from llmasos.evaluation.documents import UNNAMED, first_folder, sampled
from llmasos.evaluation.measured import MASKED, WITHOUT_PERPLEXITY, Counted, Evaluation, Scores
from llmasos.evaluation.targets import measure_rows
from llmasos.evaluation.units import Units, perplexity_interval

if TYPE_CHECKING:
    import torch

    from llmasos.datasets.text import Splittable


def by_folder(thing: Splittable, source: str) -> str:
    """A document's or record's language: the first folder in its path below `source`, as in DATA/de/letters.txt."""
    if isinstance(thing, Document):
        return first_folder(thing.name)
    if isinstance(thing, Example):
        path = Path(thing.place)
        return first_folder(str(path.relative_to(source))) if path.is_relative_to(source) else UNNAMED
    return UNNAMED


def by_unit(thing: Splittable, source: str) -> str:
    """What a field of the record says, or else as `by_folder`."""
    return thing.unit or by_folder(thing, source)


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """What is measured besides the loss."""

    batch_size: int = 8
    seed: int = 0
    """Of the intervals."""
    ngram: CountedText | None = None
    """An n-gram model beside a causal language model."""
    writing: Writing = NOTHING_WRITTEN
    language: Callable[[Splittable, str], str] = by_folder
    loss_alone: bool = False
    """Neither the task's own measures nor intervals: fit's validation."""


def measure(model: torch.nn.Module, split: Split, plan: Plan, options: MeasureOptions) -> Evaluation:
    """The model on the whole split, in float32, on the device where it lies; of the plan task and sequence length count.

    Raises:
        TooLittleData: the split is empty, or there is nothing to measure in it, or too little for the n-gram model.
        WorkerFailed: a loss is not finite.
        MissingExtra: targets are to be written, and sacrebleu is not installed.
    """
    split.check_filled()
    check_writing(plan.task, options.writing)
    if isinstance(plan.task, CausalLM):
        found = _of_text(model, split, plan, options)
    else:
        found = _of_rows(model, _by_language(split, options), plan, options)
    return _evaluation(split.name, found, model, plan, options)


def measure_parts(
    model: torch.nn.Module, name: str, parts: Iterable[tuple[str, Split]], plan: Plan, options: MeasureOptions
) -> Evaluation:
    """As `measure`, each part under its own name among `languages`, and all of them as the whole.

    Args:
        parts: taken one after the other, so that the model may change in between. Of text, about as many tokens of each are
            measured as the plan's evaluation.max_tokens allows, in whole documents.
    """
    check_writing(plan.task, options.writing)
    if isinstance(plan.task, CausalLM):
        found = _joined([_of_text(model, _sampled(part, plan), plan, _named(options, one)) for one, part in parts])
    else:
        found = _of_rows(model, parts, plan, options)
    return _evaluation(name, found, model, plan, options)


def _evaluation(split: str, found: _Found, model: torch.nn.Module, plan: Plan, options: MeasureOptions) -> Evaluation:
    whole = Units.joined(list(found.units.values()))
    own, intervals = _own(plan, found, options)
    if not options.loss_alone:
        intervals = {**_intervals(whole, plan.task.type, options.seed), **intervals}
    return Evaluation(
        split=split,
        task=plan.task.type,
        whole=_scores(sum(found.documents.values()), whole, own[""], counted=found.counted),
        languages={
            name: _scores(found.documents[name], units, own[name], counted=found.counted)
            for name, units in found.units.items()
        },
        intervals=intervals,
        interval_unit=found.unit,
        counted=found.counted,
        seconds=found.seconds,
        sequence_length=plan.local.sequence_length,
        device=str(next(model.parameters()).device.type),
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """By language, in the order of their names."""

    units: Mapping[str, Units]
    documents: Mapping[str, int]
    answers: Mapping[str, Answers]
    unit: str
    counted: Counted | None
    seconds: float


def _of_text(model: torch.nn.Module, split: Split, plan: Plan, options: MeasureOptions) -> _Found:
    found = measure_text(
        model,
        split,
        plan.local.sequence_length,
        languages=[options.language(thing, split.source) for thing in split.things],
        batch_size=options.batch_size,
        ngram=options.ngram,
    )
    return _Found(found.units, found.documents, {}, found.unit, found.counted, found.seconds)


def _joined(found: Sequence[_Found]) -> _Found:
    """Of several parts, each of a language of its own."""
    return _Found(
        units={name: units for one in found for name, units in one.units.items()},
        documents={name: count for one in found for name, count in one.documents.items()},
        answers={},
        unit=" or ".join(sorted({one.unit for one in found})),
        counted=None,
        seconds=sum(one.seconds for one in found),
    )


def _sampled(split: Split, plan: Plan) -> Split:
    documents = [thing for thing in split.things if isinstance(thing, Document)]
    return replace(split, things=sampled(documents, split.tokenizer, plan.evaluation.max_tokens, plan.seed))


def _named(options: MeasureOptions, name: str) -> MeasureOptions:
    """Under which all of a part stands."""
    return replace(options, language=lambda thing, source: name)


def _by_language(split: Split, options: MeasureOptions) -> Iterator[tuple[str, Split]]:
    """Each language's rows for themselves, as if it were an institution's data."""
    languages = [options.language(thing, split.source) for thing in split.things]
    for name in sorted(set(languages)):
        things = [thing for thing, one in zip(split.things, languages, strict=True) if one == name]
        yield name, split if len(things) == len(split) else replace(split, things=things)


def _of_rows(model: torch.nn.Module, parts: Iterable[tuple[str, Split]], plan: Plan, options: MeasureOptions) -> _Found:
    units, documents, answers, seconds = {}, {}, {}, 0.0
    for name, part in parts:
        with part.opened(plan) as data:
            found = measure_rows(model, plan.task, data.measured_rows(), batch_size=options.batch_size)
        units[name], documents[name], seconds = found.units, len(part), seconds + found.seconds
        if not options.loss_alone:
            width = plan.local.sequence_length
            answers[name] = answers_of(model, plan.task, part, found, width, options.writing)
    return _Found(units, documents, answers, "rows", None, seconds)


def _own(
    plan: Plan, found: _Found, options: MeasureOptions
) -> tuple[Mapping[str, Mapping[str, float]], dict[str, Interval]]:
    """By language, and under no name of all; and the intervals of the latter."""
    own: dict[str, Mapping[str, float]] = {name: {} for name in found.units}
    for name, answers in found.answers.items():
        own[name], _ = own_measures(plan.task, answers, options.writing, seed=options.seed)
    together = Answers(
        [one for answers in found.answers.values() for one in answers.said],
        [one for answers in found.answers.values() for one in answers.wanted],
    )
    own[""], intervals = own_measures(plan.task, together, options.writing, seed=options.seed)
    return own, intervals


def _scores(documents: int, units: Units, own: Mapping[str, float], *, counted: Counted | None) -> Scores:
    ngram = None if counted is None else units.ngram_likelihood
    return Scores(documents, units.likelihood, units.accuracy, own, ngram)


def _intervals(units: Units, task: str, seed: int) -> dict[str, Interval]:
    """Under the names that `numbers` gives the measures."""
    found = units.intervals(seed=seed)
    if "loss" in found and task not in WITHOUT_PERPLEXITY:
        found["perplexity"] = perplexity_interval(found["loss"])
    if task != MASKED:
        return found
    return {name if name == "loss" else f"masked_{name}": one for name, one in found.items()}
