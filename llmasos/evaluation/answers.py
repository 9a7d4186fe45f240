"""What a model says, beside what it should have said: labels, answers to questions, targets that it writes.

Pairs of a language are kept, so that all languages' together are scored as one corpus.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from common.plan.tasks import QuestionAnswering, Seq2Seq, SequenceClassification, Task
from llmasos.datasets.records import Example
from llmasos.datasets.rows import spread
from llmasos.evaluation.bootstrap import Interval
from llmasos.evaluation.metrics import f1, squad
from llmasos.evaluation.overlap import BleuTokenizer, bleu, chrf, rouge
from llmasos.evaluation.targets import RowsFound
from llmasos.extras import require_extra

if TYPE_CHECKING:
    from llmasos.datasets.loading import Split


@dataclass(frozen=True, slots=True)
class Writing:
    """How many targets an encoder-decoder writes to be scored, at even distances in the data; and how BLEU cuts them."""

    texts: int = 0
    bleu_tokenizer: BleuTokenizer = "13a"


NOTHING_WRITTEN = Writing()


@dataclass(frozen=True, slots=True)
class Answers:
    """What was said and what was wanted, in the same order: labels, or texts."""

    said: Sequence[str] = ()
    wanted: Sequence[str] = ()


def check_writing(task: Task, writing: Writing) -> None:
    """
    Raises:
        MissingExtra: targets are to be written, and sacrebleu, which scores them, is not installed.
    """
    if isinstance(task, Seq2Seq) and writing.texts:
        require_extra("evaluate", "sacrebleu", task="score what a model writes")


def answers_of(model: Any, task: Task, split: Split, found: RowsFound, width: int, writing: Writing) -> Answers:
    """Of labels those that were found with the losses; questions are asked, and targets written, now.

    Args:
        width: tokens of a row; as many a target has at most.
    """
    if isinstance(task, SequenceClassification):
        return Answers([task.labels[one] for one in found.said], [task.labels[one] for one in found.wanted])
    examples = [thing for thing in split.things if isinstance(thing, Example)]
    if isinstance(task, QuestionAnswering):
        return _asked(model, task, split, examples, width)
    if isinstance(task, Seq2Seq) and writing.texts:
        return _written(model, task, split, [examples[place] for place in spread(len(examples), writing.texts)], width)
    return Answers()


def own_measures(
    task: Task, answers: Answers, writing: Writing, *, seed: int
) -> tuple[dict[str, float], dict[str, Interval]]:
    """The task's own measures (llmasos.evaluation.measured.Scores.own) and their intervals; empty where nothing was said."""
    if not answers.said:
        return {}, {}
    references = [[one] for one in answers.wanted]
    intervals: dict[str, Interval | None] = {}
    if isinstance(task, SequenceClassification):
        labels = f1(answers.said, answers.wanted)
        values = {"macro_f1": labels.macro, "micro_f1": labels.micro}
    elif isinstance(task, QuestionAnswering):
        found = squad(answers.said, references, seed=seed)
        values = {"exact_match": found.exact_match, "f1": found.f1}
        intervals = {"exact_match": found.exact_match_interval, "f1": found.f1_interval}
    else:
        precision, characters = (
            bleu(answers.said, references, tokenize=writing.bleu_tokenizer),
            chrf(answers.said, references),
        )
        recall = rouge(answers.said, references, seed=seed)
        values = {"bleu": precision.value, "chrf": characters.value, "texts": len(answers.said)}
        values |= {"rouge_1": recall.rouge_1, "rouge_2": recall.rouge_2, "rouge_l": recall.rouge_l}
        intervals = {"bleu": precision.interval, "chrf": characters.interval, "rouge_l": recall.rouge_l_interval}
    return values, {name: one for name, one in intervals.items() if one is not None}


def _asked(model: Any, task: QuestionAnswering, split: Split, examples: Sequence[Example], width: int) -> Answers:
    """Each question's likeliest answer over all windows of its context."""
    from llmasos.language_model.using import answer_to

    model.train(False)
    said = [
        answer_to(model, split.tokenizer, task, width, one.text(task.question), one.text(task.context))
        for one in examples
    ]
    return Answers(said, [one.text(task.answer) if one.has(task.answer) else "" for one in examples])


def _written(model: Any, task: Seq2Seq, split: Split, examples: Sequence[Example], width: int) -> Answers:
    """The likeliest token each time, up to the end."""
    from llmasos.generation import Sampling, write_target

    model.train(False)
    said = [
        write_target(
            model,
            split.tokenizer,
            task.prefix + one.text(task.source),
            max_new_tokens=width,
            sampling=Sampling(temperature=0),
        )
        for one in examples
    ]
    return Answers(said, [one.text(task.target) for one in examples])
