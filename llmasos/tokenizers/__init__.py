"""Tokenizers: each is one tokenizers JSON file, and each knows the token `<|endoftext|>`, which ends a document.

    train(folder, vocab_size)            byte-level BPE on a folder of text
    train_bpe(documents, vocab_size)     the same of documents; the same text gives the same file
    bytes_tokenizer()                    257 tokens, token n is byte n, nothing to train
    load(path)                           one that exists, from a plan or a run
    special.add_special(tokenizer, …)    [MASK] and others, where a task needs them

A tokenizer trained on private text would carry names and record numbers in its vocabulary: train on public text only.
"""

from llmasos.tokenizers.bytelevel import bytes_tokenizer, train_bpe
from llmasos.tokenizers.files import (
    END_OF_DOCUMENT,
    end_of_document,
    end_of_document_id,
    load,
    pad_id,
    save,
    vocab_size_of,
)
from llmasos.tokenizers.training import as_tokenizer, train

__all__ = [
    "END_OF_DOCUMENT",
    "as_tokenizer",
    "bytes_tokenizer",
    "end_of_document",
    "end_of_document_id",
    "load",
    "pad_id",
    "save",
    "train",
    "train_bpe",
    "vocab_size_of",
]
