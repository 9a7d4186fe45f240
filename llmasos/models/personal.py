"""Tensors that never leave their institution: trained like the others, kept beside them, in no delta and no model (FedPer).

    JOB/personal/
        round-00000000.safetensors      the plan's initial values
        round-00000002.safetensors      after the newest round whose delta is in the model: what the next round starts from
        round-00000003.safetensors      after a round whose fate is open

A file holds the manifest's personal tensors in its order, in the layout of a model file. It is as private as a delta.

Source: Arivazhagan et al., arXiv:1912.00818.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import InvalidConfiguration, StorageFailure, WrongTensors
from common.plan.model import Plan
from common.statements.kinds import Tensor
from llmasos.models.tensors import read_tensors, write_tensors

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

INITIAL = 0
"""The number that stands for the plan's initial values: rounds count from 1."""


class PersonalFolder:
    """The files of one run at one institution. One process writes at a time; without personal tensors nothing is there."""

    def __init__(self, root: Path, manifest: Sequence[Tensor]) -> None:
        self._root = root
        self._carried = [
            entry.model_copy(update={"group": "trainable"}) for entry in manifest if entry.group == "personal"
        ]

    def path(self, number: int) -> Path:
        """Where the tensors after that round are, or would be."""
        return self._root / f"round-{number:08d}.safetensors"

    def write(self, model: torch.nn.Module, number: int) -> None:
        """Durable on return, in the place of what was there.

        Raises:
            StorageFailure: the disk is full or refuses.
        """
        if not self._carried:
            return
        path, fresh = self.path(number), self._root / "unfinished"
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_tensors(model, fresh, self._carried)
            _sync(fresh)
            os.replace(fresh, path)
            _sync(self._root)
        except OSError as err:
            raise StorageFailure(f"{path} could not be written: {err.strerror or err}.") from err

    def read(self, model: torch.nn.Module, number: int) -> bool:
        """Fill the model's personal tensors; False where that file is lost, and the initial values were taken instead.

        Raises:
            StorageFailure: the initial values are lost too.
        """
        if not self._carried:
            return True
        try:
            read_tensors(model, self.path(number), self._carried)
        except (StorageFailure, WrongTensors) as err:
            if number == INITIAL:
                raise StorageFailure(
                    f"The personal layers' initial values cannot be read: {err.message}", "Restart the worker."
                ) from err
            log.warning("personal layers of round %d are lost, initial values stand for them: %s", number, err.message)
            read_tensors(model, self.path(INITIAL), self._carried)
            return False
        return True

    def keep_only(self, numbers: Collection[int]) -> None:
        """Delete the others."""
        kept = {self.path(number) for number in (INITIAL, *numbers)}
        for path in self._root.iterdir() if self._root.is_dir() else ():
            if path not in kept:
                path.unlink(missing_ok=True)


def check_personal(plan: Plan, manifest: Sequence[Tensor]) -> None:
    """
    Raises:
        InvalidConfiguration: `personal` names something that no trained tensor's name has, or leaves nothing to share.
    """
    mine = [entry.name for entry in manifest if entry.group == "personal"]
    for pattern in plan.personal:
        if not any(plan.is_named_by(pattern, name) for name in mine):
            shown = ", ".join(entry.name for entry in manifest if entry.group != "frozen")[:400]
            raise InvalidConfiguration(
                f"personal names {pattern}, which no trained tensor's name has; they are {shown}.",
                "Name whole parts of a name, such as h.2 or ln_1; of tied embeddings, the input's.",
            )
    if mine and not any(entry.group == "trainable" for entry in manifest):
        raise InvalidConfiguration(
            f"personal names all {len(mine)} trained tensors; expected at least one that institutions train together.",
            "Leave one out.",
        )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
