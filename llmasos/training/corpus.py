"""An institution's text as tokens on disk: read, split by unit, encoded once.

    TOKENS/
        3f0c…/                     digest of the tokenizer, of how to read and split, and of the folders' listing
            train.tokens  held_out.tokens  facts.json

A restarted worker finds its tokens again; changed text, another tokenizer or another split has another digest.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType

from pydantic import BaseModel, ConfigDict, ValidationError

from common.errors import StorageFailure, TooLittleData
from common.plan.model import Plan
from llmasos.atomic import replacing
from llmasos.datasets.text import Document, read_documents, split_documents
from llmasos.datasets.tokens import TokenFile, batches, held_out_windows, write_tokens
from llmasos.tasks.base import Batch
from llmasos.tasks.causal_lm import TOKENS, window_row
from llmasos.tokenizers import load

log = logging.getLogger(__name__)

_FORMAT = 1
_TRAIN, _HELD_OUT, _FACTS = "train.tokens", "held_out.tokens", "facts.json"


@dataclass(frozen=True, slots=True)
class Source:
    """A folder of text. `text_column` and `unit_field` name fields of .jsonl and .csv files: the text, and whose it is."""

    folder: Path
    text_column: str | None = None
    unit_field: str | None = None


class Facts(BaseModel):
    """How much text there is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    documents: int
    train_tokens: int
    held_out_documents: int
    held_out_tokens: int


@dataclass(frozen=True, slots=True)
class Corpus:
    """One institution's tokens, open for reading; a context manager."""

    facts: Facts
    train: TokenFile
    held_out: TokenFile
    plan: Plan

    def batch(self, *, seed: int, step: int) -> Batch:
        """What the plan's step `step` of a round with that seed trains on."""
        local = self.plan.local
        tokens_BT = batches(
            self.train, seed=seed, step=step, batch_size=local.batch_size, sequence_length=local.sequence_length
        )
        return {TOKENS: tokens_BT}

    def held_out_rows(self) -> Iterator[Batch]:
        """What every model is measured on here, each a batch of one row."""
        windows = held_out_windows(self.held_out, self.plan.local.sequence_length, self.plan.evaluation.max_tokens)
        return map(window_row, windows)

    def close(self) -> None:
        self.train.close()
        self.held_out.close()

    def __enter__(self) -> Corpus:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def prepare_corpus(sources: Sequence[Source], tokenizer_path: Path, root: Path, plan: Plan) -> Corpus:
    """The tokens of `sources` as `plan` wants them, from `root` if they are there, else made now.

    Raises:
        TooLittleData: names the folders and counts.
        UnreadableData, UsageError, StorageFailure: a folder or file cannot be read, or `root` not be written.
    """
    folder = root / _digest(sources, tokenizer_path, plan)
    corpus = _open(folder, plan)
    if corpus is None:
        _make(folder, sources, tokenizer_path, plan)
        corpus = _open(folder, plan)
    if corpus is None:
        raise StorageFailure(f"Tokens in {folder} cannot be read, though they were just written.")
    try:
        _check_enough(corpus, sources)
    except TooLittleData:
        corpus.close()
        raise
    return corpus


def _open(folder: Path, plan: Plan) -> Corpus | None:
    """The corpus in `folder`; None where there is none, or a damaged one."""
    try:
        facts = Facts.model_validate_json((folder / _FACTS).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        log.warning("unreadable tokens passed over", extra={"folder": str(folder)})
        return None
    try:
        train = TokenFile.open(folder / _TRAIN)
    except StorageFailure:
        return None
    try:
        held_out = TokenFile.open(folder / _HELD_OUT)
    except StorageFailure:
        train.close()
        return None
    return Corpus(facts, train, held_out, plan)


def _make(folder: Path, sources: Sequence[Source], tokenizer_path: Path, plan: Plan) -> None:
    tokenizer = load(tokenizer_path)
    train, held_out = split_documents(
        _documents(sources), plan.evaluation.held_out_fraction, seed=plan.seed, source=_names(sources)
    )
    temporary = None
    try:
        _private(folder.parent)
        temporary = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder.parent))  # 0700, whatever the umask
        facts = Facts(
            documents=len(train) + len(held_out),
            train_tokens=write_tokens(train, tokenizer, temporary / _TRAIN),
            held_out_documents=len(held_out),
            held_out_tokens=write_tokens(held_out, tokenizer, temporary / _HELD_OUT),
        )
        with replacing(temporary / _FACTS) as file:
            file.write(facts.model_dump_json().encode() + b"\n")
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    except OSError as err:
        raise StorageFailure(f"Tokens cannot be written to {folder}: {err.strerror or err}.") from err
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _private(folder: Path) -> None:
    """Make it for its owner only, also where the umask would let others in or somebody else made it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)


def _documents(sources: Sequence[Source]) -> Iterator[Document]:
    return chain.from_iterable(
        read_documents(one.folder, text_column=one.text_column, unit_field=one.unit_field) for one in sources
    )


def _check_enough(corpus: Corpus, sources: Sequence[Source]) -> None:
    needed = corpus.plan.local.sequence_length + 1
    facts = corpus.facts
    if facts.train_tokens < needed:
        raise TooLittleData(
            f"{_names(sources)} holds {facts.train_tokens:,} tokens to train on in {facts.documents:,} documents, "
            f"the plan needs at least {needed:,}."
        )
    if facts.held_out_tokens < 2:
        raise TooLittleData(
            f"{_names(sources)} holds {facts.held_out_tokens} held-out tokens in {facts.documents:,} documents, "
            "at least 2 are needed."
        )


def _names(sources: Sequence[Source]) -> str:
    return ", ".join(str(one.folder) for one in sources)


def _digest(sources: Sequence[Source], tokenizer_path: Path, plan: Plan) -> str:
    try:
        tokenizer = hashlib.sha256(tokenizer_path.read_bytes()).hexdigest()
    except OSError as err:
        raise StorageFailure(f"{tokenizer_path} could not be read: {err.strerror or err}.") from err
    described = {
        "format": _FORMAT,
        "tokenizer": tokenizer,
        "held_out_fraction": str(plan.evaluation.held_out_fraction.normalize()),
        "seed": plan.seed,
        "sources": [
            [str(one.folder.resolve()), one.text_column, one.unit_field, _listing(one.folder)] for one in sources
        ],
    }
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:32]


def _listing(folder: Path) -> list[list[str | int]]:
    """Name, size and time of change of every file; files that no reader takes only make it change more often."""
    paths = (
        [Path(place) / name for place, _, names in os.walk(folder) for name in names] if folder.is_dir() else [folder]
    )
    found: list[list[str | int]] = []
    for path in paths:
        try:
            facts = path.stat()
        except OSError:
            continue  # a link to nothing, or removed meanwhile; reading will say what matters
        found.append([os.fsencode(path).hex(), facts.st_size, facts.st_mtime_ns])
    return sorted(found)
