"""An institution's data as its task reads them, on disk: read, split by unit, encoded once.

    TOKENS/
        3f0c…/                     digest of the tokenizer, of how to read and split, and of the folders' listing
            train.tokens  held_out.tokens  facts.json          or .rows, where a task makes rows of records

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
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from pydantic import ValidationError

from common.errors import StorageFailure, TooLittleData, UnreadableData
from common.plan.model import Plan
from common.plan.tasks import CausalLM
from llmasos.atomic import replacing
from llmasos.datasets.encodings import broken
from llmasos.datasets.source import Source
from llmasos.datasets.text import Splittable
from llmasos.tasks.base import Batch, Data, Facts, Recipe
from llmasos.tasks.registry import recipe_of
from llmasos.tokenizers import load

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["Corpus", "Facts", "Source", "open_corpus", "prepare_corpus"]

log = logging.getLogger(__name__)

_FORMAT = 1
_TRAIN, _HELD_OUT, _FACTS = "train", "held_out", "facts.json"


@dataclass(frozen=True, slots=True)
class Corpus:
    """One institution's data as its task wants them, open for reading; a context manager."""

    facts: Facts
    train: Data
    held_out: Data
    plan: Plan

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.train.path.parent

    def batch(self, *, seed: int, step: int) -> Batch:
        """What the plan's step `step` of a round with that seed trains on."""
        return self.train.batch(seed=seed, step=step)

    def held_out_rows(self) -> Iterator[Batch]:
        """What every model is measured on here, each a batch of one row."""
        return self.held_out.measured_rows()

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
    """The data of `sources` as `plan` wants them, from `root` if they are there, else made now.

    Raises:
        TooLittleData: names the folders and counts.
        UnreadableData, UsageError, StorageFailure: a folder or file cannot be read, or `root` not be written.
    """
    digest = _tokenizer_digest(tokenizer_path)
    recipe = recipe_of(plan, _tokenizer(tokenizer_path, digest))
    folder = root / _digest(sources, digest, plan)
    corpus = _open(folder, recipe, plan)
    if corpus is None:
        _make(folder, sources, recipe)
        corpus = _open(folder, recipe, plan)
    if corpus is None:
        raise StorageFailure(f"Tokens in {folder} cannot be read, though they were just written.")
    try:
        recipe.check(corpus.facts, _names(sources))
    except TooLittleData:
        corpus.close()
        raise
    return corpus


def open_corpus(folder: Path, tokenizer_path: Path, plan: Plan) -> Corpus:
    """What another process has prepared, from its folder.

    Raises:
        StorageFailure: it is not there whole.
    """
    recipe = recipe_of(plan, _tokenizer(tokenizer_path, _tokenizer_digest(tokenizer_path)))
    corpus = _open(folder, recipe, plan)
    if corpus is None:
        raise StorageFailure(f"Tokens in {folder} cannot be read, though they were just prepared.")
    return corpus


def _open(folder: Path, recipe: Recipe, plan: Plan) -> Corpus | None:
    """The corpus in `folder`; None where there is none, or a damaged one."""
    try:
        facts = Facts.model_validate_json((folder / _FACTS).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        log.warning("unreadable tokens passed over", extra={"folder": str(folder)})
        return None
    try:
        train = recipe.open(folder / (_TRAIN + recipe.suffix))
    except StorageFailure:
        return None
    try:
        held_out = recipe.open(folder / (_HELD_OUT + recipe.suffix))
    except StorageFailure:
        train.close()
        return None
    return Corpus(facts, train, held_out, plan)


def _make(folder: Path, sources: Sequence[Source], recipe: Recipe) -> None:
    train, held_out = recipe.split(_things(sources, recipe), _names(sources))
    temporary = None
    try:
        _private(folder.parent)
        temporary = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder.parent))  # 0700, whatever the umask
        written = recipe.write(train, temporary / (_TRAIN + recipe.suffix))
        measured = recipe.write(held_out, temporary / (_HELD_OUT + recipe.suffix))
        facts = Facts.of(written, measured)
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


def _things(sources: Sequence[Source], recipe: Recipe) -> Iterator[Splittable]:
    for one in sources:
        for found in recipe.survey(one):
            if isinstance(found, Path):
                continue
            if isinstance(found, UnreadableData):
                raise found
            if (problem := broken(found, str(one.folder))) is not None:
                raise problem
            yield found


def _names(sources: Sequence[Source]) -> str:
    return ", ".join(str(one.folder) for one in sources)


def _tokenizer_digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as err:
        raise StorageFailure(f"{path} could not be read: {err.strerror or err}.") from err


@lru_cache(maxsize=2)
def _tokenizer(path: Path, digest: str) -> Tokenizer:
    """Kept, since a process may open thousands of institutions' data."""
    return load(path)


def _digest(sources: Sequence[Source], tokenizer: str, plan: Plan) -> str:
    described = {
        "format": _FORMAT,
        "tokenizer": tokenizer,
        "held_out_fraction": str(plan.evaluation.held_out_fraction.normalize()),
        "seed": plan.seed,
        "sources": [
            [str(one.folder.resolve()), one.text_column, one.unit_field, _listing(one.folder), *one.tasks]
            for one in sources
        ],
    }
    if not isinstance(plan.task, CausalLM):  # whose token files do not depend on how long a window is
        described |= {"task": plan.task.model_dump(mode="json"), "sequence_length": plan.local.sequence_length}
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
