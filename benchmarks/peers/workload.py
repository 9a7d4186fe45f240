"""What each system carries: the model of round_cost.py, and parameters that differ from it a little.

Needs numpy alone, for the peers' applications take a copy of this file with them. A participant adds a small number to one
element in each MiB, another one in each round, so that every piece of every reply is new and nothing can be carried once for
all. The mean of these numbers is known, so the last model shows whether all replies were averaged.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

MEGABYTE = 1_000_000
TENSOR_SHAPE = (1024, 1024)
TENSOR_BYTES = 4 * 1024 * 1024
MARK_EVERY = 256 * 1024
"""Elements of float32, 1 MiB."""
SEED = 1
TOLERANCE = 1e-4
"""The peers average in float32; a reply that is missing or counted twice makes a difference of more than 1e-3."""


def shapes(total_bytes: int) -> dict[str, tuple[int, ...]]:
    """Float32 tensors of 4 MiB, and one for the rest, `total_bytes` altogether (a multiple of 4)."""
    whole, rest = divmod(total_bytes, TENSOR_BYTES)
    found: dict[str, tuple[int, ...]] = {f"block.{index}.weight": TENSOR_SHAPE for index in range(whole)}
    return found | ({"rest.weight": (rest // 4,)} if rest // 4 else {})


def initial(total_bytes: int) -> Iterator[tuple[str, np.ndarray]]:
    """The first model, tensor by tensor; the same at every call."""
    random = np.random.default_rng(SEED)
    for name, shape in shapes(total_bytes).items():
        yield name, random.standard_normal(shape, dtype=np.float32)


def amount(participant: int, round_number: int) -> float:
    """What a participant adds to each marked element; participants from 0, rounds from 1."""
    return (1 + participant) * 2.0**-5 + round_number * 2.0**-7


def mark(values: np.ndarray, participant: int, round_number: int) -> None:
    """Train nothing: add `amount` to one element in each MiB of a tensor, in place."""
    values.reshape(-1)[::MARK_EVERY] += np.float32(amount(participant, round_number))


def expected_shift(participants: int, rounds: int) -> float:
    """How far a marked element is from its first value after all rounds."""
    return sum(
        sum(amount(participant, number) for participant in range(participants)) / participants
        for number in range(1, rounds + 1)
    )


def fault(arrays: Mapping[str, np.ndarray], total_bytes: int, *, participants: int, rounds: int) -> str | None:
    """What is wrong with the last model, or None."""
    if list(arrays) != list(shapes(total_bytes)):
        return f"the last model has {len(arrays)} tensors, expected {len(shapes(total_bytes))} in their order"
    shift = expected_shift(participants, rounds)
    for name, first in initial(total_bytes):
        first.reshape(-1)[::MARK_EVERY] += np.float32(shift)
        difference = float(np.abs(np.asarray(arrays[name]) - first).max())
        if not difference <= TOLERANCE:
            return f"{name} of the last model is off by {difference:.6f}, at most {TOLERANCE} was expected"
    return None


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Put the result there in one piece, for whoever waits for the file."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(result))
    os.replace(partial, path)
