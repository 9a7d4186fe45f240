"""Byte-level tokenizers: any text, in any language, without an unknown token (Radford et al. 2019, section 2.2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from common.errors import TooLittleData
from llmasos.extras import require_train
from llmasos.tokenizers.files import END_OF_DOCUMENT

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def train_bpe(documents: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train byte-level BPE (Sennrich et al., arXiv:1508.07909). The same documents in the same order give the same tokenizer.

    The result has at most `vocab_size` tokens: `<|endoftext|>` (id 0), the 256 bytes, merges; fewer where the text is too
    short for so many merges.

    Raises:
        TooLittleData: there is no text at all.
    """
    require_train("tokenizers", task="train a tokenizer")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_DOCUMENT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    counted = _Counted(documents)
    tokenizer.train_from_iterator(counted, trainer)
    if not counted.characters:
        raise TooLittleData("There is no text to train a tokenizer on.")
    tokenizer.encode_special_tokens = True
    return tokenizer


def bytes_tokenizer() -> Tokenizer:
    """257 tokens: token n is byte n of UTF-8, token 256 is `<|endoftext|>`."""
    require_train("tokenizers", task="make a tokenizer")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(vocab={char: byte for byte, char in enumerate(_byte_characters())}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_DOCUMENT])
    tokenizer.encode_special_tokens = True
    return tokenizer


class _Counted:
    """Passes documents on and counts their characters."""

    def __init__(self, documents: Iterable[str]) -> None:
        self._documents = iter(documents)
        self.characters = 0

    def __iter__(self) -> _Counted:
        return self

    def __next__(self) -> str:
        document = next(self._documents)
        self.characters += len(document)
        return document


def _byte_characters() -> list[str]:
    """GPT-2's printable character for each byte: itself where it is printable, else the next one from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(spare)) for byte in range(256)]
