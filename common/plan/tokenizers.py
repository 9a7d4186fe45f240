"""The plan's `tokenizer`: from text to token ids."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from common.plan.fields import PlanSection

BYTES_TOKENS = 257
"""Of tokenizer `bytes`, without the special tokens of a task."""


class BytesTokenizer(PlanSection):
    """One token a byte of UTF-8, and one that ends a document: 257 tokens, nothing to train."""

    type: Literal["bytes"] = "bytes"


class BpeTokenizer(PlanSection):
    """Byte-level BPE, trained by `plan prepare` on public text that the plan names, never on private text."""

    type: Literal["bpe"] = "bpe"
    vocab_size: Annotated[
        int, Field(ge=258, le=1_000_000, description="Tokens, the 256 bytes and the end of a document included.")
    ] = 1024
    text: Annotated[str, Field(description="Folder or file of public text, relative to the plan file.")]


class GivenTokenizer(PlanSection):
    """A tokenizer.json that exists already."""

    type: Literal["given"] = "given"
    path: Annotated[str, Field(description="A tokenizers JSON file, relative to the plan file.")]


Tokenizer = Annotated[BytesTokenizer | BpeTokenizer | GivenTokenizer, Field(discriminator="type")]
