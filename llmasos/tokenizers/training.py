"""A tokenizer from a folder of text, and whatever a caller has for one as a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import InvalidConfiguration, TooLittleData, UsageError
from llmasos.datasets.encodings import readable
from llmasos.datasets.text import read_documents
from llmasos.extras import require_train
from llmasos.tokenizers.bytelevel import train_bpe
from llmasos.tokenizers.files import end_of_document, load

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SMALLEST = 257
"""The 256 bytes and the end of a document."""
SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[MASK]", "<|im_start|>", "<|im_end|>")
"""What tasks put between an institution's own tokens: BERT's, and those of conversations."""


def train(
    path: str | Path,
    vocab_size: int = 8192,
    *,
    special_tokens: Sequence[str] = SPECIAL,
    text_column: str | None = None,
) -> Tokenizer:
    """Train a byte-level BPE tokenizer on the text of a folder or file.

    Any text in any language can be encoded, without an unknown token. The same text gives the same tokenizer. Its vocabulary
    holds pieces of the text: train on public text, never on text that others may not see.

    Args:
        path: a folder, searched with its subfolders, or a file: .txt, .md, .py, .jsonl and .csv are read.
        vocab_size: tokens at most, the 256 bytes, `<|endoftext|>` and special tokens included; fewer where the text is short.
        special_tokens: what tasks need besides; by default what all of them do, so that one tokenizer serves any.
        text_column: the field of .jsonl and .csv files that holds the text; "text" by default.

    Returns:
        A `tokenizers.Tokenizer`: `.encode(text).ids`, `.decode(ids)`, `.get_vocab_size()`, `.save(path)`.

    Raises:
        InvalidConfiguration: vocab_size below 257 and the special tokens.
        TooLittleData: there is no text.
        UsageError, UnreadableData, StorageFailure: the folder or a file of it cannot be read, or is not UTF-8.

    Source: Sennrich et al., arXiv:1508.07909; bytes as in Radford et al. 2019, section 2.2.
    """
    from llmasos.tokenizers.special import add_special  # here: it loads numpy

    smallest = SMALLEST + len(special_tokens)
    if vocab_size < smallest:
        raise InvalidConfiguration(
            f"vocab_size is {vocab_size}, expected at least {smallest}: the 256 bytes, the end of a document and "
            f"{len(special_tokens)} special tokens.",
            "Name a larger vocab_size, or use llmasos.tokenizers.bytes_tokenizer().",
        )
    documents = readable(read_documents(Path(path), text_column=text_column), str(path))
    try:
        tokenizer = train_bpe((document.text for document in documents), vocab_size - len(special_tokens))
    except TooLittleData as err:
        raise TooLittleData(f"{path} holds no text to train a tokenizer on.") from err
    add_special(tokenizer, special_tokens)
    return tokenizer


def as_tokenizer(given: Tokenizer | str | Path | Any) -> Tokenizer:
    """`given` as a `tokenizers.Tokenizer`, also a tokenizer.json, a folder with one, or a fast tokenizer of transformers.

    Raises:
        UsageError: it is something else, or has no special token that ends a document.
        StorageFailure, UnreadableData: the file cannot be read.
    """
    require_train("tokenizers", task="use a tokenizer")
    from tokenizers import Tokenizer

    if isinstance(given, str | Path):
        path = Path(given)
        return load(path / "tokenizer.json" if path.is_dir() else path)
    given = getattr(given, "backend_tokenizer", given)
    if not isinstance(given, Tokenizer):
        raise UsageError(
            f"A {type(given).__name__} is no tokenizer: expected a tokenizers.Tokenizer, a fast tokenizer of transformers, or "
            "the path of a tokenizer.json.",
            "Train one: llmasos.tokenizers.train(folder).",
        )
    end_of_document(given)
    return given
