"""A model as a folder that others can load, and back. Never pickle: what is read is JSON and safetensors.

    llm_model.pt/
        config.json  generation_config.json  model.safetensors  tokenizer.json  tokenizer_config.json    as transformers' own
        llmasos.json             which class of llmasos.models it is
        training.safetensors     the optimizer's moments, so that a fit can be resumed
        README.md                what this is, for people

The folder appears whole or not at all, also where it takes the place of an earlier one.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from common.errors import StorageFailure, UsageError
from common.plan.architectures import Model
from common.plan.tasks import Task
from llmasos.atomic import BY_UMASK, replacing
from llmasos.extras import require_train
from llmasos.language_model.sections import FIX, family_of, head_of, read_config, section_of
from llmasos.models.export import export_hf
from llmasos.tokenizers import load, save

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from llmasos.language_model.fitting import Progress

CARD, MOMENTS, README = "llmasos.json", "training.safetensors", "README.md"
PICKLES = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".h5"}


class Card(BaseModel):
    """llmasos.json: what config.json cannot say."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: int = 1
    kind: str
    """The class in llmasos.models."""
    model: Model
    head: str
    num_labels: int | None = None
    task: Task | None = None
    """What it was last fitted to."""
    steps: int = 0
    seed: int = 0
    optimizer: str = ""
    moments: str | None = None
    """BLAKE3 of training.safetensors; None where there is none."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a folder holds."""

    card: Card
    vocab_size: int
    folder: Path
    """Where its weights are."""
    tokenizer: Tokenizer
    progress: Progress | None

    @property
    def section(self) -> Model:
        return self.card.model

    @property
    def head(self) -> str:
        return self.card.head

    @property
    def num_labels(self) -> int | None:
        return self.card.num_labels


def write(folder: Path, card: Card, module: torch.nn.Module, tokenizer: Tokenizer, progress: Progress | None) -> None:
    """Make `folder`, or put this model in the place of the one in it.

    Args:
        progress: what a resumed fit goes on from; None leaves it out.

    Raises:
        UsageError: something else stands at that path, or the tokenizer has more tokens than the model.
        StorageFailure: the disk is full or refuses.
    """
    if (
        folder.exists()
        and not (folder / "config.json").is_file()
        and not (folder.is_dir() and not any(folder.iterdir()))
    ):
        raise UsageError(f"{folder} exists and is no model folder.", "Name another path, or remove it first.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as err:
        raise StorageFailure(f"{folder} could not be made: {err.strerror or err}.") from err
    try:
        made = temporary / "model"
        made.mkdir()
        _fill(made, card, module, tokenizer, progress)
        (made / README).write_text(_readme(folder.name, card), encoding="utf-8")
        if folder.exists():
            folder.rename(temporary / "before")
        made.rename(folder)
    except OSError as err:
        raise StorageFailure(f"{folder} could not be written: {err.strerror or err}.") from err
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fill(folder: Path, card: Card, module: torch.nn.Module, tokenizer: Tokenizer, progress: Progress | None) -> None:
    from llmasos.training import state_file

    save(tokenizer, folder / "tokenizer.json")
    export_hf(module, folder / "tokenizer.json", folder)
    if progress is not None and progress.steps:
        digest = state_file.write(folder / MOMENTS, progress.moments)
        facts = {"steps": progress.steps, "seed": progress.seed, "optimizer": progress.optimizer, "moments": digest}
        card = card.model_copy(update=facts)
    (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read(folder: Path) -> Stored:
    """What `write` wrote, or any folder in Hugging Face layout of an architecture that this release knows.

    Raises:
        UsageError: there is no such folder, or it holds a part of a model, or one that this release does not know.
        StorageFailure, UnreadableData: a file of it cannot be read.
    """
    require_train("torch", "transformers", "tokenizers", task="load a model")
    if folder.is_file():
        raise UsageError(
            f"{folder} is a file, expected a folder with model.safetensors: pickled models are never read, since reading one "
            "runs what is in it.",
            FIX,
        )
    if not folder.is_dir():
        raise UsageError(f"{folder} does not exist.", FIX)
    config = read_config(folder)
    card = _card(folder) or card_of(folder)
    rows = config.get("vocab_size")
    if not isinstance(rows, int):
        raise UsageError(f"{folder}: config.json has no vocab_size.", FIX)
    if not (folder / "tokenizer.json").is_file():
        raise UsageError(
            f"{folder} is no model folder: it holds no tokenizer.json.",
            "Put the model's own there: AutoTokenizer.from_pretrained(…).save_pretrained(folder) writes it.",
        )
    return Stored(card, rows, folder, load(folder / "tokenizer.json"), _progress(folder, card))


def card_of(folder: Path) -> Card:
    """What llmasos.json would say of a folder that transformers or `llmasos simulate` wrote, as its config.json has it.

    Raises:
        UsageError: it has no config.json, or one of a model that this release does not know.
        InvalidConfiguration: a size is out of range.
    """
    config = read_config(folder)
    head, num_labels = head_of(config, str(folder))
    section = section_of(folder)
    return Card(kind=family_of(section), model=section, head=head, num_labels=num_labels)


def write_card(folder: Path, task: Task) -> None:
    """Note in a folder in Hugging Face layout what the model was trained to, for those who load or measure it.

    Raises:
        UsageError: as `card_of`.
        StorageFailure: it cannot be written.
    """
    text = card_of(folder).model_copy(update={"task": task}).model_dump_json(indent=2) + "\n"
    with replacing(folder / CARD, mode=BY_UMASK) as file:
        file.write(text.encode())


def _card(folder: Path) -> Card | None:
    path = folder / CARD
    if not path.exists():
        return None
    try:
        return Card.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as err:
        raise UsageError(
            f"{path} is damaged: it does not say which model this is.", "Remove it, or save the model again."
        ) from err


def _progress(folder: Path, card: Card) -> Progress | None:
    """Where a fit can go on, if that was saved and is still there.

    Raises:
        StorageFailure: it is not what was saved.
    """
    from llmasos.language_model.fitting import Progress
    from llmasos.training import state_file

    path = folder / MOMENTS
    if card.moments is None or not path.exists():  # somebody took it out: the model is whole without it
        return None
    try:
        moments = state_file.read(path, card.moments)
    except StorageFailure as err:
        raise StorageFailure(
            f"{path} is damaged or half written: from what is in it no fit can go on.",
            "Remove that file: then the model loads, and only fit(…, resume=True) is not possible.",
        ) from err
    return Progress(card.steps, card.seed, card.optimizer, moments)


_AUTO = {
    "causal-lm": "AutoModelForCausalLM",
    "masked-lm": "AutoModelForMaskedLM",
    "pre-training": "AutoModelForPreTraining",
    "seq2seq-lm": "AutoModelForSeq2SeqLM",
    "sequence-classification": "AutoModelForSequenceClassification",
    "question-answering": "AutoModelForQuestionAnswering",
}


def _readme(name: str, card: Card) -> str:
    kind, auto = card.kind, _AUTO[card.head]
    return f"""# {name}

A language model, written by LLMasOS as a folder, whatever its name ends in: weights in safetensors, no pickle.

```python
import llmasos
model = llmasos.models.{kind}.load("{name}")

from transformers import {auto}, AutoTokenizer
model, tokenizer = {auto}.from_pretrained("{name}"), AutoTokenizer.from_pretrained("{name}")
```
"""
