"""What tasks on records share in making rows of one width: cutting, padding, and which models read token types."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from llmasos.tasks.base import Batch, Tensors

INPUTS, ATTENTION, TYPES, LABELS = "input_ids", "attention_mask", "token_type_ids", "labels"
NO_LABEL = -100
"""Where nothing is to be predicted; transformers' value."""

Ids = Sequence[int] | npt.NDArray[np.int64]


def padded(ids: Ids, width: int, value: int) -> npt.NDArray[np.int64]:
    """int64, shape (1, width)."""
    row_1T = np.full((1, width), value, dtype=np.int64)
    row_1T[0, : len(ids)] = ids
    return row_1T


def inputs(ids: Ids, width: int, pad: int) -> dict[str, npt.NDArray[np.int64]]:
    """A row's ids and which of them are no padding."""
    return {INPUTS: padded(ids, width, pad), ATTENTION: padded([1] * len(ids), width, 0)}


def pair_lengths(first: int, second: int, room: int) -> tuple[int, int]:
    """How much of two texts fits into `room` tokens, where the longer one is cut first (transformers' longest_first)."""
    if first + second <= room:
        return first, second
    shorter = min(first, second, room // 2)
    return (shorter, room - shorter) if first <= second else (room - shorter, shorter)


def seen(model: torch.nn.Module, batch: Tensors) -> dict[str, torch.Tensor]:
    """What the model reads of a batch. Token types only where its configuration has more than one: other architectures have
    no embedding for them, or would take them for tokens."""
    config = next(part.config for part in model.modules() if hasattr(part, "config"))  # of the model in any wrapper
    names = (INPUTS, ATTENTION, TYPES) if getattr(config, "type_vocab_size", 0) > 1 else (INPUTS, ATTENTION)
    return {name: batch[name] for name in names if name in batch}


def labelled(batch: Batch) -> int:
    """How many labels the batch has."""
    return int((batch[LABELS] != NO_LABEL).sum())


def label_nats(logits_BLV: torch.Tensor, labels_BL: torch.Tensor) -> torch.Tensor:
    """Cross entropy of each label: float32, shape (labels,), nats."""
    wanted_BL = labels_BL != NO_LABEL
    return torch.nn.functional.cross_entropy(logits_BLV[wanted_BL].float(), labels_BL[wanted_BL], reduction="none")


class TokenLabels:
    """Cross entropy of each labelled token, given what the model sees: of hidden tokens, of an assistant's next ones."""

    def targets(self, batch: Batch) -> int:
        return labelled(batch)

    def nats(self, model: torch.nn.Module, batch: Tensors) -> torch.Tensor:
        logits_BLV: torch.Tensor = model(**seen(model, batch)).logits
        return label_nats(logits_BLV, batch[LABELS])
