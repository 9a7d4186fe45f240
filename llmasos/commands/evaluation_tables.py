"""An evaluation as people read it: a table by language, and in words what stands behind it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from common.terminal import Terminal, table
from llmasos.charts import shown
from llmasos.evaluation.measured import MASKED, SHORT, numbers

if TYPE_CHECKING:
    from llmasos.evaluation.measured import Evaluation, Scores
    from llmasos.evaluation.metrics import Likelihood

TEXT = ("text", "model", "tokens", "ppl/tok", "ppl/word", "ppl/byte", "bits/byte", "acc.")
TARGETS = {
    MASKED: "hidden token",
    "sequence-classification": "label",
    "question-answering": "end of an answer",
    "preference": "pair",
}
"""What a task predicts, where it is no token."""


def show(terminal: Terminal, found: Evaluation) -> None:
    """Print the table and the words."""
    of_text = found.bits_per_byte is not None
    headings, rows = (TEXT, list(_text_rows(found))) if of_text else _task_rows(found)
    terminal.result(table(headings, rows, right=frozenset(headings[2 if of_text else 1 :])), data=None)
    terminal.result("\n".join(_words(found)), data=None)


def _by_name(found: Evaluation) -> Iterator[tuple[str, Scores]]:
    if len(found.languages) > 1:
        yield from found.languages.items()
    yield "all", found.whole


def _text_rows(found: Evaluation) -> Iterator[tuple[str, ...]]:
    for name, scores in _by_name(found):
        yield (name, "model", *_cells(scores.model), f"{scores.accuracy:.3f}")
        if scores.ngram is not None:
            yield ("", "n-gram", *_cells(scores.ngram), "")


def _cells(one: Likelihood) -> tuple[str, ...]:
    return (
        f"{one.tokens:,}",
        f"{one.token_perplexity:,.4g}",
        f"{one.word_perplexity:,.3g}",
        f"{one.byte_perplexity:,.4g}",
        f"{one.bits_per_byte:.4f}",
    )


def _task_rows(found: Evaluation) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings, and a row a language: what the task has of measures."""
    by_name = {name: numbers(scores, found.task) for name, scores in _by_name(found)}
    names = [name for name, value in by_name["all"].items() if value is not None and name != "texts"]
    rows = [(name, *(shown(values.get(measure)) for measure in names)) for name, values in by_name.items()]
    return ("data", *(SHORT.get(name, name) for name in names)), rows


def _words(found: Evaluation) -> Iterator[str]:
    model, documents = found.whole.model, found.whole.documents
    yield ""
    if model.text_bytes:
        yield (
            f"loss         {model.loss:.4f} nats a token: {documents:,} documents, {model.text_bytes:,} bytes, windows "
            f"of {found.sequence_length:,} tokens"
        )
    else:
        yield (
            f"loss         {model.loss:.4f} nats a {TARGETS.get(found.task, 'token')}: {documents:,} of {found.task}, up to "
            f"{found.sequence_length:,} tokens each"
        )
    named = (
        {"perplexity": "ppl/token", "bits_per_byte": "bits/byte", "accuracy": "accuracy"} if model.text_bytes else SHORT
    )
    if "texts" in found.scores:
        yield f"written      {found.scores['texts']:,} targets, the likeliest token each time; R is ROUGE's F1"
    for name, interval in found.intervals.items():
        if name != "loss":
            unit = "records" if name in found.scores else found.interval_unit
            yield f"{named.get(name, name):<12} {interval} in {interval.confidence:.0%} of samples of the {unit}"
    if found.counted is not None:
        yield (
            f"n-gram       modified Kneser-Ney of order {found.counted.order}, counted on {found.counted.text} "
            f"({found.counted.num_tokens:,} tokens)"
        )
    yield f"speed        {found.tokens_per_second:,.0f} {'tokens' if model.text_bytes else 'targets'}/s on {found.device}"
