"""Preference tuning: of two answers the better one becomes likelier (DPO, Rafailov et al., arXiv:2305.18290).

    loss = −log σ(β · (log π(chosen) − log π₀(chosen) − log π(rejected) + log π₀(rejected)))      one target a pair

π is the model, π₀ the reference: the same model without its adapter. The frozen weights are the run's own, so the
reference is the model that the run began with, in every round and at every institution, and takes no memory of its own.
log π of an answer is the sum over its tokens, its end included. The loss is trl's `sigmoid`, without label smoothing.

What does not fit into a row is cut: answers keep at least half of it and lose their ends, prompts lose their beginnings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from common.errors import UsageError
from common.plan.tasks import Preference
from llmasos.datasets.draws import Dice
from llmasos.datasets.records import Example, Wanted
from llmasos.datasets.rows import Columns, Row
from llmasos.tasks.base import Batch, Tensors, rows_in
from llmasos.tasks.encoding import ATTENTION, INPUTS, LABELS, NO_LABEL, inputs, padded
from llmasos.tasks.instruction import Message, TurnIds, messages_in
from llmasos.tasks.records import Encoded
from llmasos.tokenizers.special import Vocabulary

if TYPE_CHECKING:
    from tokenizers import Encoding

_WORSE = "rejected_"
"""Before the names of the rejected answer's arrays."""


@dataclass(frozen=True, slots=True)
class AnswerPairs:
    """A row is (prompt with what opens an answer, better answer, worse answer), both with what closes them."""

    task: Preference
    turns: Mapping[str, TurnIds]
    vocabulary: Vocabulary
    width: int
    columns: int = 3

    @property
    def wanted(self) -> Wanted:
        return Wanted((self.task.field_names,), self.task.type)

    @property
    def most_targets(self) -> int:
        return 1

    def texts(self, example: Example) -> list[str]:
        said = [text for _, text in self._prompt(example)]
        return [*said, example.text(self.task.chosen), example.text(self.task.rejected)]

    def encode(self, example: Example, encodings: Sequence[Encoding]) -> Encoded:
        answer = self.turns["assistant"]
        prompt: list[int] = []
        for (role, _), encoding in zip(self._prompt(example), encodings, strict=False):
            prompt += [*self.turns[role].prefix, *encoding.ids, *self.turns[role].suffix]
        prompt += answer.prefix
        answers = [[*one.ids, *answer.suffix, self.vocabulary.end] for one in encodings[-2:]]
        room = self.width + 1
        before = min(len(prompt), room - min(max(map(len, answers)), room // 2))
        cut = [ids[: room - before] for ids in answers]
        shortened = before < len(prompt) or cut != answers
        return Encoded([[prompt[len(prompt) - before :], *cut]], shortened)

    def row(self, columns: Columns, dice: Dice) -> Batch:
        prompt, chosen, rejected = columns
        worse = {_WORSE + name: values for name, values in self._answered(prompt, rejected).items()}
        return {**self._answered(prompt, chosen), **worse}

    def longest(self, tokens: np.random.Generator) -> Row:
        half = (self.width + 1) // 2
        prompt = tokens.choice(self.vocabulary.ordinary, self.width + 1 - half).tolist()
        return [prompt, *(tokens.choice(self.vocabulary.ordinary, half).tolist() for _ in range(2))]

    def _answered(self, prompt: np.ndarray, answer: np.ndarray) -> Batch:
        ids = np.concatenate([prompt, answer])
        labels = np.concatenate([np.full(prompt.size, NO_LABEL), answer])[1:]
        return {**inputs(ids[:-1], self.width, self.vocabulary.end), LABELS: padded(labels, self.width, NO_LABEL)}

    def _prompt(self, example: Example) -> list[Message]:
        if isinstance(example.fields[self.task.prompt], str):
            return [("user", example.text(self.task.prompt))]
        return messages_in(example, self.task.prompt)


@dataclass(frozen=True, slots=True)
class Preferred:
    """DPO's loss of each pair."""

    beta: float

    def targets(self, batch: Batch) -> int:
        return rows_in(batch)

    def nats(self, model: torch.nn.Module, batch: Tensors) -> torch.Tensor:
        return -torch.nn.functional.logsigmoid(self.beta * margins(model, batch))


def margins(model: torch.nn.Module, batch: Tensors) -> torch.Tensor:
    """By how much more than the reference the model prefers the better answer: float32, shape (B,), nats."""
    with torch.no_grad(), _reference(model):
        reference_2B = _log_probabilities(model, batch)
    better_B, worse_B = (_log_probabilities(model, batch) - reference_2B).chunk(2)
    return better_B - worse_B


def _log_probabilities(model: torch.nn.Module, batch: Tensors) -> torch.Tensor:
    """Of all better answers, then of all worse ones: float32, shape (2 × B,)."""
    names = (INPUTS, ATTENTION, LABELS)
    ids, attention, labels_BL = (torch.cat([batch[name], batch[_WORSE + name]]) for name in names)
    logits_BLV: torch.Tensor = model(input_ids=ids, attention_mask=attention).logits
    nats_BL = torch.nn.functional.cross_entropy(
        logits_BLV.float().transpose(1, 2), labels_BL, ignore_index=NO_LABEL, reduction="none"
    )
    return -nats_BL.sum(dim=1)


@contextmanager
def _reference(model: torch.nn.Module) -> Iterator[None]:
    """The model without its adapter and without dropout, for as long as the block lasts."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [part for part in model.modules() if isinstance(part, BaseTunerLayer)]
    if not layers:
        raise UsageError(
            "The model has no adapter, so that there is no reference to prefer by.",
            "Give the plan adapter: {type: lora} or {type: ia3}.",
        )
    was_training = model.training
    model.eval()
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        model.train(was_training)
