"""Numbers of a measurement, each a function of plain values that returns a small frozen value.

    likelihood(nats=1234.5, tokens=600, words=400, text_bytes=2400).bits_per_byte
    accuracy(predicted, expected).value
    f1(predicted, expected).macro
    squad(["in Rome"], [["Rome", "in Rome, Italy"]]).exact_match

BLEU, chrF and ROUGE are in llmasos.evaluation.overlap, confidence intervals in llmasos.evaluation.bootstrap.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from common.errors import UsageError
from llmasos.evaluation.bootstrap import Interval, interval_of_mean


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How well text was predicted, and how much text that is. Infinite or not a number where nothing was measured."""

    nats: float
    """Sum of -ln p over all tokens, ends of documents included."""
    tokens: int
    words: int
    """Pieces between white space; of scripts without spaces the number means nothing."""
    text_bytes: int
    """Of the text in UTF-8."""

    @property
    def loss(self) -> float:
        """Mean nats a token."""
        return _ratio(self.nats, self.tokens)

    @property
    def token_perplexity(self) -> float:
        """To be compared between models of one tokenizer only."""
        return exp_or_inf(_ratio(self.nats, self.tokens))

    @property
    def word_perplexity(self) -> float:
        return exp_or_inf(_ratio(self.nats, self.words))

    @property
    def byte_perplexity(self) -> float:
        return exp_or_inf(_ratio(self.nats, self.text_bytes))

    @property
    def bits_per_byte(self) -> float:
        """Can be compared between tokenizers, and in one language between models; log2 of the byte perplexity."""
        return _ratio(self.nats, self.text_bytes) / math.log(2)

    def __add__(self, other: Likelihood) -> Likelihood:
        return Likelihood(
            self.nats + other.nats,
            self.tokens + other.tokens,
            self.words + other.words,
            self.text_bytes + other.text_bytes,
        )


@dataclass(frozen=True, slots=True)
class Share:
    """How many of how many, with the interval of their share."""

    correct: int
    total: int
    interval: Interval | None

    @property
    def value(self) -> float:
        return _ratio(self.correct, self.total)


@dataclass(frozen=True, slots=True)
class LabelScores:
    """Precision, recall and F1 of one label, 0 where they are 0 / 0; `support` is how often it was expected."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class F1:
    """F1 over labels: `macro` is the mean of the labels', `micro` that of the summed counts."""

    macro: float
    micro: float
    labels: Mapping[Hashable, LabelScores]


@dataclass(frozen=True, slots=True)
class Squad:
    """Shares of 1 over questions, with their intervals."""

    exact_match: float
    f1: float
    exact_match_interval: Interval | None
    f1_interval: Interval | None


def likelihood(*, nats: float, tokens: int, words: int, text_bytes: int) -> Likelihood:
    """Perplexity per token, word and byte, and bits per byte, from one sum.

    Source: F. Jelinek et al., "Perplexity, a measure of the difficulty of speech recognition tasks", JASA 62 (1977); bits per
    byte as L. Gao et al., "The Pile", arXiv:2101.00027, section 3.1.

    Raises:
        UsageError: a count below 0.
    """
    if min(tokens, words, text_bytes) < 0:
        raise UsageError(f"Counts are {tokens} tokens, {words} words and {text_bytes} bytes, expected 0 or more.")
    return Likelihood(nats, tokens, words, text_bytes)


def accuracy(predicted: Sequence[Hashable], expected: Sequence[Hashable], *, seed: int = 0) -> Share:
    """The share of `predicted` that equals what was expected in its place.

    Raises:
        UsageError: not as many of the ones as of the others, or none.
    """
    _check_pairs(predicted, expected)
    hits = [float(one == other) for one, other in zip(predicted, expected, strict=True)]
    return Share(int(sum(hits)), len(hits), interval_of_mean(hits, seed=seed))


def f1(predicted: Sequence[Hashable], expected: Sequence[Hashable]) -> F1:
    """F1 of a classification, over all labels that occur on either side; as scikit-learn's with zero_division=0.

    Source: C. J. van Rijsbergen, Information Retrieval (1979), chapter 7. Of one label an example, micro F1 is the accuracy.

    Raises:
        UsageError: not as many of the ones as of the others, or none.
    """
    _check_pairs(predicted, expected)
    said, wanted = Counter(predicted), Counter(expected)
    hits = Counter(one for one, other in zip(predicted, expected, strict=True) if one == other)
    labels = {
        label: _label_scores(hits[label], said[label], wanted[label])
        for label in sorted({*said, *wanted}, key=lambda label: (str(type(label)), str(label)))
    }
    macro = sum(one.f1 for one in labels.values()) / len(labels)
    micro = _harmonic(sum(hits.values()) / len(predicted), sum(hits.values()) / len(expected))
    return F1(macro, micro, labels)


def squad(predictions: Sequence[str], references: Sequence[Sequence[str]], *, seed: int = 0) -> Squad:
    """Exact match and token F1 of answers, each against the best of its references.

    Compared are lower-cased words without punctuation and English articles, as SQuAD's own script does; of Chinese and Japanese
    characters each counts as a word. An empty answer matches an empty reference alone.

    Source: P. Rajpurkar et al., "SQuAD", arXiv:1606.05250, section 6.1, and its evaluation script.

    Raises:
        UsageError: not as many predictions as lists of references, none, or an empty list of references.
    """
    _check_pairs(predictions, references)
    if not all(references):
        raise UsageError(
            "An answer has no reference, expected at least one.", "An unanswerable question has the reference ''."
        )
    exact, overlap = [], []
    for prediction, wanted in zip(predictions, references, strict=True):
        said, answers = answer_words(prediction), [answer_words(one) for one in wanted]
        exact.append(float(any(said == one for one in answers)))
        overlap.append(max(_overlap(said, one) for one in answers))
    return Squad(
        sum(exact) / len(exact),
        sum(overlap) / len(overlap),
        interval_of_mean(exact, seed=seed),
        interval_of_mean(overlap, seed=seed),
    )


_IDEOGRAPH = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_PIECES = re.compile(rf"[{_IDEOGRAPH}]|[^\s{_IDEOGRAPH}]+")
_PUNCTUATION = str.maketrans("", "", string.punctuation + "，。！？、；：“”‘’（）《》【】「」…")
_ARTICLES = frozenset(("a", "an", "the"))


def answer_words(text: str) -> list[str]:
    """The words of an answer as SQuAD compares them."""
    return [piece for piece in _PIECES.findall(text.lower().translate(_PUNCTUATION)) if piece not in _ARTICLES]


def _overlap(said: list[str], wanted: list[str]) -> float:
    if not said or not wanted:
        return float(said == wanted)
    common = sum((Counter(said) & Counter(wanted)).values())
    return _harmonic(common / len(said), common / len(wanted))


def _label_scores(hits: int, said: int, wanted: int) -> LabelScores:
    precision, recall = hits / said if said else 0.0, hits / wanted if wanted else 0.0
    return LabelScores(precision, recall, _harmonic(precision, recall), wanted)


def _harmonic(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _check_pairs(predicted: Sequence[object], expected: Sequence[object]) -> None:
    if len(predicted) != len(expected) or not predicted:
        raise UsageError(
            f"Got {len(predicted)} predictions and {len(expected)} references, expected as many of the ones as of the others, "
            "and at least one."
        )


def _ratio(over: float, under: int) -> float:
    return over / under if under else math.nan


def exp_or_inf(value: float) -> float:
    """e to the power of `value`; infinite where no float is so large."""
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
