"""The final model, computed again from what the coordinator stored, by a program that knows docs/protocol.md alone."""

from __future__ import annotations

import base64
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import blake3
import numpy as np

from tests.support.drafts import make_draft
from tests.support.federations import Federation

# Nothing of ours below this line up to the test: sqlite3, json, numpy and blake3.

CHUNK_BYTES = 4 * 1024 * 1024


def payloads(home: Path) -> list[dict[str, Any]]:
    """Every statement of the ledger, in order."""
    with closing(sqlite3.connect(home / "state.sqlite")) as connection:
        rows = connection.execute('SELECT envelope FROM ledger ORDER BY "index"').fetchall()
    return [json.loads(base64.b64decode(json.loads(envelope)["payload"])) for (envelope,) in rows]


def root_of(content: bytes) -> str:
    """#merkle: leaves 0x00 || chunk, nodes 0x01 || left || right, split at the largest power of two below the count."""
    nodes = [
        blake3.blake3(b"\x00" + content[at : at + CHUNK_BYTES]).digest() for at in range(0, len(content), CHUNK_BYTES)
    ]

    def head(part: list[bytes]) -> bytes:
        if len(part) == 1:
            return part[0]
        split = 1 << (len(part) - 1).bit_length() - 1
        return bytes(blake3.blake3(b"\x01" + head(part[:split]) + head(part[split:])).digest())

    return head(nodes).hex()


def stored(home: Path, ref: dict[str, Any]) -> bytes:
    """A blob from the folder, checked against its reference."""
    content: bytes = (home / "blobs" / ref["algorithm"] / ref["root"][:2] / f"{ref['root']}.blob").read_bytes()
    assert (len(content), root_of(content)) == (ref["size"], ref["root"])
    return content


def elements(manifest: list[dict[str, Any]], group: str) -> int:
    """How many numbers the tensors of a group hold."""
    return sum(int(np.prod(tensor["shape"], dtype=np.int64)) for tensor in manifest if tensor["group"] == group)


def recompute(home: Path, plan: dict[str, Any], opened: dict[str, Any], given: list[dict[str, Any]]) -> bytes:
    """#weighted-mean, one line a rule: institutions in ascending order, products exact, each operation rounded once."""
    base = stored(home, opened["inputs"]["model"])
    count = elements(plan["manifest"], "trainable")
    data = len(base) - 4 * (count + elements(plan["manifest"], "frozen"))
    acc, total = np.zeros(count, dtype=np.float64), 0
    for contribution in sorted(given, key=lambda each: each["institution"].encode()):
        delta = np.frombuffer(stored(home, contribution["blobs"]["delta"])[-4 * count :], dtype="<f4")
        acc = acc + np.float64(contribution["weight"]["num_tokens"]) * delta.astype(np.float64)
        total += contribution["weight"]["num_tokens"]
    mean = (acc / np.float64(total)).astype(np.float32)
    step = np.float32(float(plan["plan"]["server_optimizer"]["learning_rate"])) * mean
    new = np.frombuffer(base[data : data + 4 * count], dtype="<f4") + step
    return b"".join((base[:data], new.astype("<f4").tobytes(), base[data + 4 * count :]))


def kind(payload: dict[str, Any]) -> str:
    return str(payload["predicateType"].split("/")[-2])


def test_every_model_follows_from_the_stored_contributions_to_the_bit(tmp_path: Path) -> None:
    # More than a chunk of elements, so that sums cross a chunk's border.
    shapes = {"embedding": (1100, 1000), "bias": (777,)}
    optimizer = {"type": "sgd", "learning_rate": 0.7}
    with Federation(tmp_path / "federation") as federation:
        federation.start_participants()
        draft = make_draft(tmp_path / "draft", shapes=shapes, rounds=2, server_optimizer=optimizer)
        ended = federation.wait_until_ended(federation.start_run(draft))
        home = federation.coordinator_home
    assert ended.ended is not None
    assert ended.ended.reason == "rounds-done"
    statements = payloads(home)
    (plan,) = [each["predicate"] for each in statements if kind(each) == "plan"]
    opened = {each["predicate"]["round"]: each["predicate"] for each in statements if kind(each) == "round-opened"}
    contributions = [each["predicate"] for each in statements if kind(each) == "contribution"]
    closed = [each["predicate"] for each in statements if kind(each) == "round-closed"]
    assert [(each["round"], each["outcome"], opened[each["round"]]["task"]) for each in closed] == [
        (1, "committed", "train"),
        (2, "committed", "train"),
        (3, "committed", "evaluate"),
    ]
    models = [plan["initial"]["model"]["root"]]
    for each in closed[:2]:
        given = [contribution for contribution in contributions if contribution["round"] == each["round"]]
        assert len(given) == 3
        model = recompute(home, plan, opened[each["round"]], given)
        assert model == stored(home, each["outputs"]["model"])
        models.append(root_of(model))
    assert len(set(models)) == 3
    assert closed[2]["outputs"]["model"]["root"] == models[-1] == ended.model.root
