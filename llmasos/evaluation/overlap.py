"""Scores of written text against references: BLEU and chrF by sacrebleu, and ROUGE.

    bleu(["the dog bit the man"], [["the dog had bit the man"]]).value      # 0 to 100
    rouge(hypotheses, references).rouge_l                                   # 0 to 1

sacrebleu is in the extra `evaluate`. ROUGE is ours: the package rouge-score knows no letters but a to z, so that text in
Chinese or Russian scores nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from common.errors import UsageError
from llmasos.evaluation.bootstrap import CONFIDENCE, SAMPLES, Interval, interval_of_mean
from llmasos.extras import require_extra

BleuTokenizer = Literal["13a", "intl", "zh", "char", "none"]
"""sacrebleu's that need no other package: 13a for languages with spaces, zh for Chinese, char for any."""


@dataclass(frozen=True, slots=True)
class CorpusScore:
    """A corpus's score, 0 to 100, and the signature under which others can compute it again."""

    value: float
    interval: Interval | None
    signature: str


@dataclass(frozen=True, slots=True)
class Rouge:
    """Mean F1 over examples, 0 to 1: of words, of pairs of words, and of the longest common subsequence."""

    rouge_1: float
    rouge_2: float
    rouge_l: float
    rouge_l_interval: Interval | None


def bleu(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    tokenize: BleuTokenizer = "13a",
    samples: int = SAMPLES,
) -> CorpusScore:
    """Corpus BLEU-4 by sacrebleu, with its own bootstrap (fixed seed 12345).

    Source: K. Papineni et al., "BLEU", ACL 2002; M. Post, "A call for clarity in reporting BLEU scores", arXiv:1804.08771.

    Raises:
        UsageError: not as many hypotheses as lists of references, none, or lists of different lengths.
        MissingExtra: sacrebleu is not installed.
    """
    require_extra("evaluate", "sacrebleu", task="compute BLEU")
    from sacrebleu.metrics.bleu import BLEU

    return _corpus_score(BLEU(tokenize=tokenize), hypotheses, references, samples)


def chrf(hypotheses: Sequence[str], references: Sequence[Sequence[str]], *, samples: int = SAMPLES) -> CorpusScore:
    """Corpus chrF2 (characters, of any script) by sacrebleu, with its own bootstrap (fixed seed 12345).

    Source: M. Popović, "chrF: character n-gram F-score for automatic MT evaluation", WMT 2015.

    Raises:
        UsageError, MissingExtra: as `bleu`.
    """
    require_extra("evaluate", "sacrebleu", task="compute chrF")
    from sacrebleu.metrics.chrf import CHRF

    return _corpus_score(CHRF(), hypotheses, references, samples)


def rouge(hypotheses: Sequence[str], references: Sequence[Sequence[str]], *, seed: int = 0) -> Rouge:
    """ROUGE-1, ROUGE-2 and ROUGE-L (F1, no stemming), of each example against the best of its references.

    Words are lower-cased runs of letters and digits; of Chinese and Japanese characters each is a word. Of text in a to z the
    scores are those of the package rouge-score.

    Source: C.-Y. Lin, "ROUGE: a package for automatic evaluation of summaries", ACL workshop 2004.

    Raises:
        UsageError: as `bleu`.
    """
    _check(hypotheses, references)
    ones, twos, longest = [], [], []
    for hypothesis, wanted in zip(hypotheses, references, strict=True):
        said, others = words(hypothesis), [words(one) for one in wanted]
        ones.append(max(_counted(Counter(said), Counter(one)) for one in others))
        twos.append(max(_counted(Counter(pairwise(said)), Counter(pairwise(one))) for one in others))
        longest.append(max(_f1(_common_subsequence(said, one), len(said), len(one)) for one in others))
    mean = [sum(values) / len(values) for values in (ones, twos, longest)]
    return Rouge(mean[0], mean[1], mean[2], interval_of_mean(longest, seed=seed))


_IDEOGRAPH = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_IDEOGRAPH}]|[^\W_{_IDEOGRAPH}]+")


def words(text: str) -> list[str]:
    """What ROUGE compares."""
    return _WORD.findall(text.lower())


def _corpus_score(
    metric: Any, hypotheses: Sequence[str], references: Sequence[Sequence[str]], samples: int
) -> CorpusScore:
    _check(hypotheses, references)
    if len({len(one) for one in references}) > 1:
        raise UsageError("Examples have different numbers of references, expected as many of each.")
    streams = [[one[place] for one in references] for place in range(len(references[0]))]
    draws = samples if len(hypotheses) > 1 else 1
    found = metric.corpus_score(list(hypotheses), streams, n_bootstrap=draws)
    interval = None
    if draws > 1:
        # sacrebleu keeps the mean of its samples and half the width of their middle 95 %.
        interval = Interval(found._mean - found._ci, found._mean + found._ci, CONFIDENCE, draws)
    return CorpusScore(float(found.score), interval, str(metric.get_signature()))


def _check(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if len(hypotheses) != len(references) or not hypotheses or not all(references):
        raise UsageError(
            f"Got {len(hypotheses)} texts and references for {sum(map(bool, references))} of {len(references)}, "
            "expected at least one text, and at least one reference for each."
        )


def _counted(said: Counter[Any], wanted: Counter[Any]) -> float:
    return _f1((said & wanted).total(), said.total(), wanted.total())


def _f1(common: int, said: int, wanted: int) -> float:
    if not common:
        return 0.0
    precision, recall = common / said, common / wanted
    return 2 * precision * recall / (precision + recall)


def _common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for place, candidate in enumerate(other, start=1):
            kept = row[place]
            row[place] = before + 1 if word == candidate else max(row[place], row[place - 1])
            before = kept
    return row[-1]
