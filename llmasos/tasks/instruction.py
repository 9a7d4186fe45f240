"""Instruction tuning: a conversation becomes one text by the plan's template, and the assistant's words alone are targets.

    <|im_start|>user\\n … <|im_end|>\\n<|im_start|>assistant\\n … <|im_end|>\\n<|endoftext|>
                                                             ‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾ targets

The template is data (common.plan.tasks.ChatTemplate): texts before and after what each role says. Its special tokens stand in
rows as themselves, and what people say is encoded on its own, so that nobody's text can end a turn or speak for another role.
A conversation longer than `local.sequence_length` is cut at its end; one without targets within it is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from common.errors import UnreadableData
from common.plan.tasks import ChatTemplate, Instruction, is_special
from llmasos.datasets.draws import Dice
from llmasos.datasets.records import Example, Wanted
from llmasos.datasets.rows import Columns, Row
from llmasos.datasets.text import clean
from llmasos.tasks.base import Batch
from llmasos.tasks.encoding import LABELS, NO_LABEL, inputs, padded
from llmasos.tasks.records import Encoded
from llmasos.tokenizers.special import Vocabulary

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

ROLES = tuple(ChatTemplate().turns)
Message = tuple[str, str]
"""A role and what it says."""


@dataclass(frozen=True, slots=True)
class TurnIds:
    """The tokens around what a role says."""

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]


def turns_of(template: ChatTemplate, tokenizer: Tokenizer) -> Mapping[str, TurnIds]:
    """A template in a tokenizer that has its special tokens, by role."""

    def ids(pieces: tuple[str, ...]) -> tuple[int, ...]:
        found: list[int] = []
        for piece in pieces:
            number = tokenizer.token_to_id(piece) if is_special(piece) else None
            found += tokenizer.encode(piece, add_special_tokens=False).ids if number is None else [number]
        return tuple(found)

    return {role: TurnIds(*map(ids, turn.pieces)) for role, turn in template.turns.items()}


@dataclass(frozen=True, slots=True)
class Conversations:
    """A row is (tokens, 1 where a token is a target)."""

    task: Instruction
    turns: Mapping[str, TurnIds]
    vocabulary: Vocabulary
    width: int
    columns: int = 2

    @property
    def wanted(self) -> Wanted:
        return Wanted(((self.task.messages,), (self.task.prompt, self.task.response)), self.task.type)

    @property
    def most_targets(self) -> int:
        return self.width

    def texts(self, example: Example) -> list[str]:
        return [text for _, text in self._messages(example)]

    def encode(self, example: Example, encodings: Sequence[Encoding]) -> Encoded:
        tokens: list[int] = []
        targets: list[int] = []
        for (role, _), encoding in zip(self._messages(example), encodings, strict=True):
            turn, answers = self.turns[role], int(role == "assistant")
            said = [*encoding.ids, *turn.suffix]
            tokens += [*turn.prefix, *said]
            targets += [0] * len(turn.prefix) + [answers] * len(said)
        tokens.append(self.vocabulary.end)
        targets.append(targets[-1])
        room = self.width + 1
        if not any(targets[1:room]):
            return Encoded([])
        return Encoded([[tokens[:room], targets[:room]]], shortened=len(tokens) > room)

    def row(self, columns: Columns, dice: Dice) -> Batch:
        tokens_T, targets_T = columns
        labels = np.where(targets_T[1:] == 1, tokens_T[1:], NO_LABEL)
        return {**inputs(tokens_T[:-1], self.width, self.vocabulary.end), LABELS: padded(labels, self.width, NO_LABEL)}

    def longest(self, tokens: np.random.Generator) -> Row:
        return [tokens.choice(self.vocabulary.ordinary, self.width + 1).tolist(), [1] * (self.width + 1)]

    def _messages(self, example: Example) -> list[Message]:
        if not example.has(self.task.messages):
            return [("user", example.text(self.task.prompt)), ("assistant", example.text(self.task.response))]
        return messages_in(example, self.task.messages)


def messages_in(example: Example, field: str) -> list[Message]:
    """
    Raises:
        UnreadableData: the field holds something other than messages of known roles.
    """
    found = example.fields[field]
    messages = found if isinstance(found, list) else []
    if not messages or not all(_is_message(message) for message in messages):
        raise example.wrong(field, "a list of {role, content}")
    if not all(message["role"] in ROLES for message in messages):
        raise UnreadableData(f"{example.place} has a role in field {field!r} that is none of {', '.join(ROLES)}.")
    return [(message["role"], clean(message["content"])) for message in messages]


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), str) for name in ("role", "content"))
