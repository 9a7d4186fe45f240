"""One round through a strategy of Flower: models and weights in as a Flower app's replies, the new model out.

    combiner = FlowerCombiner(settings, folder)
    combiner.rule                                    "flower:flwr==1.41.0:FedTrimmedAvg(beta=0.2)"
    combiner.combine(work, write)

Every institution's whole model is in memory at once, as Flower wants it; beyond `max_bytes` a round is refused. The strategy
is made anew for each round, and what it keeps (FedYogi's momenta) comes from disk: the same round combined again, as after a
crash, gives the same model. Its arithmetic is Flower's and numpy's: nobody else recomputes it, and `verify` says so.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import flwr.serverapp.strategy as strategies
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray

from common import tensors
from common.blobs.reader import BlobStream, ChunkSource
from common.blobs.reference import CHUNK_BYTES
from common.codecs import codec
from common.errors import BlobTooLarge, InvalidConfiguration, ModelOverflow, StorageFailure, WrongTensors
from common.plan.model import Plan
from common.reduce import WeightedDelta
from common.reduce.round import in_order
from common.reduce.window import DeltaWindow
from common.statements.kinds import Tensor
from coordinator.flower.settings import FlowerSettings
from coordinator.flower.state import StateFolder, collect, restore

COPIES = 4
"""Models besides the institutions' own that a strategy holds at once: base, result and two of state or of work."""
_OURS = {
    "fraction_train": 1.0,
    "fraction_evaluate": 0.0,
    "min_train_nodes": 1,
    "min_evaluate_nodes": 0,
    "min_available_nodes": 1,
    "weighted_by_key": "num-examples",
    "arrayrecord_key": "arrays",
    "configrecord_key": "config",
}
"""Who takes part is the plan's affair, not the strategy's."""

Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class RoundWork:
    """A sealed round."""

    plan: Plan
    manifest: Sequence[Tensor]
    base: ChunkSource
    deltas: Sequence[WeightedDelta]
    run: str
    number: int
    before: int | None
    """The newest committed training round of the run before this one."""


class FlowerCombiner:
    """Rounds of all runs whose plan's rule is `operator`. Used by the engine's thread."""

    def __init__(self, settings: FlowerSettings, folder: Path) -> None:
        """
        Args:
            folder: holds strategies' states, one folder a run.

        Raises:
            InvalidConfiguration: no strategy of that name, or it does not take these arguments.
        """
        logging.getLogger("flwr").setLevel(logging.ERROR)  # it prints a line for each step of each round
        self._settings = settings
        self._folder = folder
        self._make()
        arguments = ",".join(f"{name}={value!r}" for name, value in sorted(settings.arguments.items()))
        self.rule = f"flower:flwr=={version('flwr')}:{settings.strategy}({arguments})"

    def check(self, manifest: Sequence[Tensor], cohort: int) -> None:
        """
        Raises:
            BlobTooLarge: a round of so many would need more memory than the configuration allows.
        """
        needed = (cohort + COPIES) * tensors.ELEMENT_BYTES * tensors.trainable_elements(manifest)
        if needed > self._settings.max_bytes:
            raise BlobTooLarge(
                f"{self._settings.strategy} would hold {needed:,} bytes for {cohort} institutions, "
                f"aggregation.flower.max_bytes is {self._settings.max_bytes:,}.",
                "Raise it where the memory is there, or take a rule of LLMasOS: its memory is bounded for any model.",
            )

    def combine(self, work: RoundWork, write: Callable[[memoryview], object]) -> None:
        """Hand the new model's bytes to `write`, from first to last; the strategy's state is durable by then.

        Raises:
            BlobTooLarge: as `check`.
            WrongTensors, CorruptChunk: an input is not the manifest's, or changed on disk.
            ModelOverflow: the strategy gives no model, or one that is not finite or has other tensors.
            StorageFailure: the strategy's state of the round before is lost.
        """
        deltas = in_order(work.deltas)
        self.check(work.manifest, len(deltas))
        base_stream, base = _read_base(work)
        strategy, states = self._make(), StateFolder(self._folder / work.run)
        if work.before is not None:
            kept = states.after(work.before)
            if kept is None:
                raise StorageFailure(
                    f"The state after round {work.before} of {work.run} is not there: {self._folder / work.run}.",
                    "Restore the folder from a backup; without it the strategy's momenta would begin anew.",
                )
            restore(strategy, kept)
        new = self._aggregate(strategy, work, base, [(each.num_tokens, _after(work, each, base)) for each in deltas])
        write(memoryview(tensors.model_header(work.manifest)))
        for entry in _trainable(work.manifest):
            write(memoryview(new[entry.name].tobytes()))
        while frozen := base_stream.take(CHUNK_BYTES):
            write(frozen)
        states.write(work.number, collect(strategy, self._make()), keep=work.before)

    def _make(self) -> Strategy:
        name, given = self._settings.strategy, self._settings.arguments
        found = getattr(strategies, name, None) if name in strategies.__all__ else None
        if not (isinstance(found, type) and issubclass(found, Strategy)) or inspect.isabstract(found):
            known = ", ".join(sorted(name for name in strategies.__all__ if name not in ("Strategy", "Result")))
            raise InvalidConfiguration(f"aggregation.flower.strategy is {name}, expected one of {known}.")
        if ours := sorted(set(given) & set(_OURS)):
            raise InvalidConfiguration(
                f"aggregation.flower.arguments names {', '.join(ours)}: that is the plan's affair."
            )
        try:
            return found(**_OURS, **given)
        except (TypeError, ValueError) as err:
            raise InvalidConfiguration(f"{name} does not take aggregation.flower.arguments: {err}.") from err

    def _aggregate(
        self, strategy: Strategy, work: RoundWork, base: Arrays, models: Sequence[tuple[int, Arrays]]
    ) -> Arrays:
        """As a Flower app's server does: configure, which lets a strategy look at the base, then aggregate the replies."""
        TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 1  # Flower makes messages in a run only
        list(strategy.configure_train(work.number, _record(base), ConfigRecord(), cast(Grid, _Nodes(len(models)))))
        replies = []
        while models:
            (weight, model), *models = models
            metrics = MetricRecord({"num-examples": weight})
            content = RecordDict({"arrays": _record(model), "metrics": metrics})
            replies.append(Message(content, dst_node_id=1, message_type=MessageType.TRAIN))
        try:
            arrays, _ = strategy.aggregate_train(work.number, replies)
        except Exception as err:
            raise ModelOverflow(f"{self.rule} gives no model: {type(err).__name__}: {err}") from err
        if arrays is None:
            raise ModelOverflow(f"{self.rule} gives no model of {len(replies)} deltas.")
        return _checked({name: array.numpy() for name, array in arrays.items()}, work.manifest, self.rule)


class _Nodes:
    """As many nodes as there are deltas: all a strategy asks a grid for."""

    def __init__(self, count: int) -> None:
        self._count = count

    def get_node_ids(self) -> list[int]:
        return list(range(1, self._count + 1))


def _record(arrays: Arrays) -> ArrayRecord:
    return ArrayRecord({name: Array(values) for name, values in arrays.items()})


def _trainable(manifest: Sequence[Tensor]) -> list[Tensor]:
    return [entry for entry in manifest if entry.group == "trainable"]


def _read_base(work: RoundWork) -> tuple[BlobStream, Arrays]:
    """The trainable tensors, and the stream behind them."""
    stream, header = BlobStream(work.base), tensors.model_header(work.manifest)
    if work.base.ref.size != tensors.model_size(work.manifest):
        raise WrongTensors(f"Base model {work.base.ref} is not of the size that its manifest gives.")
    start = bytearray(len(header))
    stream.read_into(memoryview(start))
    tensors.check_header(bytes(start), header)
    arrays: Arrays = {}
    for entry in _trainable(work.manifest):
        values = np.empty(entry.shape, dtype="<f4")
        if values.nbytes:
            stream.read_into(values.reshape(-1).view(np.uint8).data)  # a view: the array's own memory
        arrays[entry.name] = values
    return stream, arrays


def _after(work: RoundWork, delta: WeightedDelta, base: Arrays) -> Arrays:
    """An institution's model: base + its decoded delta, float32."""
    window = DeltaWindow(codec(work.plan.codec), tensors.trainable_header(work.manifest))
    window.check_size(delta.reader)
    flat = np.empty(window.all_elements, dtype=np.float32)
    done = 0
    for index in range(window.chunks):
        for piece in window.values(delta.reader, index):
            flat[done : done + len(piece)] = piece
            done += len(piece)
    arrays: Arrays = {}
    position = 0
    with np.errstate(all="ignore"):  # what overflows is found by the result
        for entry in _trainable(work.manifest):
            values = flat[position : position + entry.elements].reshape(entry.shape)
            arrays[entry.name] = np.asarray(base[entry.name] + values, dtype=np.float32)
            position += entry.elements
    return arrays


def _checked(arrays: dict[str, NDArray[Any]], manifest: Sequence[Tensor], rule: str) -> Arrays:
    """float32, every tensor, its shape, finite."""
    checked: Arrays = {}
    for entry in _trainable(manifest):
        values = arrays.get(entry.name)
        if values is None or tuple(values.shape) != entry.shape:
            got = "none" if values is None else f"shape {tuple(values.shape)}"
            raise ModelOverflow(f"{rule} gives {got} for tensor {entry.name}, expected shape {entry.shape}.")
        with np.errstate(all="ignore"):
            checked[entry.name] = np.ascontiguousarray(values, dtype="<f4").reshape(entry.shape)
        if not np.isfinite(checked[entry.name]).all():
            raise ModelOverflow(f"{rule} gives a model that is not finite in tensor {entry.name}.")
    return checked
