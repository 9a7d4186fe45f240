"""Rounds over arrays by name, through the very reducer that a coordinator runs (docs/protocol.md#arithmetic).

    rounds = ReducedRounds(plan, folder)
    rounds.open({"wte.weight": …})              the model that the round starts from
    rounds.take("north", 4096, {…})             north's model after training; once each
    model = rounds.close()                      the new model, or None: fewer than the plan's quorum

A delta is float32(after − before), as a participant makes it, and with a codec it is encoded here as the institution would,
what is lost kept for its next delta. Deltas wait in files, so memory is one model and a few chunks, whatever the cohort.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from common import tensors
from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.codecs import codec
from common.codecs.encoding import EncodeJob, encode_delta
from common.errors import StorageFailure, WrongTensors
from common.names import check_name
from common.plan.model import Plan
from common.reduce import Beside, ReduceJob, WeightedDelta, inspect_delta, reduce_round
from common.reduce.round import Write, in_order
from common.reduce.selftest import run_self_test
from common.statements.kinds import Tensor

Arrays = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class FileBlob:
    """A file of our own private folder as a blob. Nobody else writes there, so its chunks are not hashed."""

    path: Path
    size: int

    @property
    def ref(self) -> BlobRef:
        return BlobRef(algorithm="sha256", size=self.size, root=64 * "0")

    def read_chunk(self, index: int, into: memoryview) -> memoryview:
        """
        Raises:
            StorageFailure: the file cannot be read, or was cut short.
        """
        chunk = into[: self.ref.chunk_size(index)]
        try:
            with self.path.open("rb", buffering=0) as file:  # opened for each chunk: a cohort may be thousands
                file.seek(index * CHUNK_BYTES)
                got = file.readinto(chunk)
        except OSError as err:
            raise StorageFailure(f"{self.path} could not be read: {err.strerror or err}.") from err
        if got != len(chunk):
            raise StorageFailure(f"{self.path} ends early: chunk {index} has {got or 0} bytes, expected {len(chunk)}.")
        return chunk


class ReducedRounds:
    """One model's rounds, one after another. Not for several threads at once."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        """
        Args:
            plan: codec, downlink, rule, server optimizer, quorum and max_delta_l2 are its; the rest plays no part.
            folder: of this object alone, empty; it holds the model, the round's deltas, residuals and server_state.

        Raises:
            ReducerSelfTestFailed: this machine computes other bits than every other one does.
        """
        run_self_test()
        self.plan = plan
        self._folder = folder
        self._codec = codec(plan.codec)
        self._manifest: tuple[Tensor, ...] = ()
        self._taken: dict[str, WeightedDelta] = {}
        self._base: Arrays = {}
        for name in ("deltas", "residuals"):
            (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def taken(self) -> int:
        """How many deltas the open round has."""
        return len(self._taken)

    def open(self, base: Arrays) -> None:
        """Begin a round; what an unfinished one held is dropped.

        Raises:
            WrongTensors: an array is not float32, its name or shape is none of a tensor, or they are not the last round's.
        """
        manifest = manifest_of(base)
        if self._manifest and manifest != self._manifest:
            raise WrongTensors("The round starts from other arrays than the one before: names, order or shapes differ.")
        self._manifest, self._base = manifest, {name: np.asarray(base[name], dtype="<f4") for name in base}
        self._taken.clear()
        shutil.rmtree(self._folder / "deltas")
        (self._folder / "deltas").mkdir(mode=0o700)
        with _writing(self._path("base")) as file:
            file.write(tensors.model_header(manifest))
            for entry in manifest:
                file.write(np.ascontiguousarray(self._base[entry.name]).data)

    def take(self, institution: str, num_tokens: int, after: Arrays) -> None:
        """Keep one institution's delta.

        Args:
            num_tokens: its weight, whatever the unit; a whole number from 1 to 2^29 - 1.
            after: the arrays after local training, by the names of `open`.

        Raises:
            InvalidName: the institution's name is none.
            ImplausibleWeight, SlotTaken: the weight is out of range, or the institution stands twice.
            WrongTensors: other arrays than the round's.
            NonFiniteDelta, DeltaTooLong: the delta is not finite, or longer than the plan's max_delta_l2.
        """
        check_name(institution)
        found = manifest_of({name: after[name] for name in self._base if name in after})
        if found != self._manifest or len(after) != len(self._manifest):
            raise WrongTensors(_difference(self._manifest, after))
        path, kept = self._path("deltas", institution), self._path("deltas", f"{institution}.residual")
        size = self._codec.encoded_size(self._manifest)
        weighted = WeightedDelta(institution, num_tokens, FileBlob(path, size))
        in_order([*self._taken.values(), weighted])
        self._encode(self._delta(after), institution, path, kept)
        header = tensors.trainable_header(self._manifest)
        inspect_delta(weighted.reader, header, max_l2=float(self.plan.max_delta_l2), codec=self._codec)
        self._taken[institution] = weighted

    def close(self) -> dict[str, NDArray[np.float32]] | None:
        """The new model by name; None where the round has fewer deltas than the quorum: the model stays as it was.

        Raises:
            DeltaError: as `reduce_round`; the round is as open as before.
        """
        if len(self._taken) < self.plan.quorum:
            return None
        state, model = self._path("server_state"), self._path("model")
        job = ReduceJob(
            plan=self.plan,
            manifest=self._manifest,
            base=FileBlob(self._path("base"), tensors.model_size(self._manifest)),
            deltas=list(self._taken.values()),
            server_state=FileBlob(state, state.stat().st_size) if state.exists() else None,
        )
        with ExitStack() as stack:
            out = stack.enter_context(_writing(model))
            kept = stack.enter_context(_writing(self._path("next_state"))) if self.plan.leaves_server_state else None
            applied = None if self.plan.downlink is None else (lambda view: None)
            reduce_round(job, cast(Write, out.write), Beside(applied, kept.write if kept is not None else None))
        if self.plan.leaves_server_state:
            self._path("next_state").replace(state)
        for name in self._taken:
            lost = self._path("deltas", f"{name}.residual")
            if lost.exists():
                lost.replace(self._path("residuals", name))
        return self._read(model)

    def _path(self, *parts: str) -> Path:
        return self._folder.joinpath(*parts)

    def _delta(self, after: Arrays) -> io.BytesIO:
        """The trainable numbers, float32(after − before), in the manifest's order."""
        data = io.BytesIO()
        with np.errstate(all="ignore"):  # encode_delta and inspect_delta say what is not finite, and where
            for entry in self._manifest:
                delta = np.subtract(np.asarray(after[entry.name], dtype="<f4"), self._base[entry.name])
                data.write(np.ascontiguousarray(delta, dtype="<f4").data)
        data.seek(0)
        return data

    def _encode(self, delta: BinaryIO, institution: str, path: Path, kept: Path) -> None:
        before = self._path("residuals", institution)
        lossless = self.plan.codec.type == "float32"
        with ExitStack() as stack:
            out = stack.enter_context(_writing(path))
            encode_delta(
                EncodeJob(
                    codec=self.plan.codec,
                    manifest=self._manifest,
                    delta=delta,
                    residual=stack.enter_context(before.open("rb")) if before.exists() else None,
                    write=out.write,
                    keep=None if lossless else stack.enter_context(_writing(kept)).write,
                )
            )

    def _read(self, path: Path) -> dict[str, NDArray[np.float32]]:
        content = memoryview(path.read_bytes())
        position, arrays = len(tensors.model_header(self._manifest)), {}
        for entry in self._manifest:
            end = position + tensors.ELEMENT_BYTES * entry.elements
            values = np.frombuffer(content[position:end], dtype="<f4").astype(np.float32)
            arrays[entry.name] = values.reshape(entry.shape)
            position = end
        return arrays


def manifest_of(arrays: Arrays) -> tuple[Tensor, ...]:
    """The arrays as trainable tensors, in their order.

    Raises:
        WrongTensors: an array is not float32, or its name or shape is none of a tensor.
    """
    manifest = []
    for name, values in arrays.items():
        if values.dtype != np.float32:
            raise WrongTensors(
                f"Array {name!r} is {values.dtype}, expected float32.", "Leave out of the record what is not trained."
            )
        try:
            manifest.append(Tensor(name=name, shape=tuple(values.shape)))
        except ValueError as err:
            raise WrongTensors(
                f"Array {name!r} of shape {values.shape} is no tensor: letters, digits, '_', '.', '-', none empty."
            ) from err
    return tuple(manifest)


def _difference(manifest: Sequence[Tensor], arrays: Arrays) -> str:
    """In what the arrays are not the manifest's."""
    for entry in manifest:
        if entry.name not in arrays:
            return f"Array {entry.name!r} is missing."
        if tuple(arrays[entry.name].shape) != entry.shape:
            return f"Array {entry.name!r} has shape {tuple(arrays[entry.name].shape)}, expected {entry.shape}."
    known = {entry.name for entry in manifest}
    return f"Array {next(name for name in arrays if name not in known)!r} is not one of the model's."


def _writing(path: Path) -> BinaryIO:
    """A new file for its owner only, unbuffered: pieces are large.

    Raises:
        StorageFailure: it cannot be made.
    """
    try:
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
    except OSError as err:
        raise StorageFailure(f"{path} could not be written: {err.strerror or err}.") from err
