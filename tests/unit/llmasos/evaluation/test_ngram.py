"""Modified Kneser-Ney against values computed by hand, and as a distribution."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from common.errors import TooLittleData, UsageError
from llmasos.evaluation.ngram import FALLBACK_DISCOUNTS, default_order, discounts_of, train_ngram


def some_tokens(length: int = 400, vocab_size: int = 9, seed: int = 0) -> np.ndarray:
    """A text in which some tokens, and some pairs, are much more frequent than others."""
    chosen = np.random.default_rng(seed)
    weights = 1 / np.arange(1, vocab_size) ** 1.5  # the last token never occurs
    return chosen.choice(vocab_size - 1, length, p=weights / weights.sum()).astype(np.int64)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_after_any_context_probabilities_sum_to_one(order: int) -> None:
    model = train_ngram(some_tokens(), vocab_size=9, order=order)
    for context in ([], [0], [8], [0, 0], [1, 8], [0, 1, 0, 2], [3, 2, 1, 0, 0, 1]):
        probabilities = model.probabilities(context)
        assert probabilities.sum() == pytest.approx(1, abs=1e-12)
        assert probabilities.min() > 0  # of the token that never occurs, too


def test_a_bigram_model_has_the_probabilities_computed_by_hand() -> None:
    # The text 0 1 0 1 0 2 has bigrams 01 (2 times), 10 (2), 02 (1), so n_3 is 0 and the discounts are the fall-back
    # 0.5, 1, 1.5.
    # Distinct tokens before 0, 1, 2: {1}, {0}, {0}: unigram counts 1, 1, 1 of 3, discount 0.5 each, 1.5 / 3 left for 1/4 each.
    model = train_ngram(np.array([0, 1, 0, 1, 0, 2]), vocab_size=4, order=2)
    seen, unseen = 0.5 / 3 + 0.5 / 4, 0.5 / 4
    assert model.probabilities([]) == pytest.approx([seen, seen, seen, unseen])
    # After 0: 1 twice, 2 once, of 3; taken are 1 + 0.5. After 1: 0 twice; taken is 1. After 2, and 3: nothing is known.
    assert model.probabilities([0]) == pytest.approx(
        [0.5 * seen, 1 / 3 + 0.5 * seen, 0.5 / 3 + 0.5 * seen, 0.5 * unseen]
    )
    assert model.probabilities([1]) == pytest.approx([1 / 2 + seen / 2, seen / 2, seen / 2, unseen / 2])
    assert model.probabilities([2]) == pytest.approx([seen, seen, seen, unseen])
    assert model.probabilities([3, 1]) == pytest.approx(model.probabilities([1]))


def test_discounts_are_chen_and_goodmans() -> None:
    counts = np.array([1] * 40 + [2] * 12 + [3] * 6 + [4] * 3 + [9])
    y = 40 / (40 + 24)
    assert discounts_of(counts) == pytest.approx((1 - 2 * y * 12 / 40, 2 - 3 * y * 6 / 12, 3 - 4 * y * 3 / 6))
    assert discounts_of(np.array([7, 8, 9])) == FALLBACK_DISCOUNTS


def test_a_trigram_model_is_the_textbooks_recursion() -> None:
    text = some_tokens(300)
    model = train_ngram(text, vocab_size=9, order=3)
    slow = Slow([int(token) for token in text], 9, model.discounts)
    for context in ([], [0], [1], [0, 0], [0, 1], [1, 0], [2, 1], [8, 0], [0, 8]):
        expected = [slow.probability(tuple(context[-2:]), word) for word in range(9)]
        assert model.probabilities(context) == pytest.approx(expected, rel=1e-12)


class Slow:
    """Chen and Goodman's recursion, word for word, over dictionaries."""

    def __init__(self, text: list[int], vocab_size: int, discounts: tuple[tuple[float, float, float], ...]) -> None:
        grams = {k: [tuple(text[i : i + k]) for i in range(len(text) - k + 1)] for k in (1, 2, 3)}
        self.counts = {3: Counter(grams[3])} | {k: Counter(g[1:] for g in set(grams[k + 1])) for k in (1, 2)}
        self.vocab_size, self.discounts = vocab_size, discounts

    def probability(self, context: tuple[int, ...], word: int) -> float:
        length = len(context) + 1
        followers = {gram: count for gram, count in self.counts[length].items() if gram[:-1] == context}
        below = 1 / self.vocab_size if not context else self.probability(context[1:], word)
        total = sum(followers.values())
        if not total:
            return below
        left = sum(self.discount(length, count) for count in followers.values())
        count = followers.get((*context, word), 0)
        return (count - self.discount(length, count)) / total + left / total * below

    def discount(self, length: int, count: int) -> float:
        return 0.0 if count == 0 else self.discounts[length - 1][min(count, 3) - 1]


def test_each_token_is_measured_given_those_before_it_in_its_window_alone() -> None:
    text = some_tokens()
    model = train_ngram(text, vocab_size=9, order=3)
    windows = [text[0:5], text[4:9], text[8:10]]
    expected = [
        -math.log(model.probabilities(window[:place])[window[place]])
        for window in windows
        for place in range(1, len(window))
    ]
    assert model.nats(windows) == pytest.approx(expected)
    assert model.nats([]).shape == (0,)


def test_text_with_regularities_is_predicted_better_than_by_its_frequencies() -> None:
    text = np.tile(np.arange(7), 60)
    held_out = [text[:50]]
    assert train_ngram(text, vocab_size=7, order=1).nats(held_out).mean() == pytest.approx(math.log(7))
    assert train_ngram(text, vocab_size=7, order=3).nats(held_out).mean() < 0.1


def test_wrong_input_is_told_in_a_sentence() -> None:
    with pytest.raises(TooLittleData, match="order 5 needs at least 6 tokens, got 5"):
        train_ngram(np.arange(5), vocab_size=1000)
    with pytest.raises(UsageError, match="Tokens run from 0 to 9, expected 0 to 4"):
        train_ngram(np.arange(10), vocab_size=5)
    model = train_ngram(np.arange(10), vocab_size=10, order=2)
    with pytest.raises(UsageError, match="Tokens run from 3 to 10, expected 0 to 9"):
        model.nats([np.array([3, 10])])
    with pytest.raises(UsageError, match="order of an n-gram model is 0, expected 1 or more"):
        train_ngram(np.arange(10), vocab_size=10, order=0)


def test_vocabularies_of_bytes_have_longer_n_grams() -> None:
    assert (default_order(257), default_order(8192)) == (8, 5)
