"""A folder of text as three splits: one to train on, one to choose by, one to report.

    data = load_dataset("./corpus", tokenizer=tokenizer)
    data.train, data.validation, data.test          # or data["train"]
    data.train.num_tokens

Splits depend on the documents' content alone, as an institution's do in a federation. Encoded text lies in a private temporary
folder as long as the dataset lives, or in `cache_dir`, where the next program finds it again.
"""

from __future__ import annotations

import hashlib
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

from common.errors import InvalidConfiguration, StorageFailure, TooLittleData
from llmasos.datasets.encodings import readable
from llmasos.datasets.text import Document, read_documents, split_documents
from llmasos.tokenizers import as_tokenizer, bytes_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from llmasos.datasets.tokens import TokenFile

SPLITS = ("train", "validation", "test")


class TokenFolder:
    """Where encoded text lies, readable by its owner only; a temporary one goes when nothing refers to it any more."""

    def __init__(self, kept: Path | None) -> None:
        """
        Raises:
            StorageFailure: the folder cannot be made.
        """
        try:
            if kept is None:
                self.path = Path(tempfile.mkdtemp(prefix="llmasos-tokens-"))  # 0700, whatever the umask
                weakref.finalize(self, rmtree, self.path, ignore_errors=True)
                return
            self.path = kept
            kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as err:
            raise StorageFailure(f"A folder for encoded text cannot be made: {err}.") from err


@dataclass(eq=False)
class Split:
    """Some of a dataset's documents, and the tokenizer that turns them into tokens. len() counts documents."""

    name: str
    source: str
    documents: tuple[Document, ...] = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)
    folder: TokenFolder = field(repr=False)

    def __len__(self) -> int:
        return len(self.documents)

    def __iter__(self) -> Iterator[Document]:
        return iter(self.documents)

    def __getitem__(self, index: int) -> Document:
        return self.documents[index]

    @property
    def num_tokens(self) -> int:
        """Its tokens, ends of documents included; it is encoded now, if it was not yet."""
        return self.tokens.count

    @cached_property
    def num_bytes(self) -> int:
        """Its text's bytes in UTF-8."""
        return sum(len(document.text.encode()) for document in self.documents)

    @cached_property
    def tokens(self) -> TokenFile:
        """Its documents encoded, each ended by `<|endoftext|>`; made at the first use.

        Raises:
            TooLittleData: the split is empty.
            StorageFailure: the file cannot be written or read.
        """
        from llmasos.datasets.tokens import TokenFile, write_tokens

        if not self.documents:
            raise TooLittleData(
                f"The split {self.name} of {self.source} is empty.",
                f"Load it with a share of the text: load_dataset(…, {self.name}=0.1)."
                if self.name != "train"
                else "Name a folder with more text.",
            )
        path = self.folder.path / f"{self._digest()}.tokens"
        if not path.exists():
            write_tokens(self.documents, self.tokenizer, path)
        opened = TokenFile.open(path)
        weakref.finalize(self, opened.close)
        return opened

    def _digest(self) -> str:
        """Of tokenizer and text, so that tokens of others are never taken for these."""
        digest = hashlib.sha256(self.tokenizer.to_str().encode())
        for document in self.documents:
            text = document.text.encode()
            digest.update(len(text).to_bytes(8, "little") + text)
        return digest.hexdigest()[:32]

    def __repr__(self) -> str:
        return f"Split({self.name}: {len(self):,} documents of {self.source})"


@dataclass(frozen=True)
class Dataset(Mapping[str, Split]):
    """Three splits, by name and by key, as a DatasetDict has them."""

    train: Split
    validation: Split
    test: Split

    def __getitem__(self, name: str) -> Split:
        if name not in SPLITS:
            raise KeyError(f"no split {name!r}; there are {', '.join(SPLITS)}")
        split: Split = getattr(self, name)
        return split

    def __iter__(self) -> Iterator[str]:
        return iter(SPLITS)

    def __len__(self) -> int:
        return len(SPLITS)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}: {len(self[name]):,}" for name in SPLITS)
        return f"Dataset({self.train.source}: documents in {sizes})"


def load_dataset(
    path: str | Path,
    tokenizer: Tokenizer | str | Path | Any = None,
    *,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    text_column: str | None = None,
    unit_field: str | None = None,
    cache_dir: str | Path | None = None,
) -> Dataset:
    """Read a folder of text and split it into training, validation and test.

    A document is on the side that a hash of its text and `seed` says, so it stays there when others are added, and equal
    documents stand together. With `test=0` the validation split is what an institution of a federation holds out of the same
    folder, under a plan of the same seed and `evaluation.held_out_fraction`. A single document is cut, its end held out.

    Args:
        path: a folder, searched with its subfolders, or a file: .txt, .md, .py, .jsonl and .csv are read, as UTF-8.
        tokenizer: a tokenizers.Tokenizer, a fast tokenizer of transformers, or the path of a tokenizer.json; by default one
            token a byte, which needs no training.
        validation, test: shares of the documents, each from 0, which leaves the split empty, to below 1 together.
        seed: another seed, another split; 0 to 2^64 - 1.
        text_column: the field of .jsonl and .csv files that holds the text; "text" by default.
        unit_field: their field that says whose text it is, a patient for instance: a unit is never divided.
        cache_dir: where encoded text is kept and found again, readable by its owner only. By default it is removed with the
            dataset.

    Raises:
        InvalidConfiguration: shares out of range.
        TooLittleData: there is no text, or too little to hold any of it out.
        UsageError, UnreadableData, StorageFailure: the folder or a file of it cannot be read, or is not UTF-8.
    """
    shares = Decimal(str(validation)), Decimal(str(test))
    if min(shares) < 0 or sum(shares) >= 1:
        raise InvalidConfiguration(
            f"validation is {validation} and test {test}, expected shares from 0, together below 1.",
            "0.1 is a tenth of the documents; 0 leaves a split empty.",
        )
    encoder = bytes_tokenizer() if tokenizer is None else as_tokenizer(tokenizer)
    documents = readable(read_documents(Path(path), text_column=text_column, unit_field=unit_field), str(path))
    parts = _split(list(documents), *shares, seed=seed, source=str(path))
    folder = TokenFolder(None if cache_dir is None else Path(cache_dir))
    return Dataset(*(Split(name, str(path), tuple(parts[name]), encoder, folder) for name in SPLITS))


def _split(
    documents: list[Document], validation: Decimal, test: Decimal, *, seed: int, source: str
) -> dict[str, list[Document]]:
    """The documents of each split. The second cut has another seed: under the same one, what is held out ranks low already."""
    held_out = validation + test
    if not documents:
        raise TooLittleData(f"{source} holds no text.")
    if not held_out:
        return {"train": documents, "validation": [], "test": []}
    train, rest = split_documents(documents, held_out, seed=seed, source=source)
    if not (validation and test):
        return {"train": train, "validation": rest if validation else [], "test": rest if test else []}
    kept, tested = split_documents(
        rest, test / held_out, seed=(seed + 1) % 2**64, source=f"what is held out of {source}"
    )
    return {"train": train, "validation": kept, "test": tested}
