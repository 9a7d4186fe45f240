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
        """A plan's `task` of type `default`."""
        return {"type": default}


@dataclass(frozen=True, slots=True)
class CausalLMLoss:
    """Cross entropy of each token, given those before it: transformers' ForCausalLMLoss. Decoders only."""

    def task(self, default: str) -> Mapping[str, Any]:
        """A plan's `task` causal-lm, whatever the `default`."""
        return {"type": "causal-lm"}


@dataclass(frozen=True, slots=True)
class MaskedLMLoss:
    """Cross entropy of hidden tokens, given all others: transformers' ForMaskedLMLoss. BERT only.

    Args:
        mlm_probability: share of the tokens that are to be found, as DataCollatorForLanguageModeling calls it.
        next_sentence: also whether the second half of a row follows the first, as BertForPreTraining learns it.

    Source: Devlin et al., arXiv:1810.04805, section 3.1.
    """

    mlm_probability: float = 0.15
    next_sentence: bool = False

    def task(self, default: str) -> Mapping[str, Any]:
        """A plan's `task` masked-lm, whatever the `default`."""
        return {"type": "masked-lm", "mask_fraction": self.mlm_probability, "next_sentence": self.next_sentence}
