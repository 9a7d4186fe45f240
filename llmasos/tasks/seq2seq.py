"""Sequence to sequence: an encoder reads the source, a decoder writes the target, token by token (arXiv:1706.03762).

    encoder   s1 s2 s3 <|endoftext|> [PAD] …
    decoder   [PAD] t1 t2 t3 …            as T5 begins
    labels    t1 t2 t3 <|endoftext|> …

A source or target that is longer than `local.sequence_length` is cut at its end, the mark of the end kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from common.plan.tasks import Seq2Seq
from llmasos.datasets.draws import Dice
from llmasos.datasets.records import Example, Wanted
from llmasos.datasets.rows import Columns, Row
from llmasos.tasks.base import Batch, Tensors
from llmasos.tasks.encoding import LABELS, NO_LABEL, inputs, label_nats, labelled, padded, seen
from llmasos.tasks.records import Encoded
from llmasos.tokenizers.special import Vocabulary

if TYPE_CHECKING:
    from tokenizers import Encoding

DECODER = "decoder_input_ids"


@dataclass(frozen=True, slots=True)
class Pairs:
    """A row is (source, target), each ended by `<|endoftext|>`."""

    task: Seq2Seq
    vocabulary: Vocabulary
    width: int
    columns: int = 2

    @property
    def wanted(self) -> Wanted:
        return Wanted((self.task.field_names,), self.task.type)

    @property
    def most_targets(self) -> int:
        return self.width

    def texts(self, example: Example) -> list[str]:
        return [self.task.prefix + example.text(self.task.source), example.text(self.task.target)]

    def encode(self, example: Example, encodings: Sequence[Encoding]) -> Encoded:
        texts = [encoding.ids for encoding in encodings]
        row = [[*ids[: self.width - 1], self.vocabulary.end] for ids in texts]
        return Encoded([row], shortened=any(len(ids) >= self.width for ids in texts))

    def row(self, columns: Columns, dice: Dice) -> Batch:
        source, target = columns
        begun = np.concatenate([[self.vocabulary.pad], target[:-1]])
        return {
            **inputs(source, self.width, self.vocabulary.pad),
            DECODER: padded(begun, self.width, self.vocabulary.pad),
            LABELS: padded(target, self.width, NO_LABEL),
        }

    def longest(self, tokens: np.random.Generator) -> Row:
        return [tokens.choice(self.vocabulary.ordinary, self.width).tolist() for _ in range(2)]


class TargetTokens:
    """Cross entropy of each token of the target, its end included, given the source and the tokens before it."""

    def targets(self, batch: Batch) -> int:
        return labelled(batch)

    def nats(self, model: torch.nn.Module, batch: Tensors) -> torch.Tensor:
        logits_BLV: torch.Tensor = model(**seen(model, batch), decoder_input_ids=batch[DECODER]).logits
        return label_nats(logits_BLV, batch[LABELS])
