"""Losses under torch's and transformers' names, for `model.fit`; each stands for a plan's `task`.

    model.fit(data.train, llmasos.optimizers.Adam(), llmasos.losses.CrossEntropyLoss())

All are cross entropies in nats, computed from the logits in float32; they differ in what is predicted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class Loss(Protocol):
    """What `fit` takes: something that a plan's `task` can be made of."""

    def task(self, default: str) -> Mapping[str, Any]:
        """The fields of a plan's `task`, `type` among them; `default` is the type that the model was made for."""
        ...


@dataclass(frozen=True, slots=True)
class CrossEntropyLoss:
    """Cross entropy of what the model was made to predict: the next token of a decoder, the masked ones of BERT, the target's
    tokens of an encoder-decoder. Mean nats over a batch's targets, as torch.nn.CrossEntropyLoss() gives it.
    """

    def task(self, default: str) -> Mapping[str, Any]:
        return {"type": default}


@dataclass(frozen=True, slots=True)
class CausalLMLoss:
    """Cross entropy of each token, given those before it: transformers' ForCausalLMLoss. Decoders only."""

    def task(self, default: str) -> Mapping[str, Any]:
        return {"type": "causal-lm"}
