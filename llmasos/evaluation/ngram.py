"""An n-gram model over token ids, to set beside a perplexity: what counting alone reaches on the same tokens.

    model = train_ngram(train_tokens, vocab_size=8192)          # int64, shape (N,)
    nats = model.nats(held_out_windows(tokens, 512, 65536))     # of each predicted token
    math.exp(nats.mean())                                       # compare with the language model's perplexity

Interpolated Kneser-Ney smoothing with three discounts an order, as KenLM estimates it. Source: S. F. Chen and J. Goodman, "An
empirical study of smoothing techniques for language modeling", Computer Speech & Language 13 (1999), section 3; K. Heafield et
al., "Scalable modified Kneser-Ney language model estimation", ACL 2013. Ours, in numpy: the package kenlm reads models and
cannot estimate them, and nltk's has one discount for all orders and keeps each n-gram as a Python object.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from common.errors import TooLittleData, UsageError

ORDER, ORDER_OF_BYTES = 5, 8
SMALL_VOCABULARY = 512
"""Below, a token is about a byte, of which more are needed for as much context."""
MAX_TOKENS = 4_000_000
"""Counting takes some 100 bytes a token, 400 MB for so many."""
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
"""Where text is so short or small-vocabularied that too few n-grams occur once to four times; KenLM's --discount_fallback."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_AT_ONCE = 2**18


def default_order(vocab_size: int) -> int:
    """5, or 8 where tokens are about bytes."""
    return ORDER_OF_BYTES if vocab_size <= SMALL_VOCABULARY else ORDER


@dataclass(frozen=True, slots=True)
class Level:
    """All n-grams of one length k ≥ 2 by ascending key = (row of their first k - 1 tokens in the level below) × V + last token.

    U n-grams follow on C contexts, the n-grams of length k - 1.
    """

    keys: Ints
    """Shape (U,)."""
    discounted: Floats
    """Shape (U,): count less discount; of lower levels the count is of distinct tokens before the n-gram."""
    totals: Floats
    """Shape (C,): sum of counts after each context; 0 after one that is only seen at the text's end."""
    left_over: Floats
    """Shape (C,): what the discounts took from each context, as a share of its total: the weight of the level below."""


@dataclass(frozen=True, slots=True)
class NgramModel:
    """An interpolated modified Kneser-Ney model; `levels[i]` holds the n-grams of length i + 2."""

    vocab_size: int
    num_tokens: int
    """Of the text that was counted."""
    discounts: tuple[tuple[float, float, float], ...]
    """For counts 1, 2, and 3 or more, by length from 1."""
    unigrams: Floats
    """Probabilities of the lowest level, shape (V,)."""
    levels: tuple[Level, ...]

    @property
    def order(self) -> int:
        return len(self.levels) + 1

    def nats(self, windows: Iterable[npt.NDArray[np.int64]]) -> Floats:
        """-ln of the probability of each token but the first of each window, given those before it in its window.

        Args:
            windows: int64, each of shape (n + 1,) for n predicted tokens, as a language model is measured on.

        Raises:
            UsageError: a token is not in the vocabulary.
        """
        parts: list[Floats] = []
        group: list[npt.NDArray[np.int64]] = []
        for window in windows:
            group.append(window)
            if sum(len(one) for one in group) >= _AT_ONCE:
                parts.append(self._nats(group))
                group = []
        return np.concatenate([*parts, self._nats(group)] if group or not parts else parts)

    def probabilities(self, context: Sequence[int]) -> Floats:
        """Of every token after `context`; shape (V,), sums to one."""
        tokens_V = np.arange(self.vocab_size, dtype=np.int64)
        windows = np.concatenate(
            [np.tile(np.asarray(context, np.int64), (len(tokens_V), 1)), tokens_V[:, None]], axis=1
        )
        places = np.tile(np.arange(windows.shape[1]), len(tokens_V))
        found = self._probabilities(windows.reshape(-1), places)
        last: Floats = found.reshape(windows.shape)[:, -1]
        return last

    def _nats(self, windows: Sequence[npt.NDArray[np.int64]]) -> Floats:
        if not windows:
            return np.empty(0)
        tokens = np.concatenate(windows)
        places = np.concatenate([np.arange(len(window)) for window in windows])
        return np.asarray(-np.log(self._probabilities(tokens, places)[places > 0]))

    def _probabilities(self, tokens_N: Ints, places_N: Ints) -> Floats:
        """Of each token given those before it, of which there are as many as its place says."""
        _check_tokens(tokens_N, self.vocab_size)
        found_N = self.unigrams[tokens_N]
        rows_N = tokens_N
        for length, level in enumerate(self.levels, start=2):
            contexts_N = np.where(places_N >= length - 1, np.roll(rows_N, 1), -1)
            known_N = contexts_N >= 0
            known_N[known_N] = level.totals[contexts_N[known_N]] > 0
            rows_N = _rows(level.keys, contexts_N, tokens_N, self.vocab_size)
            gained_N = np.where(rows_N >= 0, level.discounted[rows_N], 0.0)
            safe_N = np.where(known_N, contexts_N, 0)
            mixed_N = gained_N / np.maximum(level.totals[safe_N], 1.0) + level.left_over[safe_N] * found_N
            found_N = np.where(known_N, mixed_N, found_N)
        return found_N


def train_ngram(tokens_N: npt.NDArray[np.int64], *, vocab_size: int, order: int | None = None) -> NgramModel:
    """Count `tokens_N`, one text after the other, each ended by its end-of-document token, and smooth.

    Tokens of the vocabulary that never occur have a share too: the lowest level is mixed with the uniform distribution.

    Args:
        tokens_N: int64, shape (N,), 0 ≤ token < vocab_size.
        order: longest n-gram, at least 1; by default 5, or 8 for vocabularies of bytes.

    Raises:
        TooLittleData: fewer tokens than `order` and one more.
        UsageError: an order below 1, or a token that is not in the vocabulary.
    """
    order = default_order(vocab_size) if order is None else order
    if order < 1:
        raise UsageError(f"The order of an n-gram model is {order}, expected 1 or more.")
    if len(tokens_N) <= order:
        raise TooLittleData(f"An n-gram model of order {order} needs at least {order + 1} tokens, got {len(tokens_N)}.")
    tokens_N = np.asarray(tokens_N, dtype=np.int64)
    _check_tokens(tokens_N, vocab_size)
    counted = _count(tokens_N, vocab_size, order)
    discounts = tuple(discounts_of(one.counts) for one in counted)
    unigram_V = _unigrams(counted[0], discounts[0], vocab_size)
    levels = tuple(
        _level(one, below, kept) for (below, one), kept in zip(pairwise(counted), discounts[1:], strict=True)
    )
    return NgramModel(vocab_size, len(tokens_N), discounts, unigram_V, levels)


def discounts_of(counts_U: Ints) -> tuple[float, float, float]:
    """What is taken from counts of 1, of 2, and of 3 or more: Chen and Goodman's estimates, equation 26.

    With n_c the number of n-grams that occur c times and Y = n_1 / (n_1 + 2 n_2), D_c = c - (c + 1) Y n_(c+1) / n_c. Where an
    estimate does not exist or is not in [0, c], all three are `FALLBACK_DISCOUNTS`.
    """
    n = [int((counts_U == count).sum()) for count in range(1, 5)]
    if 0 in n[:3]:
        return FALLBACK_DISCOUNTS
    y = n[0] / (n[0] + 2 * n[1])
    found = [count - (count + 1) * y * n[count] / n[count - 1] for count in (1, 2, 3)]
    if any(not 0 <= value <= count for count, value in enumerate(found, start=1)):
        return FALLBACK_DISCOUNTS
    return found[0], found[1], found[2]


@dataclass(frozen=True, slots=True)
class _Counted:
    """The distinct n-grams of one length, as in `Level`, with their counts and contexts; each of shape (U,)."""

    keys: Ints
    counts: Ints
    contexts: Ints


def _count(tokens_N: Ints, vocab_size: int, order: int) -> list[_Counted]:
    """By length from 1. All but the longest are counted by the distinct tokens before them, Kneser and Ney's idea."""
    rows = tokens_N
    found: list[_Counted] = []
    keys_U, counts_U = np.arange(vocab_size, dtype=np.int64), np.bincount(tokens_N, minlength=vocab_size)
    contexts_U = np.zeros(vocab_size, dtype=np.int64)
    for _ in range(2, order + 1):
        longer = rows[:-1] * vocab_size + tokens_N[len(tokens_N) - len(rows) + 1 :]
        longer_keys, first, longer_rows, longer_counts = np.unique(
            longer, return_index=True, return_inverse=True, return_counts=True
        )
        # A distinct longer n-gram is a distinct token before the n-gram that begins one place later.
        before_U = np.bincount(rows[first + 1], minlength=len(keys_U))
        found.append(_Counted(keys_U, before_U, contexts_U))
        keys_U, counts_U, contexts_U, rows = longer_keys, longer_counts, longer_keys // vocab_size, longer_rows
    return [*found, _Counted(keys_U, counts_U, contexts_U)]


def _discounted(counts_U: Ints, discounts: tuple[float, float, float]) -> tuple[Floats, Floats]:
    """What is left of each count, and what was taken."""
    taken_U = np.asarray((0.0, *discounts))[np.minimum(counts_U, 3)]
    return counts_U - taken_U, taken_U


def _unigrams(counted: _Counted, discounts: tuple[float, float, float], vocab_size: int) -> Floats:
    left_V, taken_V = _discounted(counted.counts, discounts)
    total = counted.counts.sum()
    return np.asarray(left_V / total + taken_V.sum() / total / vocab_size)


def _level(counted: _Counted, below: _Counted, discounts: tuple[float, float, float]) -> Level:
    left_U, taken_U = _discounted(counted.counts, discounts)
    size = len(below.keys)
    total_C = np.bincount(counted.contexts, weights=counted.counts, minlength=size)
    taken_C = np.bincount(counted.contexts, weights=taken_U, minlength=size)
    return Level(counted.keys, left_U, np.asarray(total_C, np.float64), np.asarray(taken_C / np.maximum(total_C, 1.0)))


def _rows(keys_U: Ints, contexts_N: Ints, tokens_N: Ints, vocab_size: int) -> Ints:
    """Where each n-gram stands in its level; -1 where it does not, or its context is unknown."""
    wanted_N = contexts_N * vocab_size + tokens_N
    at_N = np.minimum(np.searchsorted(keys_U, wanted_N), len(keys_U) - 1)
    return np.where((contexts_N >= 0) & (keys_U[at_N] == wanted_N), at_N, -1)


def _check_tokens(tokens_N: Ints, vocab_size: int) -> None:
    if len(tokens_N) and not 0 <= int(tokens_N.min()) <= int(tokens_N.max()) < vocab_size:
        raise UsageError(
            f"Tokens run from {int(tokens_N.min())} to {int(tokens_N.max())}, expected 0 to {vocab_size - 1}.",
            "Count and measure text of one tokenizer.",
        )
