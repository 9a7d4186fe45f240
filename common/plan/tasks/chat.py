"""How a conversation becomes one text: what stands before and behind each turn."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

from common.plan.fields import PlanSection

_SPECIAL = re.compile(r"<\|\w{1,50}\|>")
END_OF_DOCUMENT = "<|endoftext|>"


class Turn(PlanSection):
    """What stands around what somebody says. `<|name|>` is a special token, which nobody's text can spell."""

    prefix: Annotated[str, Field(max_length=1000, description="Before it.")]
    suffix: Annotated[str, Field(max_length=1000, description="After it.")]

    @property
    def pieces(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Prefix and suffix, each cut into special tokens and the text between them."""
        return _pieces(self.prefix), _pieces(self.suffix)


def _pieces(text: str) -> tuple[str, ...]:
    return tuple(piece for piece in re.split(f"({_SPECIAL.pattern})", text) if piece)


def is_special(piece: str) -> bool:
    """Whether a piece of a template is a special token."""
    return _SPECIAL.fullmatch(piece) is not None


class ChatTemplate(PlanSection):
    """How a conversation becomes one text: ChatML, if nothing else is said. Data, not a program: nothing in it is run."""

    system: Turn = Turn(prefix="<|im_start|>system\n", suffix="<|im_end|>\n")
    user: Turn = Turn(prefix="<|im_start|>user\n", suffix="<|im_end|>\n")
    assistant: Turn = Turn(prefix="<|im_start|>assistant\n", suffix="<|im_end|>\n")

    @property
    def turns(self) -> dict[str, Turn]:
        """By role."""
        return {"system": self.system, "user": self.user, "assistant": self.assistant}

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """In the order in which they come."""
        pieces = [piece for turn in self.turns.values() for side in turn.pieces for piece in side]
        return tuple(dict.fromkeys(piece for piece in pieces if is_special(piece) and piece != END_OF_DOCUMENT))
