"""How fast deltas are encoded, decoded, checked and folded, beside a copy in memory, by one core, in one run.

    python benchmarks/codecs.py                     # a table
    python benchmarks/codecs.py --json -            # the same as JSON

GB/s are of float32, 4 bytes a number, whatever the encoded size, and of processor time, so that other work on the machine
spoils them less. Each step is taken in turn with a copy of as many float32, several times; shown is the median, and the
fastest. `copy` is np.copyto from one large array to another. What each step is:

    encode      codec.encode, 262,144 numbers at a time
    feedback    encode_delta: delta and residual from memory, blob and new residual handed on
    decode      codec.decode, 65,536 numbers at a time into one buffer, as the reducer does; the bytes come from memory
    check       codec.fault: scales, codes and what fills up
    inspect     inspect_delta without hashing: copy, check, decode, norm
    fold        reduce_round of --deltas deltas without hashing: bytes of deltas a second, decoding and base included
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common import tensors
from common.codecs import CODECS, DeltaCodec
from common.codecs.base import PIECE_ELEMENTS
from common.codecs.encoding import BUFFER_ELEMENTS, EncodeJob, encode_delta
from common.plan.model import Plan
from common.reduce import ReduceJob, WeightedDelta, inspect_delta, reduce_round
from common.reduce.selftest import MemoryBlob
from common.statements.kinds import Tensor

Float32s = NDArray[np.float32]

GIGABYTE = 1e9
STEPS = ("encode", "feedback", "decode", "check", "inspect", "fold")
LEAST = {
    ("int8", "encode"): 1.0,
    ("int4", "encode"): 1.0,
    ("topk", "encode"): 1.0,
    ("bfloat16", "encode"): 1.0,
    ("int8", "decode"): 5.0,
    ("int4", "decode"): 2.0,
}
"""GB/s of float32 that a core is to reach."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How much, and how often."""

    elements: int = 16_000_000
    repeats: int = 7
    deltas: int = 4
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Rate:
    """GB/s of float32."""

    median: float
    fastest: float


class Case:
    """One codec's delta, and every step over it."""

    def __init__(self, name: str, settings: Settings) -> None:
        self._codec: DeltaCodec = CODECS[name]
        self._deltas = settings.deltas
        self._manifest = (Tensor(name="w", shape=(settings.elements,)),)
        self._values: Float32s = np.random.default_rng(settings.seed).standard_normal(settings.elements, np.float32)
        self._values *= np.float32(0.001)
        self._delta, self._residual = io.BytesIO(self._values.data), io.BytesIO(self._values.data)
        self._plan = Plan.model_validate({"apiVersion": "llmasos/v1", "name": "codecs", "codec": {"type": name}})
        blob = self._codec.header(self._manifest) + bytes(self._codec.encode(self._values))
        self._blob = MemoryBlob(blob)
        self._encoded = memoryview(blob)[len(self._codec.header(self._manifest)) :]
        header = tensors.model_header(self._manifest)
        self._base = MemoryBlob(header + self._values.tobytes())

    @property
    def share(self) -> float:
        """Encoded bytes by bytes of float32."""
        return len(self._encoded) / self._values.nbytes

    def encode(self) -> None:
        at_once = BUFFER_ELEMENTS // self._codec.block_elements * self._codec.block_elements
        for start in range(0, len(self._values), at_once):
            self._codec.encode(self._values[start : start + at_once])

    def feedback(self) -> None:
        for file in (self._delta, self._residual):
            file.seek(0)
        encode_delta(EncodeJob(self._plan.codec, self._manifest, self._delta, self._residual, len, len))

    def decode(self) -> None:
        blocks = PIECE_ELEMENTS // self._codec.block_elements
        into = np.empty(blocks * self._codec.block_elements, np.float32)
        for start in range(0, len(self._encoded), blocks * self._codec.block_bytes):
            self._codec.decode(self._encoded[start : start + blocks * self._codec.block_bytes], into)

    def check(self) -> None:
        assert self._codec.fault(self._encoded, len(self._values)) is None

    def inspect(self) -> None:
        header = tensors.trainable_header(self._manifest)
        inspect_delta(self._blob, header, max_l2=float("inf"), codec=self._codec)

    def fold(self) -> None:
        deltas = [WeightedDelta(f"i{number}", 1000 + number, self._blob) for number in range(self._deltas)]
        reduce_round(ReduceJob(self._plan, self._manifest, self._base, deltas), len)


def measure(settings: Settings) -> dict[str, object]:
    """Every step of every codec, and copies in between."""
    source = np.ones(settings.elements, np.float32)
    target = np.empty_like(source)
    nbytes = source.nbytes
    copies: list[float] = []
    found: dict[str, dict[str, Rate]] = {}
    shares: dict[str, float] = {}
    for name in CODECS:
        case = Case(name, settings)
        shares[name] = case.share
        found[name] = {}
        for step in STEPS:
            work: Callable[[], None] = getattr(case, step)
            times: list[float] = []
            for _ in range(settings.repeats):
                copies.append(seconds(lambda: np.copyto(target, source)))
                times.append(seconds(work))
            found[name][step] = rate(nbytes * (settings.deltas if step == "fold" else 1), times)
    return report(settings, rate(nbytes, copies), found, shares)


def seconds(work: Callable[[], None]) -> float:
    """Of processor time, of all threads together."""
    started = time.process_time()
    work()
    return max(time.process_time() - started, 1e-9)


def rate(nbytes: int, times: Sequence[float]) -> Rate:
    return Rate(nbytes / statistics.median(times) / GIGABYTE, nbytes / min(times) / GIGABYTE)


def report(
    settings: Settings, copy: Rate, found: dict[str, dict[str, Rate]], shares: dict[str, float]
) -> dict[str, object]:
    """What was found, for machines."""

    def shown(each: Rate) -> dict[str, float]:
        return {"median": round(each.median, 2), "fastest": round(each.fastest, 2)}

    return {
        "unit": "GB of float32 a second of processor time",
        "elements": settings.elements,
        "repeats": settings.repeats,
        "deltas": settings.deltas,
        "copy": shown(copy),
        "codecs": {
            name: {"share": round(shares[name], 4), **{step: shown(each) for step, each in steps.items()}}
            for name, steps in found.items()
        },
        "met": {f"{name} {step}": found[name][step].median >= least for (name, step), least in LEAST.items()},
        "machine": {
            "cores": os.cpu_count(),
            "platform": platform.platform(),
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
    }


def table(found: dict[str, Any]) -> str:
    """The same for people."""
    copy = found["copy"]
    lines = [
        f"GB of float32 a second of processor time, median (fastest); a copy: {copy['median']:.1f} ({copy['fastest']:.1f})",
        "",
    ]
    lines.append(f"{'':10}{'bytes':>8}" + "".join(f"{step:>15}" for step in STEPS))
    for name, each in found["codecs"].items():
        rates = [f"{each[step]['median']:.1f} ({each[step]['fastest']:.1f})" for step in STEPS]
        lines.append(f"{name:10}{each['share']:>8.1%}" + "".join(f"{text:>15}" for text in rates))
    missed = [name for name, reached in found["met"].items() if not reached]
    lines += ["", f"not reached: {', '.join(missed)}" if missed else "all rates that are asked for are reached"]
    return "\n".join(lines)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Settings()
    parser.add_argument("--elements", type=int, default=default.elements, help="numbers of a delta")
    parser.add_argument("--repeats", type=int, default=default.repeats, help="of every step")
    parser.add_argument("--deltas", type=int, default=default.deltas, help="of a round, for folding")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument(
        "--json", metavar="FILE", help="write the result there; - is standard output, without the table"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    found = measure(Settings(**{name: getattr(options, name) for name in Settings.__slots__}))
    text = json.dumps(found, indent=2)
    print(text if options.json == "-" else table(found))
    if options.json not in {None, "-"}:
        Path(options.json).write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
