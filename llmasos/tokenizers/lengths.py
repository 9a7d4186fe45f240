"""How many bytes of text a token says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmasos.tokenizers.files import vocab_size_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer


def byte_lengths(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """UTF-8 bytes that each token stands for, int64, shape (vocabulary,); special tokens such as `<|endoftext|>` say 0.

    Of a byte-level tokenizer the counts of a text's tokens add up to the text's bytes. Of others what a token decodes to alone
    is counted, so that characters at its ends which only neighbours decide may be off.
    """
    import numpy as np
    from tokenizers.decoders import ByteLevel

    special = {index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    byte_level = isinstance(tokenizer.decoder, ByteLevel)
    lengths_V = np.zeros(vocab_size_of(tokenizer), dtype=np.int64)
    for index in range(len(lengths_V)):
        token = tokenizer.id_to_token(index)
        if token is None or index in special:
            continue
        lengths_V[index] = len(token) if byte_level else len(tokenizer.decode([index]).encode())
    return lengths_V
