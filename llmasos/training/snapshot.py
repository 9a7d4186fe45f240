"""Training state on disk, from which a worker goes on with the same bits.

    snapshots/
        round-00000003-step-00000020/
            snapshot.json               Record: whose state this is, and under which settings it came about
            rank-00000.safetensors      weight.NAME, moment.NAME.MOMENT (exp_avg, …); one part a rank

A folder appears under its name only when all of it is on disk. Two kinds matter: the newest of the round that is being
trained, and the newest finished one of an earlier round, whose moments the local optimizer starts from.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from common.errors import StorageFailure
from llmasos.evaluation.perplexity import LossSums

log = logging.getLogger(__name__)

_RECORD = "snapshot.json"
_PART = "rank-00000.safetensors"


class Record(BaseModel):
    """What snapshot.json says. `base` is the SHA-256 of the model file that the round started from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    ranks: Literal[1] = 1
    run: str
    round: int = Field(ge=0)
    seed: int
    base: str
    step: int = Field(ge=0)
    steps: int = Field(ge=1)
    tokens: int
    loss_sum_fixed: int
    evaluation: LossSums
    device: str
    threads: int
    capability: str
    versions: dict[str, str]
    micro_batch: int | None = Field(default=None, ge=1)
    """Sequences at once, where memory was too little for the plan's micro-batch."""

    @property
    def environment(self) -> tuple[object, ...]:
        """What bits depend on besides the inputs."""
        return self.device, self.threads, self.capability, sorted(self.versions.items())

    @property
    def finished(self) -> bool:
        """Taken after the round's last step."""
        return self.step == self.steps

    def continues(self, other: Record) -> bool:
        """Whether both are states of the very same training: run, round, seed, base model and length."""
        keys = ("run", "round", "seed", "base", "steps")
        return all(getattr(self, key) == getattr(other, key) for key in keys)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot on disk."""

    folder: Path
    record: Record

    def load(self) -> State:
        """Read weights and moments, onto the CPU.

        Raises:
            StorageFailure: the part is missing or damaged.
        """
        try:
            tensors = load_file(self.folder / _PART)
        except (OSError, SafetensorError) as err:
            raise StorageFailure(
                f"Snapshot {self.folder} cannot be read: {err}.", "Remove that folder; the round begins again."
            ) from err
        return State(_under("weight.", tensors), _under("moment.", tensors))


@dataclass(frozen=True, slots=True)
class State:
    """Trainable weights by name, moments by NAME.MOMENT."""

    weights: Mapping[str, torch.Tensor]
    moments: Mapping[str, torch.Tensor]


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


class SnapshotFolder:
    """The snapshots of one run at one institution. One process writes at a time."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, record: Record, state: State) -> Snapshot:
        """Make a snapshot durable, then remove those that nothing needs any more.

        Raises:
            StorageFailure: the disk is full or refuses.
        """
        name = f"round-{record.round:08d}-step-{record.step:08d}"
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=self._root))
            _write_part(temporary / _PART, state)
            (temporary / _RECORD).write_text(record.model_dump_json(indent=2, exclude_none=True) + "\n")
            for path in (temporary / _RECORD, temporary):
                _sync(path)
            shutil.rmtree(self._root / name, ignore_errors=True)
            temporary.rename(self._root / name)
            _sync(self._root)
        except (OSError, SafetensorError) as err:
            raise StorageFailure(f"Snapshot {self._root / name} cannot be written: {err}.") from err
        self._remove_superseded(record.round, self._root / name)
        return Snapshot(self._root / name, record)

    def newest_of(self, expected: Record) -> Snapshot | None:
        """The newest snapshot of the training that `expected` describes, whatever its step."""
        return _newest(one for one in self._all() if one.record.continues(expected))

    def newest_finished_before(self, run: str, round_number: int) -> Snapshot | None:
        """The newest state at the end of a round before `round_number`, for its moments."""
        return _newest(
            one
            for one in self._all()
            if one.record.run == run and one.record.round < round_number and one.record.finished
        )

    def _all(self) -> list[Snapshot]:
        found = []
        for folder in sorted(self._root.glob("round-*-step-*")):
            try:
                record = Record.model_validate_json((folder / _RECORD).read_bytes())
            except (OSError, ValidationError):
                log.warning("unreadable snapshot passed over", extra={"folder": str(folder)})
                continue
            found.append(Snapshot(folder, record))
        return found

    def _remove_superseded(self, round_number: int, written: Path) -> None:
        """Keep the one just written and the newest finished one of an earlier round."""
        before = _newest(one for one in self._all() if one.record.round < round_number and one.record.finished)
        kept = {written} if before is None else {written, before.folder}
        for folder in self._root.iterdir():
            if folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)


def _newest(snapshots: Iterable[Snapshot]) -> Snapshot | None:
    return max(snapshots, key=lambda one: (one.record.round, one.record.step), default=None)


def _write_part(path: Path, state: State) -> None:
    tensors = {f"weight.{name}": value.contiguous() for name, value in state.weights.items()}
    tensors |= {f"moment.{name}": value.contiguous() for name, value in state.moments.items()}
    save_file(tensors, path)
    path.chmod(0o600)
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
