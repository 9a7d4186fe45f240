"""Tokenizers on disk: one JSON file, loaded without what a foreign file may do to our text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import StorageFailure, UnreadableData, UsageError
from llmasos.atomic import BY_UMASK, replacing
from llmasos.extras import require_train

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_DOCUMENT = "<|endoftext|>"
"""What ends a document in tokenizers that are made here."""
END_TOKENS = (END_OF_DOCUMENT, "<|end_of_text|>", "</s>", "<eos>", "[SEP]")
"""What ends one in tokenizers that exist: the first of these that is a special token of the file. Those of GPT, Llama 3, Llama
and T5, Gemma, BERT."""
PADDING = ("[PAD]", "<pad>")
MAX_FILE_BYTES = 256 * 1024 * 1024


def load(path: Path | str) -> Tokenizer:
    """The tokenizer in `path`, ready to encode whole documents.

    Truncation and padding that the file may ask for are switched off, and text that happens to spell a special token is
    encoded as text, so that no document can end another.

    Raises:
        StorageFailure: the file cannot be read.
        UnreadableData: it is not a tokenizers JSON file.
        UsageError: it has none of END_TOKENS.
    """
    require_train("tokenizers", task="load a tokenizer")
    from tokenizers import Tokenizer

    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UnreadableData(f"{path} has more than {MAX_FILE_BYTES:,} bytes, too large for a tokenizer.")
        content = path.read_bytes()
    except OSError as err:
        raise StorageFailure(
            f"{path} could not be read: {err.strerror or err}.", "Name a tokenizer.json, or a folder that holds one."
        ) from err
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except Exception as err:  # the library raises bare Exception, and ValueError, for any file it does not know
        raise UnreadableData(f"{path} is not a tokenizers JSON file.", "Name a tokenizer.json.") from err
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    if _end_of_document(tokenizer) is None:
        raise UsageError(
            f"{path} has no special token that ends a document, expected one of {', '.join(END_TOKENS)}.",
            "Add one as a special token, or train a tokenizer.",
        )
    return tokenizer


def save(tokenizer: Tokenizer, path: Path) -> None:
    """Write the tokenizer to `path` as JSON; the same tokenizer always gives the same bytes.

    Raises:
        StorageFailure: the file cannot be written.
    """
    with replacing(path, mode=BY_UMASK) as file:
        file.write(tokenizer.to_str(pretty=False).encode())


def end_of_document_id(tokenizer: Tokenizer) -> int:
    """The id of what ends a document.

    Raises:
        UsageError: the tokenizer has no such token.
    """
    return _ids_of_special(tokenizer)[end_of_document(tokenizer)]


def end_of_document(tokenizer: Tokenizer) -> str:
    """The first of END_TOKENS that is a special token of the tokenizer.

    Raises:
        UsageError: none is.
    """
    found = _end_of_document(tokenizer)
    if found is None:
        raise UsageError(
            f"The tokenizer has no special token that ends a document, expected one of {', '.join(END_TOKENS)}.",
            "Load it with llmasos.tokenizers.load.",
        )
    return found


def _end_of_document(tokenizer: Tokenizer) -> str | None:
    special = _ids_of_special(tokenizer)
    return next((token for token in END_TOKENS if token in special), None)


def _ids_of_special(tokenizer: Tokenizer) -> dict[str, int]:
    return {token.content: number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}


def vocab_size_of(tokenizer: Tokenizer) -> int:
    """Rows that an embedding needs: the largest id plus one, since a foreign file may leave ids out."""
    return int(max(tokenizer.get_vocab(with_added_tokens=True).values())) + 1


def pad_id(tokenizer: Tokenizer) -> int:
    """The token that fills rows up to their width: `[PAD]` or `<pad>` where the tokenizer has it, else what ends a document."""
    found = next((each for token in PADDING if (each := tokenizer.token_to_id(token)) is not None), None)
    return end_of_document_id(tokenizer) if found is None else int(found)
