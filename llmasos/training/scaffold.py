"""SCAFFOLD at an institution: its control variate, what a round's steps are corrected by, and what it sends of the change.

    c, c_i ─▶ correction = c − c_i          added to each step's gradient
    after the round, from base x to y:      c_i⁺ = (x − y) ÷ Σ rates − correction      its mean gradient of the round
    sent:                                   control = c_i⁺ − c_i

    JOB/control/
        round-00000002.safetensors          after the newest round whose delta is in the model: what the next round starts from
        round-00000003.safetensors          after a round whose fate is open

A file holds c_i: the trainable tensors, laid out as a delta, and as private as one. Where there is none, it is zeros.

Source: Karimireddy et al., arXiv:1910.06378, algorithm 1, option II; where the learning rate changes, K × lr is its sum.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.errors import NonFiniteDelta, StorageFailure, WrongTensors
from common.reduce.server_state import layout_of
from common.statements.kinds import PlanStatement, Tensor
from common.tensors import ELEMENT_BYTES, delta_size, trainable_header
from llmasos.models.tensors import write_values

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


class StoredValues(Mapping[str, "torch.Tensor"]):
    """Float32 tensors of a file, one after the other behind its header; each is read when it is asked for."""

    def __init__(self, path: Path, manifest: Sequence[Tensor], header: bytes, size: int) -> None:
        """
        Raises:
            StorageFailure: the file cannot be read.
            WrongTensors: another header or size.
        """
        self._path = path
        self._places: dict[str, tuple[int, tuple[int, ...]]] = {}
        position = len(header)
        for entry in _trainable(manifest):
            self._places[entry.name] = (position, entry.shape)
            position += ELEMENT_BYTES * entry.elements
        try:
            with path.open("rb") as file:
                start, found = file.read(len(header)), os.fstat(file.fileno()).st_size
        except OSError as err:
            raise StorageFailure(f"{path} could not be read: {err.strerror or err}.") from err
        if start != header or found != size:
            raise WrongTensors(f"{path.name} has {found:,} bytes, expected {size:,} with the manifest's header.")

    def __getitem__(self, name: str) -> torch.Tensor:
        import torch

        position, shape = self._places[name]
        values = np.fromfile(self._path, dtype="<f4", count=int(np.prod(shape, dtype=np.int64)), offset=position)
        return torch.from_numpy(values.astype(np.float32, copy=False)).reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class Made(Mapping[str, "torch.Tensor"]):
    """Tensors that are made when they are asked for: one at a time is in memory."""

    def __init__(self, names: Collection[str], make: Callable[[str], torch.Tensor]) -> None:
        self._names, self._make = names, make

    def __getitem__(self, name: str) -> torch.Tensor:
        import torch

        value = self._make(name)
        if not bool(torch.isfinite(value).all()):
            raise NonFiniteDelta(f"The control variate of tensor {name} holds NaN or infinity.")
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class ControlFolder:
    """The control variates of one run at one institution. One process writes at a time."""

    def __init__(self, root: Path, manifest: Sequence[Tensor]) -> None:
        self._root, self._manifest = root, manifest

    def path(self, number: int) -> Path:
        """Where the one after that round is, or would be."""
        return self._root / f"round-{number:08d}.safetensors"

    def read(self, number: int) -> StoredValues:
        """
        Raises:
            StorageFailure, WrongTensors: it is lost.
        """
        manifest = self._manifest
        return StoredValues(self.path(number), manifest, trainable_header(manifest), delta_size(manifest))

    def write(self, values: Mapping[str, torch.Tensor], number: int) -> None:
        """Durable on return, in the place of what was there.

        Raises:
            NonFiniteDelta: a value is none.
            StorageFailure: the disk is full or refuses.
        """
        path, fresh = self.path(number), self._root / "unfinished"
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_values(values, fresh, _trainable(self._manifest))
            _sync(fresh)
            os.replace(fresh, path)
            _sync(self._root)
        except OSError as err:
            raise StorageFailure(f"{path} could not be written: {err.strerror or err}.") from err

    def keep_only(self, numbers: Collection[int]) -> None:
        """Delete the others."""
        kept = {self.path(number) for number in numbers}
        for path in self._root.iterdir() if self._root.is_dir() else ():
            if path not in kept:
                path.unlink(missing_ok=True)


class RoundControl:
    """One round's. `lost`: the control variate that it was to start from is gone, and zeros stand for it."""

    def __init__(self, statement: PlanStatement, folder: ControlFolder, started_from: int, server: Path | None) -> None:
        """
        Args:
            started_from: the round whose control variate of ours this one starts from; 0: zeros.
            server: the server_state that holds c; None: zeros.

        Raises:
            StorageFailure, WrongTensors: the server_state is none of this plan.
        """
        import torch

        self._manifest, self._folder = _trainable(statement.manifest), folder
        self.lost = False
        self._before: Mapping[str, torch.Tensor] | None = None
        if started_from:
            try:
                self._before = folder.read(started_from)
            except (StorageFailure, WrongTensors) as err:
                self.lost = True
                log.warning("control variate of round %d is lost, zeros stand for it: %s", started_from, err.message)
        consortium = None if server is None else _read_server(statement, server)
        self.corrections: dict[str, torch.Tensor] = {}
        for entry in self._manifest:
            correction = torch.zeros(entry.shape) if consortium is None else consortium[entry.name]
            self.corrections[entry.name] = correction - self._own(entry.name)

    def _own(self, name: str) -> torch.Tensor | float:
        return 0.0 if self._before is None else self._before[name]

    def finish(self, delta: Path, total_rate: float, number: int, into: Path) -> None:
        """Keep the control variate after the round, durable, and write what it changed by.

        Args:
            delta: the round's delta, y − x.
            total_rate: the sum of its steps' learning rates, above 0.
            number: the round's.
            into: gets the control, laid out as a delta.

        Raises:
            NonFiniteDelta: a number of it is none.
            StorageFailure, WrongTensors: about the files.
        """
        names = [entry.name for entry in self._manifest]
        moved = StoredValues(delta, self._manifest, trainable_header(self._manifest), delta_size(self._manifest))
        self._folder.write(Made(names, lambda name: moved[name] / -total_rate - self.corrections[name]), number)
        after = self._folder.read(number)
        write_values(Made(names, lambda name: after[name] - self._own(name)), into, self._manifest)


def _read_server(statement: PlanStatement, path: Path) -> StoredValues:
    layout = layout_of(statement.plan, statement.manifest)
    if layout is None or layout.slots != ("control",):
        raise WrongTensors(f"{path.name} was given, and the plan corrects nothing.")
    return StoredValues(path, statement.manifest, layout.header, layout.size)


def _trainable(manifest: Sequence[Tensor]) -> list[Tensor]:
    return [entry for entry in manifest if entry.group == "trainable"]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
