"""Prepared plans as `llmasos plan prepare` leaves them, made without torch: any tensors, any size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import strict_json
from common.blobs.plain_file import open_as_blob
from common.blobs.reference import BlobRef
from common.statements.kinds import InitialBlobs, PlanStatement, Tensor
from common.tensors import model_header
from tests.support import null_worker
from tests.support.plans import a_plan


@dataclass(frozen=True)
class Draft:
    """A prepared plan in a folder, as `llmasos plan prepare` leaves it, made without torch."""

    statement: PlanStatement
    folder: Path


def make_draft(
    folder: Path, *, run: str = "tiny-000001", shapes: Mapping[str, tuple[int, ...]] | None = None, **plan: Any
) -> Draft:
    """A plan of two rounds with a small model; `shapes` names its trainable tensors, `plan` changes the plan's fields."""
    folder.mkdir(parents=True)
    shapes = shapes or {"embedding": (300, 7), "bias": (33,)}
    manifest = (
        *(Tensor(name=name, shape=shape) for name, shape in shapes.items()),
        Tensor(name="positions", shape=(5,), group="frozen"),
    )
    model, tokenizer = folder / "model.safetensors", folder / "tokenizer.json"
    with model.open("wb") as file:
        file.write(model_header(manifest))
        for seed, tensor in enumerate(manifest):
            for first in range(0, tensor.elements, null_worker.BLOCK_ELEMENTS):
                count = min(null_worker.BLOCK_ELEMENTS, tensor.elements - first)
                file.write((null_worker.values(seed + 1, first, count) * 3).astype("<f4").tobytes())
    tokenizer.write_bytes(b'{"version":"1.0"}')
    statement = PlanStatement(
        run=run,
        plan=a_plan(**plan),
        manifest=manifest,
        initial=InitialBlobs(model=reference(model), tokenizer=reference(tokenizer)),
    )
    (folder / "draft.json").write_bytes(strict_json.dumps(statement.model_dump(mode="json")))
    return Draft(statement, folder)


def reference(path: Path) -> BlobRef:
    """A file's blob reference."""
    with open_as_blob(path, "blake3") as reader:
        return reader.ref
