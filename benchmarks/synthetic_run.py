"""A prepared run of any size, without torch: random weights, and a tensor manifest that no architecture has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from common import strict_json
from common.blobs.plain_file import open_as_blob
from common.blobs.reference import BlobRef
from common.plan.model import Plan
from common.statements.kinds import InitialBlobs, PlanStatement, Tensor
from common.tensors import model_header, model_size

TENSOR_SHAPE = (1024, 1024)
TENSOR_BYTES = 4 * 1024 * 1024
SEED = 1


def a_manifest(total_bytes: int) -> tuple[Tensor, ...]:
    """Float32 tensors of 4 MiB, and one for the rest, `total_bytes` altogether (a multiple of 4)."""
    whole, rest = divmod(total_bytes, TENSOR_BYTES)
    tensors = [Tensor(name=f"block.{index}.weight", shape=TENSOR_SHAPE) for index in range(whole)]
    if rest // 4:
        tensors.append(Tensor(name="rest.weight", shape=(rest // 4,)))
    return tuple(tensors)


def a_plan(*, rounds: int, participants: int) -> Plan:
    """FedAvg of all participants, no early end."""
    return Plan.model_validate(
        {"apiVersion": "llmasos/v1", "name": "round-cost", "rounds": rounds, "quorum": participants}
        | {"local": {"steps": 1, "batch_size": 1, "sequence_length": 128}}
        | {"retention": {"delta_rounds": 1}}
    )


def prepare(folder: Path, plan: Plan, *, total_bytes: int) -> PlanStatement:
    """What `llmasos plan prepare` would leave in `folder`, for a model of `total_bytes`."""
    folder.mkdir(parents=True)
    manifest = a_manifest(total_bytes)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(model_header(manifest))
        for values in _weights(manifest):
            file.write(values.data)
    (folder / "tokenizer.json").write_text("{}")
    initial = InitialBlobs(
        model=_reference(folder / "model.safetensors"), tokenizer=_reference(folder / "tokenizer.json")
    )
    if initial.model.size != model_size(manifest):
        raise RuntimeError(f"wrote {initial.model.size} bytes, the manifest says {model_size(manifest)}")
    draft = PlanStatement(run="round-cost-000000", plan=plan, manifest=manifest, initial=initial)
    (folder / "draft.json").write_bytes(strict_json.dumps(draft.model_dump(mode="json")))
    return draft


def _weights(manifest: tuple[Tensor, ...]) -> Iterator[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    random = np.random.default_rng(SEED)
    for tensor in manifest:
        yield random.standard_normal(tensor.elements, dtype=np.float32)


def _reference(path: Path) -> BlobRef:
    with open_as_blob(path, "blake3") as reader:
        return reader.ref
