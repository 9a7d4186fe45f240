"""How fast deltas become a model: the reducer alone, over blobs in the page cache, beside a copy in memory, in one run.

    python benchmarks/folding.py                              # a table
    python benchmarks/folding.py --mb 400 --deltas 16 --json -

GB are bytes of deltas as they lie in the store, seconds are elapsed, of the fastest repetition. Four ways, each with all that
stands before it:

    alone       decoding, weighing and adding up: what three times as many deltas take longer, by two; - where that is noise
    base        also reading the base model, the server optimizer, the check that all is finite; into nothing
    re-hash     also hashing whatever is read, as the coordinator does
    output      also hashing the new model and writing it to the disk, durably

`ratio` is by a copy of one delta's bytes in memory, by one thread. Processor seconds for a GB of deltas tell the same steps
apart; they add up whatever the number of threads is, and other work on the machine spoils them less.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measuring import machine, output
from measuring.accounting import GIGABYTE, MEGABYTE
from measuring.units import drop
from synthetic_run import a_manifest

from common.blobs import disk
from common.blobs.reader import ChunkSource
from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.blobs.store import FolderBlobStore
from common.codecs import CODECS
from common.codecs.encoding import EncodeJob, encode_delta
from common.errors import LLMasOSError
from common.plan.model import Plan
from common.reduce import ReduceJob, WeightedDelta, reduce_round
from common.tensors import model_header

LEAST_RATIO = 0.7
WAYS = ("alone", "base", "rehash", "output")
SHOWN = {"alone": "alone", "base": "and base", "rehash": "and re-hash", "output": "and output"}


@dataclass(frozen=True, slots=True)
class Settings:
    """How much, and how often."""

    mb: int
    deltas: int
    repeats: int
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds."""

    elapsed: float
    processor: float

    def __sub__(self, other: Took) -> Took:
        return Took(self.elapsed - other.elapsed, self.processor - other.processor)


class PlainFile:
    """A blob's file, read as it is, without hashing."""

    def __init__(self, path: Path, ref: BlobRef) -> None:
        self.ref = ref
        self._fd = os.open(path, os.O_RDONLY)

    def read_chunk(self, index: int, into: memoryview) -> memoryview:
        chunk = into[: self.ref.chunk_size(index)]
        disk.read_at(self._fd, chunk, index * CHUNK_BYTES)
        return chunk

    def close(self) -> None:
        os.close(self._fd)


class Case:
    """One codec's round in a store: base, deltas, and the ways to reduce them."""

    def __init__(self, codec: str, settings: Settings, store: FolderBlobStore) -> None:
        self._plan = Plan.model_validate({"apiVersion": "llmasos/v1", "name": "folding", "codec": {"type": codec}})
        self._manifest = a_manifest(settings.mb * MEGABYTE)
        self._store = store
        random = np.random.default_rng(settings.seed)
        elements = settings.mb * MEGABYTE // 4
        values = random.standard_normal(elements, np.float32)
        self._base = self._keep(lambda write: (write(memoryview(model_header(self._manifest))), write(values.data)))
        self._deltas = []
        for _ in range(settings.deltas):
            values = random.standard_normal(elements, np.float32)
            values *= np.float32(0.001)
            self._deltas.append(self._keep(lambda write, of=values: self._encode(of, write)))  # type: ignore[misc]

    @property
    def delta_bytes(self) -> int:
        return sum(ref.size for ref in self._deltas)

    def _encode(self, values: np.ndarray[Any, np.dtype[np.float32]], write: Callable[[memoryview], object]) -> None:
        encode_delta(EncodeJob(self._plan.codec, self._manifest, io.BytesIO(values.data), None, write, None))

    def _keep(self, produce: Callable[[Callable[[memoryview], object]], object]) -> BlobRef:
        with self._store.writer("blake3") as writer:
            produce(writer.write)
            return writer.commit()

    def choose(self, rule: dict[str, Any]) -> None:
        """Fold by this rule from now on."""
        source = self._plan.model_dump(mode="json") | {"quorum": len(self._deltas), "rule": rule}
        self._plan = Plan.model_validate(source)

    def fold(self, *, times: int = 1, hashed: bool = False) -> None:
        """Into nothing; `times` as many deltas."""
        with ExitStack() as stack:
            reduce_round(self._job(stack, times=times, hashed=hashed), drop)

    def to_disk(self) -> BlobRef:
        with ExitStack() as stack:
            job = self._job(stack, times=1, hashed=True)
            writer = stack.enter_context(self._store.writer("blake3"))
            reduce_round(job, writer.write)
            return writer.commit()

    def forget(self, ref: BlobRef) -> None:
        self._store.delete(ref)

    def _job(self, stack: ExitStack, *, times: int, hashed: bool) -> ReduceJob:
        def source(ref: BlobRef) -> ChunkSource:
            if hashed:
                return stack.enter_context(self._store.open(ref))
            file = PlainFile(self._store.path(ref), ref)
            stack.callback(file.close)
            return file

        deltas = [
            WeightedDelta(f"institution-{number}", 1000 + number, source(ref))
            for number, ref in enumerate(self._deltas * times)
        ]
        return ReduceJob(self._plan, self._manifest, source(self._base), deltas)


def timed(work: Callable[[], object]) -> Took:
    processor, started = time.process_time(), time.perf_counter()
    work()
    return Took(time.perf_counter() - started, max(time.process_time() - processor, 1e-9))


def fastest(times: Sequence[Took]) -> Took:
    """By each clock: what other work on the machine spoils least."""
    return Took(min(each.elapsed for each in times), min(each.processor for each in times))


def measure(settings: Settings, folder: Path) -> dict[str, Any]:
    """Every codec, one after the other, copies in between."""
    source = np.ones(settings.mb * MEGABYTE // 4, np.float32)
    target = np.empty_like(source)
    np.copyto(target, source)
    copies: list[Took] = []
    found: dict[str, Any] = {}
    for name in CODECS:
        store = FolderBlobStore(folder / name)
        case = Case(name, settings, store)
        times: dict[str, list[Took]] = {way: [] for way in ("plain", "triple", "hashed", "disk")}
        for _ in range(settings.repeats):
            copies.append(timed(lambda: np.copyto(target, source)))
            times["plain"].append(timed(case.fold))
            times["triple"].append(timed(lambda case=case: case.fold(times=3)))  # type: ignore[misc]
            times["hashed"].append(timed(lambda case=case: case.fold(hashed=True)))  # type: ignore[misc]
            made: list[BlobRef] = []
            times["disk"].append(timed(lambda case=case, made=made: made.append(case.to_disk())))  # type: ignore[misc]
            case.forget(made[0])
        found[name] = case.delta_bytes, {way: fastest(each) for way, each in times.items()}
        for ref, _ in list(store.list()):
            store.delete(ref)
        store.close()
    return report(settings, Took(*(source.nbytes / each / GIGABYTE for each in astuple(fastest(copies)))), found)


def astuple(took: Took) -> tuple[float, float]:
    return took.elapsed, took.processor


def report(settings: Settings, copy: Took, found: dict[str, Any]) -> dict[str, Any]:
    """For machines; `copy` holds rates, GB/s of elapsed and of processor time."""
    codecs = {name: codec_report(settings, copy, nbytes, times) for name, (nbytes, times) in found.items()}
    alone = codecs["float32"]["alone"]
    return {
        "mb": settings.mb,
        "deltas": settings.deltas,
        "memcpy_gb_s": round(copy.elapsed, 2),
        "memcpy_processor_gb_s": round(copy.processor, 2),
        "codecs": codecs,
        "met": {"float32 alone": bool(alone) and alone["ratio"] >= LEAST_RATIO},
        "machine": machine.description(),
    }


def codec_report(settings: Settings, copy: Took, nbytes: int, times: dict[str, Took]) -> dict[str, Any]:
    plain, hashed, written = times["plain"], times["hashed"], times["disk"]
    triple = times["triple"] - plain
    alone = Took(triple.elapsed / 2, triple.processor / 2)
    gigabytes, of_float32 = nbytes / GIGABYTE, settings.deltas * settings.mb / 1000
    elapsed = dict(zip(WAYS, (alone.elapsed, plain.elapsed, hashed.elapsed, written.elapsed), strict=True))
    each = (alone, plain - alone, hashed - plain, written - hashed)
    return {
        "share": round(nbytes / (settings.deltas * settings.mb * MEGABYTE), 4),
        **{
            way: {
                "gb_s": round(gigabytes / seconds, 2),
                "float32_gb_s": round(of_float32 / seconds, 2),
                "ratio": round(gigabytes / seconds / copy.elapsed, 3),
            }
            if seconds > 0
            else None
            for way, seconds in elapsed.items()
        },
        "processor_seconds_per_gb": {
            way: round(took.processor / gigabytes, 3) for way, took in zip(WAYS, each, strict=True)
        },
    }


def table(found: dict[str, Any]) -> str:
    header = [f"{found['deltas']} × {found['mb']} MB", "bytes"]
    header += [f"{'GB/s (by memcpy)' if way == 'alone' else ''}\n{SHOWN[way]}" for way in WAYS]
    header += [f"{'processor s/GB' if way == 'alone' else ''}\n{way}" for way in WAYS]
    rows = [
        [
            name,
            f"{each['share']:.1%}",
            *(f"{each[way]['gb_s']:.2f} ({each[way]['ratio']:.2f})" if each[way] else "-" for way in WAYS),
            *(f"{each['processor_seconds_per_gb'][way]:.2f}" for way in WAYS),
        ]
        for name, each in found["codecs"].items()
    ]
    met = "met" if found["met"]["float32 alone"] else "NOT MET"
    return (
        output.columns(header, rows)
        + f"\n\nmemcpy, one thread: {found['memcpy_gb_s']:.1f} GB/s elapsed, {found['memcpy_processor_gb_s']:.1f} of processor "
        f"time; load {found['machine']['load'][0]}\nfloat32 alone, {LEAST_RATIO} of memcpy: {met}"
    )


def plot(found: dict[str, Any]) -> str:
    """Rates of the four ways."""
    lines = {
        name: [(float(at), each[way]["gb_s"]) for at, way in enumerate(WAYS, 1) if each[way] and each[way]["gb_s"]]
        for name, each in found["codecs"].items()
    }
    return output.lines_plot(
        dict(lines),
        title="Folding",
        x="1 alone, 2 and base, 3 and re-hash, 4 and output",
        y="GB of deltas a second",
        marks={"memcpy": found["memcpy_gb_s"]},
    )


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = output.parser(__doc__)
    parser.add_argument("--mb", type=int, help="float32 of a delta, millions of bytes [100]")
    parser.add_argument("--deltas", type=int, default=4)
    parser.add_argument("--repeats", type=int, help="of every way [5]")
    options = parser.parse_args(arguments)
    options.mb = options.mb or (16 if options.quick else 100)
    options.repeats = options.repeats or (3 if options.quick else 5)
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="folding-", dir=options.folder) as folder:
            found = measure(Settings(options.mb, options.deltas, options.repeats), Path(folder))
    except LLMasOSError as error:
        return output.failed(error)
    output.deliver(options, found, table, plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
