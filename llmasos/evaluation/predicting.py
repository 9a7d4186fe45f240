"""A causal language model on windows of text: nats and hits of each, in batches that fit into memory."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from common.errors import WorkerFailed
from llmasos.evaluation.documents import Window
from llmasos.evaluation.ngram import Floats, Ints

MAX_LOGITS = 2**26
"""Logits at once: 256 MB of float32."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """By window: nats of its tokens, and how many of them were the likeliest; `seconds` of the forward passes in all."""

    nats: Floats
    hits: Ints
    seconds: float


def predict(model: torch.nn.Module, windows: Sequence[Window], *, vocab_size: int, batch_size: int) -> Predicted:
    """Measure `model` in evaluation mode, float32, on all windows, long ones first.

    Windows of one batch are filled up at their ends with tokens that are not measured; a causal model does not look there.

    Raises:
        WorkerFailed: a loss is not finite, so the model is broken.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.train(False)
    nats, hits = np.zeros(len(windows)), np.zeros(len(windows), np.int64)
    order = sorted(range(len(windows)), key=lambda index: (-len(windows[index].tokens), index))
    started = time.perf_counter()
    at = 0
    with torch.no_grad():
        while at < len(order):
            length = len(windows[order[at]].tokens) - 1
            rows = order[at : at + max(1, min(batch_size, MAX_LOGITS // (length * vocab_size)))]
            nats[rows], hits[rows] = _batch(model, [windows[row] for row in rows], device)
            at += len(rows)
    seconds = time.perf_counter() - started
    model.train(was_training)
    if not math.isfinite(float(nats.sum())):
        raise WorkerFailed(
            f"The model's loss over {len(windows):,} windows of text is {float(nats.sum())}, expected a finite number.",
            "The model holds weights that are not finite or far too large: train it anew, with a lower learning rate.",
        )
    return Predicted(nats, hits, seconds)


def _batch(model: torch.nn.Module, windows: Sequence[Window], device: torch.device) -> tuple[Floats, Ints]:
    longest = max(len(window.tokens) for window in windows)
    tokens_BT = torch.zeros((len(windows), longest), dtype=torch.int64)
    for row, window in enumerate(windows):
        tokens_BT[row, : len(window.tokens)] = torch.from_numpy(window.tokens)
    lengths_B = torch.tensor([len(window.tokens) - 1 for window in windows], device=device)
    tokens_BT = tokens_BT.to(device)
    logits_BLV = model(input_ids=tokens_BT[:, :-1]).logits.float()
    targets_BL = tokens_BT[:, 1:]
    nats_BL = functional.cross_entropy(logits_BLV.transpose(1, 2), targets_BL, reduction="none")
    measured_BL = torch.arange(longest - 1, device=device) < lengths_B[:, None]
    hits_BL = (logits_BLV.argmax(dim=2) == targets_BL) & measured_BL
    nats_B = torch.where(measured_BL, nats_BL, 0.0).double().sum(dim=1)
    return nats_B.cpu().numpy(), hits_BL.sum(dim=1).cpu().numpy()
