"""Metrics against values computed by hand or by the tools that define them."""

from __future__ import annotations

import math

import pytest

from common.errors import MissingExtra, UsageError
from llmasos import extras
from llmasos.evaluation.bootstrap import interval_of_mean, interval_of_ratio
from llmasos.evaluation.metrics import Likelihood, accuracy, answer_words, f1, likelihood, squad
from llmasos.evaluation.overlap import bleu, chrf, rouge, words


def test_one_sum_gives_perplexity_by_token_word_and_byte() -> None:
    # 16 bytes at 2 bits each, in 8 tokens and 4 words.
    found = likelihood(nats=32 * math.log(2), tokens=8, words=4, text_bytes=16)
    assert found.bits_per_byte == pytest.approx(2)
    assert found.byte_perplexity == pytest.approx(4)
    assert found.token_perplexity == pytest.approx(16)
    assert found.word_perplexity == pytest.approx(256)
    assert found.loss == pytest.approx(4 * math.log(2))
    assert found + found == Likelihood(64 * math.log(2), 16, 8, 32)


def test_nothing_measured_is_not_a_number_and_a_broken_model_infinite() -> None:
    assert math.isnan(likelihood(nats=0, tokens=0, words=0, text_bytes=0).bits_per_byte)
    assert likelihood(nats=1e6, tokens=1, words=1, text_bytes=1).token_perplexity == math.inf
    with pytest.raises(UsageError, match="Counts are -1 tokens"):
        likelihood(nats=0, tokens=-1, words=0, text_bytes=0)


def test_accuracy_is_the_share_of_hits_with_an_interval_around_it() -> None:
    found = accuracy(["a", "b", "b", "c"], ["a", "b", "c", "c"])
    assert (found.correct, found.total, found.value) == (3, 4, 0.75)
    assert found.interval is not None
    assert found.interval.low <= 0.75 <= found.interval.high
    assert accuracy([1], [1]).interval is None


def test_f1_is_scikit_learns() -> None:
    # f1_score([0, 1, 2, 0, 1, 2], [0, 2, 1, 0, 0, 1], average="macro"): the example of its documentation.
    found = f1([0, 2, 1, 0, 0, 1], [0, 1, 2, 0, 1, 2])
    assert found.macro == pytest.approx(0.26666, abs=1e-5)
    assert found.micro == pytest.approx(1 / 3)
    assert found.labels[0].f1 == pytest.approx(0.8)
    assert (found.labels[1].f1, found.labels[1].support) == (0, 2)


def test_answers_are_compared_as_squad_does() -> None:
    found = squad(["The Eiffel Tower!", "in the city of Rome", "no"], [["Eiffel tower"], ["Rome", "Rome, Italy"], [""]])
    assert found.exact_match == pytest.approx(1 / 3)
    # in city of rome / rome: precision 1/4, recall 1, F1 0.4; an answer where none is right: 0.
    assert found.f1 == pytest.approx((1 + 0.4 + 0) / 3)
    assert squad([""], [[""]]).exact_match == 1
    assert answer_words("今天天气，怎么样？ the OK") == [*"今天天气怎么样", "ok"]
    with pytest.raises(UsageError, match="An answer has no reference"):
        squad(["a"], [[]])


@pytest.mark.parametrize(
    ("hypothesis", "reference", "expected"),
    [  # of the package rouge-score, without stemming
        ("the cat the mat on sat down", "the cat sat on the mat", (0.9230769, 0.3636364, 0.6153846)),
        ("police kill the gunman", "police killed the gunman", (0.75, 0.3333333, 0.75)),
        ("the gunman kill police", "police killed the gunman", (0.75, 0.3333333, 0.5)),
    ],
)
def test_rouge_is_rouge_scores_on_english(
    hypothesis: str, reference: str, expected: tuple[float, float, float]
) -> None:
    found = rouge([hypothesis], [[reference]])
    assert (found.rouge_1, found.rouge_2, found.rouge_l) == pytest.approx(expected, abs=1e-6)


def test_rouge_reads_other_scripts_and_takes_the_best_reference() -> None:
    assert words("今天天气 Привет_мир 3") == ["今", "天", "天", "气", "привет", "мир", "3"]
    assert rouge(["今天天气"], [["明天天气", "昨日"]]).rouge_1 == pytest.approx(0.75)
    assert rouge([""], [["x"]]).rouge_l == 0
    with pytest.raises(UsageError, match=r"Got 1 texts and references for 0 of 1"):
        rouge(["x"], [[]])


def test_bleu_and_chrf_are_sacrebleus() -> None:
    pytest.importorskip("sacrebleu")
    found = bleu(["the dog bit the man"], [["the dog had bit the man"]])
    assert found.value == pytest.approx(40.9365, abs=1e-3)
    assert found.signature.startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert found.interval is None
    assert chrf(["the dog bit the man"], [["the dog had bit the man"]]).value == pytest.approx(65.3335, abs=1e-3)
    assert bleu(["今天天气很好"], [["今天天气很好"]], tokenize="zh").value == pytest.approx(100)
    several = bleu(["the dog bit the man", "it rained all day"], [["the dog had bit the man"], ["it rained all day"]])
    assert several.interval is not None
    assert several.interval.low < several.value < several.interval.high
    with pytest.raises(UsageError, match="different numbers of references"):
        bleu(["a", "b"], [["a"], ["b", "c"]])


def test_without_the_extra_bleu_says_which_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda package: None)
    with pytest.raises(MissingExtra, match="To compute BLEU, sacrebleu must be installed") as caught:
        bleu(["a"], [["a"]])
    assert caught.value.fix == "Install them: pip install 'llmasos[evaluate]'."


def test_an_interval_holds_the_number_and_is_the_same_for_the_same_seed() -> None:
    nats, sizes = [10.0, 22.0, 28.0, 41.0, 52.0], [10, 20, 30, 40, 50]
    found = interval_of_ratio(nats, sizes, seed=1)
    assert found is not None
    assert found.low < sum(nats) / sum(sizes) < found.high
    assert interval_of_ratio(nats, sizes, seed=1) == found
    assert interval_of_ratio(nats, sizes, seed=2) != found
    assert interval_of_mean([3.0] * 5) == interval_of_mean([3.0] * 5)


def test_an_interval_of_a_mean_covers_it_as_often_as_it_says() -> None:
    import numpy as np

    draws = np.random.default_rng(0)
    inside = 0
    for trial in range(100):
        found = interval_of_mean(draws.normal(5, 2, size=60), seed=trial, samples=300, confidence=0.9)
        assert found is not None
        inside += found.low <= 5 <= found.high
    assert 80 <= inside <= 98


def test_wrong_samples_are_told_in_a_sentence() -> None:
    with pytest.raises(UsageError, match="got 2 numerators, 1 denominators"):
        interval_of_ratio([1.0, 2.0], [1.0])
    with pytest.raises(UsageError, match="denominators that are all 0"):
        interval_of_ratio([1.0, 2.0], [0.0, 0.0])
    assert interval_of_ratio([1.0], [1.0]) is None
