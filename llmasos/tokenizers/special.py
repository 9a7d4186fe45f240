"""Special tokens that tasks need: added to tokenizers that are made here, looked for in those that exist."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from common.errors import UsageError
from common.plan.tasks import CLS, MASK, SEP
from llmasos.tokenizers.files import PADDING, end_of_document, end_of_document_id, pad_id, vocab_size_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer

    from common.plan.tasks import TaskSection


def add_special(tokenizer: Tokenizer, tokens: Sequence[str]) -> None:
    """Give the tokenizer these tokens, those that it lacks, in this order, with the ids after its last one."""
    tokenizer.add_special_tokens([token for token in tokens if tokenizer.token_to_id(token) is None])


def frame(tokenizer: Tokenizer, task: TaskSection) -> None:
    """Have it put by itself what the task puts around a text, for those who use the released model with transformers alone:
    `[CLS] text [SEP] pair [SEP]` with token types, or what ends a source. The tasks here put it there themselves, and encode
    without it."""
    from tokenizers.processors import Sequence as Sequenced
    from tokenizers.processors import TemplateProcessing

    end = end_of_document(tokenizer)
    if task.head == "seq2seq-lm":
        single, pair, tokens = f"$A {end}", f"$A {end} $B {end}", [end]
    elif {CLS, SEP} <= set(task.special_tokens):
        single, pair, tokens = f"{CLS} $A {SEP}", f"{CLS} $A {SEP} $B:1 {SEP}:1", [CLS, SEP]
    else:
        return
    template = TemplateProcessing(
        single=single, pair=pair, special_tokens=[(one, tokenizer.token_to_id(one)) for one in tokens]
    )
    before = tokenizer.post_processor
    tokenizer.post_processor = template if before is None else Sequenced([before, template])


def check_special(tokenizer: Tokenizer, tokens: Sequence[str], *, where: str, task: str) -> None:
    """
    Raises:
        UsageError: the tokenizer lacks one of these tokens; names it, `where` it comes from, and the task.
    """
    pads = PADDING if any(tokenizer.token_to_id(token) is not None for token in PADDING) else ()
    lacking = [token for token in tokens if token not in pads and tokenizer.token_to_id(token) is None]
    if lacking:
        raise UsageError(
            f"{where} has no token {', '.join(lacking)}, which task {task} needs.",
            "Add it as a special token, or let `plan prepare` make a tokenizer: {type: bpe, …}.",
        )


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Ids that tasks put between an institution's own tokens. Where the tokenizer has no such token: what ends a document."""

    size: int
    end: int
    pad: int
    cls: int
    sep: int
    mask: int
    ordinary: NDArray[np.int64]
    """The ids that are no special tokens, ascending."""


def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary:
    """
    Raises:
        UsageError: the tokenizer has no special token that ends a document.
    """
    end = end_of_document_id(tokenizer)
    pad = pad_id(tokenizer)
    cls, sep, mask = (_id(tokenizer, token, end) for token in (CLS, SEP, MASK))
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special} | {end}
    ordinary = sorted(set(tokenizer.get_vocab(with_added_tokens=True).values()) - special)
    return Vocabulary(vocab_size_of(tokenizer), end, pad, cls, sep, mask, np.asarray(ordinary, dtype=np.int64))


def _id(tokenizer: Tokenizer, token: str, otherwise: int) -> int:
    found = tokenizer.token_to_id(token)
    return otherwise if found is None else int(found)
