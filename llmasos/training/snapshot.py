"""Training state on disk, from which a worker goes on with the same bits.

    snapshots/
        round-00000003-step-00000020/
            snapshot.json               Record: whose state this is, under which settings it came about; digests
            rank-00000.safetensors      weight.NAME, moment.NAME.MOMENT (exp_avg, …); one part a rank
            rank-00001.safetensors

Each rank writes a part of its own, beside the others; together they hold every tensor once, or the parts of those that are
shared out, so any number of ranks goes on from them. A folder appears under its name only when all of it is on disk. Two kinds
matter: the newest of the round that is being trained, and the newest finished one of an earlier round, whose moments the local
optimizer starts from.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self

import torch
from blake3 import blake3
from pydantic import BaseModel, ConfigDict, Field, model_validator

from common.errors import StorageFailure
from llmasos.evaluation.perplexity import LossSums
from llmasos.models.sharding import Part, local, part_of
from llmasos.training import state_file

log = logging.getLogger(__name__)

_RECORD = "snapshot.json"
_UNFINISHED = ".unfinished-"
_POLL_SECONDS = 0.01
_CHECK = "check"
"""In snapshot.json: BLAKE3 of all the rest."""


class Record(BaseModel):
    """What snapshot.json says. `base` is the blob root of the model file that the round started from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    ranks: int = Field(default=1, ge=1)
    sharding: Literal["full", "tensor", "pipeline"] | None = None
    """Each rank held parts of tensors, or tensors that no other held, and its part holds them."""
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
    """BLAKE3 of the only part's bytes; None of several parts, and of a snapshot from before there were digests."""
    parts: tuple[str, ...] | None = None
    """BLAKE3 of each rank's part, where there are several."""

    @model_validator(mode="after")
    def _every_rank_has_a_part(self) -> Self:
        if self.parts is not None and len(self.parts) != self.ranks:
            raise ValueError(f"{self.ranks} ranks, and digests of {len(self.parts)} parts")
        return self

    @property
    def environment(self) -> tuple[object, ...]:
        """What bits depend on besides the inputs."""
        return self.device, self.threads, self.capability, self.ranks, self.sharding, sorted(self.versions.items())

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
        """Read weights and moments, onto the CPU: all parts of them.

        Raises:
            StorageFailure: a part is missing or damaged.
        """
        pieces: dict[str, list[state_file.Piece]] = {}
        for rank, digest in enumerate(self.record.parts or (self.record.part,)):
            for name, piece in state_file.read_pieces(self.folder / _part(rank), digest).items():
                pieces.setdefault(name, []).append(piece)
        return _state({name: state_file.joined(name, some) for name, some in pieces.items()})


@dataclass(frozen=True, slots=True)
class State:
    """Trainable weights by name, moments by NAME.MOMENT. `parts`, by weight.NAME or moment.NAME.MOMENT: of tensors that are
    not all here, which part is."""

    weights: Mapping[str, torch.Tensor]
    moments: Mapping[str, torch.Tensor]
    parts: Mapping[str, Part] = field(default_factory=dict)

    def part(self, rank: int, ranks: int) -> State:
        """What that rank writes: of a sharded tensor its part; of others one rank the whole, as many bytes each as can be."""
        if ranks == 1:
            return self
        bytes_R, mine, parts = [0] * ranks, dict[str, torch.Tensor](), dict[str, Part]()
        for name, value in sorted(_tensors(self).items(), key=lambda one: (-one[1].nbytes, one[0])):
            if (part := part_of(value)) is not None:
                mine[name], parts[name] = local(value), part
                continue
            lightest = bytes_R.index(min(bytes_R))
            bytes_R[lightest] += value.nbytes
            if lightest == rank:
                mine[name] = local(value)
        return replace(_state(mine), parts=parts)


def _tensors(state: State) -> dict[str, torch.Tensor]:
    """By their names in parts."""
    tensors = {f"weight.{name}": value for name, value in state.weights.items()}
    return tensors | {f"moment.{name}": value for name, value in state.moments.items()}


def _state(tensors: Mapping[str, torch.Tensor]) -> State:
    return State(_under("weight.", tensors), _under("moment.", tensors))


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


class SnapshotFolder:
    """The snapshots of one run at one institution. One process writes at a time; of several ranks, each writes its part."""

    def __init__(self, root: Path, rank: int = 0) -> None:
        self._root, self._rank = root, rank

    def write(self, record: Record, state: State) -> Snapshot:
        """Make a snapshot durable, then remove those that nothing needs any more.

        With several ranks each calls this with the same record, whose number of ranks counts. Rank 0 returns when all parts are
        there and the folder has its name; another when its part is on disk.

        Args:
            state: of several ranks, this one's part.

        Raises:
            StorageFailure: the disk is full or refuses.
        """
        name = f"round-{record.round:08d}-step-{record.step:08d}"
        temporary = self._root / f"{_UNFINISHED}{name}"
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary.mkdir(mode=0o700, exist_ok=True)
            if self._rank:
                _write_beside(temporary, self._rank, state)
                return Snapshot(self._root / name, record)
            digest = state_file.write(temporary / _part(0), _tensors(state), state.parts)
            digests = (digest, *(_announced(temporary, rank) for rank in range(1, record.ranks)))
            digested = {"part": digest} if record.ranks == 1 else {"parts": digests}
            record = record.model_copy(update=digested)
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

    def remove_unfinished(self) -> None:
        """What a process left behind that was killed while it wrote. By rank 0, before any other rank may write again."""
        for folder in self._root.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(folder, ignore_errors=True)

    def named(self, name: str) -> Snapshot | None:
        """The snapshot in the folder of that name, as another rank found it."""
        return next((one for one in self._all() if one.folder.name == name), None)

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


def _part(rank: int) -> str:
    return f"rank-{rank:05d}.safetensors"


def _digest_file(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank:05d}.digest"


def _write_beside(folder: Path, rank: int, state: State) -> None:
    """Another rank's part, of which rank 0 hears when it is on disk, or that it will never be."""
    announced, partial = _digest_file(folder, rank), folder / f"rank-{rank:05d}.partial"
    digest = ""
    try:
        digest = state_file.write(folder / _part(rank), _tensors(state), state.parts)
    finally:
        partial.write_text(digest)
        partial.replace(announced)


def _announced(folder: Path, rank: int) -> str:
    """Wait for another rank's part; its digest. A rank that dies meanwhile ends this process (participant.worker.peers).

    Raises:
        OSError: that rank could not write it.
    """
    path = _digest_file(folder, rank)
    while not path.exists():
        time.sleep(_POLL_SECONDS)
    digest = path.read_text()
    path.unlink()
    if not digest:
        raise OSError(f"rank {rank} could not write its part")
    return digest


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
