"""A folder of text or records as three splits: one to train on, one to choose by, one to report.

    data = load_dataset("./corpus", tokenizer=tokenizer)
    data.train, data.validation, data.test          # or data["train"]
    data = load_dataset("./pairs", tokenizer, task={"type": "seq2seq", "source": "german", "target": "english"})

Read, split and encoded by the task's recipe (llmasos.tasks), as an institution's data are in a federation: what is on which
side depends on content alone. Encoded data lie in a private temporary folder as long as the dataset lives, or in `cache_dir`,
where the next program finds them again.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from common.errors import StorageFailure, TooLittleData, UsageError
from common.plan.model import Plan
from common.plan.tasks import CausalLM, Mixture, Task
from llmasos.atomic import replacing
from llmasos.datasets.named import SPLITS, DataFiles
from llmasos.datasets.source import Source
from llmasos.datasets.splitting import Shares, Splitting, recipe_plan
from llmasos.datasets.text import Document, Splittable
from llmasos.extras import require_train
from llmasos.language_model.planning import parsed
from llmasos.tokenizers import as_tokenizer, bytes_tokenizer
from llmasos.tokenizers.special import add_special

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from llmasos.tasks.base import Data, Recipe, Written


class DataFolder:
    """Where encoded data lie, readable by their owner only; a temporary one goes when nothing refers to it any more."""

    def __init__(self, kept: Path | None) -> None:
        """
        Raises:
            StorageFailure: the folder cannot be made.
        """
        try:
            if kept is None:
                self.path = Path(tempfile.mkdtemp(prefix="llmasos-data-"))  # 0700, whatever the umask
                weakref.finalize(self, rmtree, self.path, ignore_errors=True)
                return
            self.path = kept
            kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as err:
            raise StorageFailure(f"A folder for encoded data cannot be made: {err}.") from err


def reads_records(task: Task) -> bool:
    """Whether a task reads something with fields, a mixture perhaps text too."""
    return isinstance(task, Mixture) or bool(task.field_names)


@dataclass(eq=False)
class Split:
    """Some of a dataset's documents or records, the task that they are for, and a tokenizer. len() counts them."""

    name: str
    source: str
    things: Sequence[Splittable] = field(repr=False)
    """Documents, or records with fields."""
    task: Task | None
    """What the data are for; None: plain text, which every task on text takes."""
    tokenizer: Tokenizer = field(repr=False)
    folder: DataFolder = field(repr=False)

    def __len__(self) -> int:
        return len(self.things)

    def __iter__(self) -> Iterator[Splittable]:
        return iter(self.things)

    def __getitem__(self, index: int) -> Splittable:
        return self.things[index]

    @cached_property
    def num_bytes(self) -> int:
        """Bytes in UTF-8: of the text, or of the records' fields as JSON."""
        return sum(len(thing.content.encode()) for thing in self.things)

    @property
    def num_tokens(self) -> int:
        """Tokens of the text, ends of documents included; it is encoded now, if it was not yet.

        Raises:
            TooLittleData: the split is empty.
            UsageError: it holds records, whose tokens depend on the length of a sequence.
        """
        if self._holds_records:
            raise UsageError(
                f"The split {self.name} holds records for task {self.task and self.task.type}, not text.",
                "Use len(split).",
            )
        return self.written(recipe_plan(self.task or CausalLM())).tokens

    @property
    def _holds_records(self) -> bool:
        """Whether it holds something with fields, perhaps text too."""
        return self.task is not None and reads_records(self.task)

    def check_filled(self) -> None:
        """
        Raises:
            TooLittleData: the split is empty.
        """
        if not self.things:
            raise TooLittleData(
                f"The split {self.name} of {self.source} is empty.",
                "Name a folder with more data."
                if self.name == "train"
                else f"Load it with a share of the data: load_dataset(…, {self.name}=0.1).",
            )

    def written(self, plan: Plan) -> Written:
        """What the split comes to under a plan's task and sequence length; encoded now, if it was not yet.

        Raises:
            TooLittleData: the split is empty.
            StorageFailure: a file cannot be written or read.
        """
        return self._encoded(plan)[1]

    @contextmanager
    def opened(self, plan: Plan) -> Iterator[Data]:
        """The split as a plan's task reads it: batches, and rows to measure on. Raises as `written`."""
        recipe = self._recipe(plan)
        data = recipe.open(self._encoded(plan)[0])
        try:
            yield data
        finally:
            data.close()

    def _recipe(self, plan: Plan) -> Recipe:
        from llmasos.tasks.registry import recipe_of

        return recipe_of(plan, self.tokenizer)

    def _encoded(self, plan: Plan) -> tuple[Path, Written]:
        """The file, and what is in it, which stands beside it."""
        self.check_filled()
        recipe = self._recipe(plan)
        path = self.folder.path / f"{self._digest(plan)}{recipe.suffix}"
        facts = path.with_suffix(".json")
        if not (path.exists() and facts.exists()):
            written = recipe.write(self.things, path)
            with replacing(facts) as file:
                file.write(json.dumps(asdict(written)).encode())
        try:
            return path, _read_facts(json.loads(facts.read_bytes()))
        except (OSError, ValueError, TypeError, KeyError) as err:
            raise StorageFailure(f"{facts} cannot be read.", "Remove it; it is made again from the data.") from err

    def _digest(self, plan: Plan) -> str:
        """Of all that the file depends on, so that another's is never taken for it."""
        described = (
            {}
            if isinstance(plan.task, CausalLM)
            else {
                "task": plan.task.model_dump(mode="json"),
                "sequence_length": plan.local.sequence_length,
            }
        )
        digest = hashlib.sha256(json.dumps(described).encode() + self.tokenizer.to_str().encode())
        for thing in self.things:
            content = thing.content.encode()
            digest.update(len(content).to_bytes(8, "little") + content)
        return digest.hexdigest()[:32]

    def __repr__(self) -> str:
        what = "records" if self._holds_records else "documents"
        return f"Split({self.name}: {len(self):,} {what} of {self.source})"


@dataclass(frozen=True)
class Dataset(Mapping[str, Split]):
    """Three splits, by name and by key, as a DatasetDict has them; `tokenizer` is what encodes all three."""

    train: Split
    validation: Split
    test: Split

    @property
    def tokenizer(self) -> Tokenizer:
        """The one that was given, with the special tokens that the task needs."""
        return self.train.tokenizer

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
        return f"Dataset({self.train.source}: {sizes})"


def load_dataset(
    path: str | Path,
    tokenizer: Tokenizer | str | Path | Any = None,
    *,
    task: str | Mapping[str, Any] | Task | None = None,
    data_files: DataFiles | None = None,
    validation: float | None = None,
    test: float | None = None,
    seed: int = 0,
    text_column: str | None = None,
    unit_field: str | None = None,
    cache_dir: str | Path | None = None,
) -> Dataset:
    """Read a folder of text or records as training, validation and test data.

    A folder that holds files or folders called train and test (or validation, dev, …) is split as they say, as the package
    `datasets` does; splits that it does not name are empty. Any other folder is split here: a document is on the side that a
    hash of its content and `seed` says, so it stays there when others are added, and equal documents stand together. With
    `test=0` the validation split is what an institution of a federation holds out of the same folder, under a plan of the same
    seed and `evaluation.held_out_fraction`. A single document is cut, its end held out.

    Args:
        path: a folder, searched with its subfolders, or a file: .txt, .md, .py, .jsonl and .csv are read, as UTF-8; records
            with fields from .jsonl and .csv.
        tokenizer: a tokenizers.Tokenizer, a fast tokenizer of transformers, or the path of a tokenizer.json; by default one
            token a byte, which needs no training. A copy of it gets the special tokens that the task needs and it lacks.
        task: what the data are for, as a plan's `task` says it: a type, "seq2seq", or with the names of fields,
            {"type": "seq2seq", "source": "german", "target": "english"}. None: plain text, for every task on text.
        data_files: files or folders in `path` by split, {"train": "a.jsonl", "test": ["b.jsonl", "c.jsonl"]}; by default those
            that are called so. {"train": "."} is all of it.
        validation, test: shares of the documents, each from 0, which leaves the split empty, to below 1 together. By default a
            tenth each; nothing where the data name their splits, unless a share is given, which is cut out of train.
        seed: another seed, another split; 0 to 2^32 - 1.
        text_column: the field of .jsonl and .csv files that holds the text; "text" by default.
        unit_field: their field that says whose text it is, a patient for instance: a unit is never divided.
        cache_dir: where encoded data are kept and found again, readable by their owner only. By default they are removed with
            the dataset.

    Raises:
        InvalidConfiguration: shares out of range or of a split that the data name, or no such task.
        TooLittleData: there is nothing, or too little to hold any of it out.
        UsageError, UnreadableData, StorageFailure: the folder or a file of it cannot be read, is not UTF-8, or a record lacks a
            field; beside named splits is something else, or a unit stands in two of them.
        MissingExtra: a package of the extra `train` is not installed.
    """
    require_train("torch", "tokenizers", task="load a dataset")
    section = None if task is None else _task(task)
    encoder = _with_special(bytes_tokenizer() if tokenizer is None else as_tokenizer(tokenizer), section)
    splitting = Splitting(section or CausalLM(), encoder, seed, Source(Path(path), text_column, unit_field))
    parts = splitting.parts(Shares(validation, test), data_files)
    folder = DataFolder(None if cache_dir is None else Path(cache_dir))
    return Dataset(*(Split(name, str(path), tuple(parts[name]), section, encoder, folder) for name in SPLITS))


def _read_facts(fields: dict[str, Any]) -> Written:
    """What asdict made of it, parts included."""
    from llmasos.tasks.base import Written

    return Written(**{**fields, "parts": tuple(_read_facts(part) for part in fields["parts"])})


class _Asked(BaseModel):
    """For messages: `task` is the field."""

    task: Task


def _task(task: str | Mapping[str, Any] | Task) -> Task:
    fields = task.model_dump(mode="json") if isinstance(task, BaseModel) else task
    given = {"type": fields} if isinstance(fields, str) else fields
    return parsed(_Asked, {"task": given}, "load_dataset", "Tasks and their fields: docs/tasks.md.").task


def _with_special(tokenizer: Tokenizer, task: Task | None) -> Tokenizer:
    """The tokenizer, or a copy with what it lacks: the caller's own stays as it is."""
    from tokenizers import Tokenizer

    lacking = [token for token in (task.special_tokens if task else ()) if tokenizer.token_to_id(token) is None]
    if not lacking:
        return tokenizer
    extended = Tokenizer.from_str(tokenizer.to_str())
    extended.encode_special_tokens = True
    add_special(extended, lacking)
    return extended


__all__ = ["SPLITS", "Dataset", "Document", "Split", "load_dataset"]
