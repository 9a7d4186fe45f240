"""A tokenizer from a folder of text, and whatever a caller has for one as a tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import InvalidConfiguration, TooLittleData, UsageError
from llmasos.datasets.encodings import readable
from llmasos.datasets.text import read_documents
from llmasos.extras import require_train
from llmasos.tokenizers.bytelevel import train_bpe
from llmasos.tokenizers.files import END_OF_DOCUMENT, load

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SMALLEST = 257
"""The 256 bytes and the end of a document."""


def train(path: str | Path, vocab_size: int = 8192, *, text_column: str | None = None) -> Tokenizer:
    """Train a byte-level BPE tokenizer on the text of a folder or file.

    Any text in any language can be encoded, without an unknown token. The same text gives the same tokenizer. Its vocabulary
    holds pieces of the text: train on public text, never on text that others may not see.

    Args:
        path: a folder, searched with its subfolders, or a file: .txt, .md, .py, .jsonl and .csv are read.
        vocab_size: tokens at most, the 256 bytes and `<|endoftext|>` included; fewer where the text is short.
        text_column: the field of .jsonl and .csv files that holds the text; "text" by default.

    Returns:
        A `tokenizers.Tokenizer`: `.encode(text).ids`, `.decode(ids)`, `.get_vocab_size()`, `.save(path)`.

    Raises:
        InvalidConfiguration: vocab_size below 257.
        TooLittleData: there is no text.
        UsageError, UnreadableData, StorageFailure: the folder or a file of it cannot be read, or is not UTF-8.

    Source: Sennrich et al., arXiv:1508.07909; bytes as in Radford et al. 2019, section 2.2.
    """
    if vocab_size < SMALLEST:
        raise InvalidConfiguration(
            f"vocab_size is {vocab_size}, expected at least {SMALLEST}: the 256 bytes and the end of a document.",
            "Name a larger vocab_size, or use llmasos.tokenizers.bytes_tokenizer().",
        )
    documents = readable(read_documents(Path(path), text_column=text_column), str(path))
    try:
        return train_bpe((document.text for document in documents), vocab_size)
    except TooLittleData as err:
        raise TooLittleData(f"{path} holds no text to train a tokenizer on.") from err


def as_tokenizer(given: Tokenizer | str | Path | Any) -> Tokenizer:
    """A `tokenizers.Tokenizer`, also from a tokenizer.json, a folder with one, or a fast tokenizer of transformers.

    Raises:
        UsageError: it is something else, or has no `<|endoftext|>`.
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
    if given.token_to_id(END_OF_DOCUMENT) is None:
        raise UsageError(
            f"The tokenizer has no token {END_OF_DOCUMENT}, which ends a document.",
            f"Add it: tokenizer.add_special_tokens(['{END_OF_DOCUMENT}']).",
        )
    return given
