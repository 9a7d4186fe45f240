"""Masked language models: a share of a row's tokens is to be found, given all others (BERT, arXiv:1810.04805).

    [CLS] t1 [MASK] t3 … [SEP]          labels: t2 where it was hidden

Of the tokens drawn, 80 % become [MASK], 10 % an ordinary token at random, 10 % stay as they are. They are drawn anew for each
batch (RoBERTa's dynamic masking, arXiv:1907.11692), and always the same ones for a held-out row.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from llmasos.datasets.draws import Dice
from llmasos.tasks.base import Batch
from llmasos.tasks.encoding import LABELS, NO_LABEL, TYPES, inputs, padded
from llmasos.tokenizers.special import Vocabulary

HIDDEN, REPLACED = Fraction(8, 10), Fraction(9, 10)
"""Below the first: [MASK]; from there to the second: another token."""


@dataclass(frozen=True, slots=True)
class Masking:
    """Which tokens are to be found, and what the model sees instead of them."""

    vocabulary: Vocabulary
    fraction: Fraction

    def most(self, tokens: int) -> int:
        """How many of so many are to be found: the fraction of them, rounded half up, and at least one."""
        return max(1, int(self.fraction * tokens + Fraction(1, 2)))

    def hide(self, ids_T: npt.NDArray[np.int64], dice: Dice) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(what the model sees, labels), both int64, shape (T,). Special tokens are not hidden, unless there are no others."""
        places = np.flatnonzero(np.isin(ids_T, self.vocabulary.ordinary))
        if not places.size:
            places = np.arange(ids_T.size)
        chosen = places[dice.some(self.most(places.size), places.size)]
        kinds, others = dice.raw(chosen.size), dice.raw(chosen.size)
        ordinary = self.vocabulary.ordinary
        seen_T, labels_T = ids_T.copy(), np.full_like(ids_T, NO_LABEL)
        labels_T[chosen] = ids_T[chosen]
        for place, kind, other in zip(chosen, kinds, others, strict=True):
            if int(kind) < HIDDEN * 2**64:
                seen_T[place] = self.vocabulary.mask
            elif int(kind) < REPLACED * 2**64:
                seen_T[place] = ordinary[int(other) % ordinary.size]
        return seen_T, labels_T


@dataclass(frozen=True, slots=True)
class MaskedWindows:
    """Windows of text between [CLS] and [SEP], tokens of them hidden."""

    masking: Masking
    width: int

    @property
    def window(self) -> int:
        return self.width - 2

    @property
    def most_targets(self) -> int:
        return self.masking.most(self.window)

    def row(self, window_T: npt.NDArray[np.int64], dice: Dice) -> Batch:
        words = self.masking.vocabulary
        seen, labels = self.masking.hide(window_T, dice)
        return {
            **inputs([words.cls, *seen, words.sep], self.width, words.pad),
            TYPES: np.zeros((1, self.width), dtype=np.int64),
            LABELS: padded([NO_LABEL, *labels], self.width, NO_LABEL),
        }
