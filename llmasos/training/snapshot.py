"""Training state on disk, from which a worker goes on with the same bits.

    snapshots/
        round-00000003-step-00000020/
            snapshot.json               Record: whose state this is, under which settings it came about; digests
            rank-00000.safetensors      weight.NAME, moment.NAME.step|exp_avg|exp_avg_sq; one part a rank

A folder appears under its name only when all of it is on disk. Two kinds matter: the newest of the round that is being
trained, and the newest finished one of an earlier round, whose moments the local optimizer starts from.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from blake3 import blake3
from pydantic import BaseModel, ConfigDict, Field

from common.errors import StorageFailure
from llmasos.evaluation.perplexity import LossSums
from llmasos.training import state_file

log = logging.getLogger(__name__)

_RECORD = "snapshot.json"
_PART = "rank-00000.safetensors"
_CHECK = "check"
"""In snapshot.json: BLAKE3 of all the rest."""


class Record(BaseModel):
    """What snapshot.json says. `base` is the blob root of the model file that the round started from."""

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
    deviations: tuple[str, ...] = ()
    """Codes of what the round did otherwise so far than the plan says."""
    part: str | None = None
    """BLAKE3 of the part's bytes; None of a snapshot from before there were digests."""

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
        tensors = state_file.read(self.folder / _PART, self.record.part)
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
            record = record.model_copy(update={"part": _write_part(temporary / _PART, state)})
            (temporary / _RECORD).write_text(_to_json(record))
            for path in (temporary / _RECORD, temporary):
                _sync(path)
            shutil.rmtree(self._root / name, ignore_errors=True)
            temporary.rename(self._root / name)
            _sync(self._root)
        except OSError as err:
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

    def has_unreadable_before(self, round_number: int) -> bool:
        """Whether the record of an earlier round's snapshot is damaged, so that nobody knows what it was."""
        folders = (folder for folder in self._folders() if _number_in(folder) < round_number)
        return any(_read(folder) is None for folder in folders)

    def _all(self) -> list[Snapshot]:
        found = ((folder, _read(folder)) for folder in self._folders())
        return [Snapshot(folder, record) for folder, record in found if record is not None]

    def _folders(self) -> list[Path]:
        return sorted(self._root.glob("round-????????-step-*"))

    def remove(self, damaged: Snapshot) -> None:
        """Forget one that cannot be read."""
        shutil.rmtree(damaged.folder, ignore_errors=True)

    def _remove_superseded(self, round_number: int, written: Path) -> None:
        """Keep the one just written and the newest finished one of an earlier round."""
        before = _newest(one for one in self._all() if one.record.round < round_number and one.record.finished)
        kept = {written} if before is None else {written, before.folder}
        for folder in self._root.iterdir():
            if folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)


def _read(folder: Path) -> Record | None:
    try:
        return _from_json((folder / _RECORD).read_bytes())
    except (OSError, ValueError):
        log.warning("unreadable snapshot passed over", extra={"folder": str(folder)})
        return None


def _number_in(folder: Path) -> int:
    return int(folder.name.split("-")[1])


def _newest(snapshots: Iterable[Snapshot]) -> Snapshot | None:
    return max(snapshots, key=lambda one: (one.record.round, one.record.step), default=None)


def _write_part(path: Path, state: State) -> str:
    tensors = {f"weight.{name}": value for name, value in state.weights.items()}
    tensors |= {f"moment.{name}": value for name, value in state.moments.items()}
    return state_file.write(path, tensors)


def _to_json(record: Record) -> str:
    fields = record.model_dump(mode="json", exclude_none=True)
    return json.dumps({**fields, _CHECK: _check_of(fields)}, indent=2) + "\n"


def _from_json(text: bytes) -> Record:
    """
    Raises:
        ValueError: it is no record, or a damaged one.
    """
    fields = json.loads(text)
    if isinstance(fields, dict) and fields.pop(_CHECK, None) not in (None, _check_of(fields)):
        raise ValueError("the record is damaged")
    return Record.model_validate_json(json.dumps(fields))


def _check_of(fields: object) -> str:
    return blake3(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
