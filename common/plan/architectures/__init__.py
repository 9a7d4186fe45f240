"""The plan's `model`: the architecture that is trained, and its sizes. Fields are called as transformers calls them.

decoders.py           gpt2, llama, mistral, qwen2, qwen3
encoders.py           bert
attention.py          what a decoder's tokens see: full, sliding-window, block-sparse
encoder_decoders.py   t5, transformer

What a model ends in follows from the plan's task: its `head`, one of an architecture's `heads`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from common.plan.architectures.base import Architecture
from common.plan.architectures.decoders import GPT2, Llama, Mistral, Qwen2, Qwen3, RotaryDecoder
from common.plan.architectures.encoder_decoders import T5, Transformer
from common.plan.architectures.encoders import BERT

__all__ = [
    "BERT",
    "GPT2",
    "T5",
    "Architecture",
    "Llama",
    "Mistral",
    "Model",
    "Qwen2",
    "Qwen3",
    "RotaryDecoder",
    "Transformer",
    "architectures_with",
]

Model = Annotated[GPT2 | Llama | Mistral | Qwen2 | Qwen3 | BERT | T5 | Transformer, Field(discriminator="type")]

_EACH: tuple[Architecture, ...] = (
    GPT2(),
    Llama(),
    Mistral(),
    Qwen2(),
    Qwen3(),
    BERT(),
    T5(),
    Transformer(architecture="decoder-only"),
    Transformer(architecture="encoder-decoder"),
)


def architectures_with(head: str) -> tuple[str, ...]:
    """The architectures that can end in `head`, as a sentence names them."""
    return tuple(section.title for section in _EACH if head in section.heads)
