"""A model as a folder, as methods of every model: saved, given away, loaded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from common.errors import UsageError
from llmasos.extras import require_train
from llmasos.language_model.weights import WithWeights

if TYPE_CHECKING:
    from llmasos.language_model.storing import Card

Self = TypeVar("Self", bound="Kept")


class Kept(WithWeights):
    """A model that is saved and loaded."""

    def save(self, path: str | Path, *, optimizer: bool = True) -> Path:
        """Write the model as a folder of that name, whole or not at all: safetensors and JSON, never pickle.

        transformers loads it, too. A name that ends in .pt or the like names a folder all the same; a note says so.

        Args:
            optimizer: with the optimizer's moments (twice the model's size for Adam), so that `fit(…, resume=True)` can go on.

        Raises:
            UsageError: the model has no weights or no tokenizer, or the path is something else than a model folder.
            StorageFailure: the disk is full or refuses.
        """
        from llmasos.language_model import storing

        folder, module, tokenizer = Path(path), self.module, self._tokenizer("save a model")
        progress = self._progress if optimizer and self._adapter is None else None
        storing.write(folder, self._card(), module, tokenizer, progress)
        if folder.suffix.lower() in storing.PICKLES:
            print(
                f"{folder} is a folder with model.safetensors, not a pickle; {type(self).__name__}.load reads it.",
                file=sys.stderr,
            )
        return folder

    def save_pretrained(self, path: str | Path) -> Path:
        """`save` to `path` without the optimizer's moments: what transformers' from_pretrained loads, and what to give away."""
        return self.save(path, optimizer=False)

    @classmethod
    def load(cls: type[Self], path: str | Path) -> Self:
        """The model in the folder `path`, as `save`, `simulate`, `plan export` or transformers wrote it; none of it is run.
        Virtual tokens of its adapter stand before its texts, and fits go on with them.

        Raises:
            MissingExtra: torch, transformers or tokenizers are not installed; or peft, for virtual tokens.
            UsageError: no such folder, a part of a model, one of another class, or one that this release does not know.
            StorageFailure, UnreadableData: a file of it cannot be read.
        """
        from llmasos.language_model import families, storing
        from llmasos.models.pretrained import fill_from_folder
        from llmasos.models.prompts import describe
        from llmasos.models.saved_prompts import attach_saved

        stored = storing.read(Path(path))
        kind = families.kind_of(stored)
        if not issubclass(kind, cls):
            raise UsageError(
                f"{path} holds a {kind.__name__}, expected a {cls.__name__}.",
                f"Load it with llmasos.models.{kind.__name__}.load, or llmasos.models.load, which finds out.",
            )
        model = kind.__new__(kind)
        WithWeights.__init__(model, stored.section, vocab_size=stored.vocab_size)
        model.head, model.num_labels, model.task = stored.head, stored.num_labels, stored.card.task
        model.tokenizer = stored.tokenizer
        fill_from_folder(model.module, model.section, stored.folder)
        adapter = attach_saved(model.module, stored.folder / "adapter")
        if adapter is not None:
            require_train("peft", task="load a model with virtual tokens")
            describe(model.module, adapter)
            model._adapter = adapter
        model.module.train(False)
        model._progress = stored.progress
        return model

    @classmethod
    def from_pretrained(cls: type[Self], path: str | Path) -> Self:
        """`load` under transformers' name. A path, not the name of a model in a hub: nothing is fetched."""
        return cls.load(path)

    def _card(self) -> Card:
        from llmasos.language_model.storing import Card

        return Card(
            kind=type(self).__name__, model=self.section, head=self.head, num_labels=self.num_labels, task=self.task
        )
