"""What was measured of a model, whoever asked: `model.evaluate`, `llmasos.evaluate` and `llmasos evaluate` give the same value.

found = model.evaluate(data.test)
found.loss, found.perplexity, found.bits_per_byte, found.accuracy, found.scores["macro_f1"]
found.languages["de"].model.word_perplexity, found.intervals["bits_per_byte"].low
found.to_dict()             # the numbers by name, flat, as transformers' Trainer.evaluate returns them
found.report()              # all of it, for JSON
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from llmasos.charts import table_html
from llmasos.evaluation.bootstrap import Interval
from llmasos.evaluation.metrics import Likelihood

WITHOUT_PERPLEXITY = ("sequence-classification", "question-answering", "preference")
"""Tasks whose targets are no tokens."""
MASKED = "masked-lm"
PER_TEXT = ("word_perplexity", "byte_perplexity", "bits_per_byte")
"""Of causal language models alone: others do not predict a text, only some of its tokens."""

SHORT = {
    "masked_perplexity": "masked ppl",
    "masked_accuracy": "masked acc.",
    "perplexity": "ppl",
    "accuracy": "acc.",
    "bits_per_byte": "bits/byte",
    "exact_match": "exact match",
    "tokens": "targets",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "f1": "F1",
    "bleu": "BLEU",
    "chrf": "chrF",
    "rouge_1": "R-1",
    "rouge_2": "R-2",
    "rouge_l": "R-L",
}
"""Headings of measures that have longer names in JSON."""


@dataclass(frozen=True, slots=True)
class Scores:
    """One language's, or those of all data. A target is what the task predicts: a token, a hidden token, a label."""

    documents: int
    """Or records."""
    model: Likelihood
    """Its tokens are the targets; words and bytes are counted for causal language models alone."""
    accuracy: float | None
    """Share of targets that the model held likeliest, 0 to 1; None where the task has no such thing."""
    own: Mapping[str, float] = field(default_factory=dict)
    """The task's own measures: macro_f1 and micro_f1 of labels, exact_match and f1 of answers, each 0 to 1; bleu and chrf, 0 to
    100, rouge_1, rouge_2 and rouge_l, 0 to 1, of targets that the model wrote."""
    ngram: Likelihood | None = None
    """What counting alone reaches on the very tokens."""


@dataclass(frozen=True, slots=True)
class Counted:
    """The n-gram model of an evaluation: `num_tokens` of `text` were counted."""

    order: int
    num_tokens: int
    text: str


@dataclass(frozen=True, slots=True, repr=False)
class Evaluation:
    """What a model does on a split or a folder."""

    split: str
    task: str
    """Type of the task as which the data were read."""
    whole: Scores
    languages: Mapping[str, Scores]
    """By name: the first folder in a path, or what a field says; one entry, `all`, where there is none."""
    intervals: Mapping[str, Interval]
    """By measure; none where there is a single unit to draw."""
    interval_unit: str
    """What the intervals draw anew: documents, windows of few documents, or rows of records."""
    counted: Counted | None
    """None without an n-gram model, also where there was too little to count."""
    seconds: float
    """Of the forward passes that the losses are from."""
    sequence_length: int
    device: str

    @property
    def loss(self) -> float:
        """Mean cross entropy, nats a target."""
        return self.whole.model.loss

    @property
    def perplexity(self) -> float | None:
        """exp(loss): of models of one tokenizer only; of a masked language model that of the hidden tokens. None where the
        targets are no tokens."""
        return None if self.task in WITHOUT_PERPLEXITY else self.whole.model.token_perplexity

    @property
    def bits_per_byte(self) -> float | None:
        """The loss in bits over bytes of text: to be compared between tokenizers, too. Of causal language models only."""
        return self.whole.model.bits_per_byte if self.whole.model.text_bytes else None

    @property
    def accuracy(self) -> float | None:
        """Share of targets that the model held likeliest, 0 to 1; None where the task has no such thing."""
        return self.whole.accuracy

    @property
    def tokens(self) -> int:
        """Targets measured."""
        return self.whole.model.tokens

    @property
    def scores(self) -> Mapping[str, float]:
        """The task's own measures (Scores.own); empty where accuracy says all."""
        return self.whole.own

    @property
    def tokens_per_second(self) -> float:
        """Measured tokens by the seconds that the model took, reading and counting left out."""
        return self.tokens / self.seconds if self.seconds else math.inf

    def to_dict(self) -> dict[str, Any]:
        """The numbers by name, flat; those that the task has not are None. Of a masked language model perplexity and accuracy
        are of hidden tokens, and are named so."""
        return {
            "split": self.split,
            "task": self.task,
            **numbers(self.whole, self.task),
            "seconds": self.seconds,
            "tokens_per_second": self.tokens_per_second,
        }

    def report(self) -> dict[str, Any]:
        """All of it, for programs; of what JSON has no word for, None."""
        counted = self.counted
        value = {
            **self.to_dict(),
            **_row(self.whole, self.task),
            "languages": {name: _row(one, self.task) for name, one in self.languages.items()},
            "intervals": {name: asdict(one) for name, one in self.intervals.items()},
            "interval_unit": self.interval_unit,
            "ngram_model": None
            if counted is None
            else {"order": counted.order, "counted_tokens": counted.num_tokens, "text": counted.text},
            "sequence_length": self.sequence_length,
            "device": self.device,
        }
        plain: dict[str, Any] = plain_json(value)
        return plain

    def __repr__(self) -> str:
        said = {name: value for name, value in self.to_dict().items() if value is not None}
        each = (
            f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value!r}" for name, value in said.items()
        )
        return f"Evaluation({', '.join(each)})"

    def _repr_html_(self) -> str:
        values = self.to_dict()
        return table_html([values], list(values))


def numbers(scores: Scores, task: str) -> dict[str, Any]:
    """A language's numbers by name."""
    one, prefix = scores.model, "masked_" if task == MASKED else ""
    values: dict[str, Any] = {
        "loss": one.loss,
        f"{prefix}perplexity": None if task in WITHOUT_PERPLEXITY else one.token_perplexity,
    }
    values |= {name: getattr(one, name) if one.text_bytes else None for name in PER_TEXT}
    return {**values, f"{prefix}accuracy": scores.accuracy, "tokens": one.tokens, **scores.own}


def plain_json(value: Any) -> Any:
    """Without numbers that JSON has no word for."""
    if isinstance(value, Mapping):
        return {key: plain_json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _row(scores: Scores, task: str) -> dict[str, Any]:
    one = scores.model
    return {
        "documents": scores.documents,
        **numbers(scores, task),
        "words": one.words if one.text_bytes else None,
        "bytes": one.text_bytes or None,
        "ngram": None if scores.ngram is None else numbers(Scores(scores.documents, scores.ngram, None), task),
    }
