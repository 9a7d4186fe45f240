"""Large blobs on connections of their own, between real daemons: the same bits as over gRPC, through cuts and closed ports."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.blobs.reader import chunk_buffer
from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.blobs.store import FolderBlobStore
from common.identity.keys import SigningKey
from common.ledger.state import RunRecord
from common.terminal import exit_code_of
from common.wire.streams import SMALL_CHUNKS
from coordinator.cli import app as operators_app
from llmasos.cli import app as users_app
from llmasos.simulation.deployment import edit_line
from participant.config import HomeLayout
from tests.support.cuts import CuttingProxy
from tests.support.drafts import Draft, make_draft
from tests.support.federations import NAMES, Federation
from tests.support.networks import unused_port

MODEL_BYTES = 20 * 10**6
STREAMS = 4
CUT_CONNECTIONS = 14
CLOSED = r"WARNING .*: no bulk connection  code=port-blocked "


def at_random(seed: int) -> Iterator[int]:
    """When the first connections break, in bytes; those after them are not cut."""
    chance = random.Random(seed)
    return iter([chance.randrange(CHUNK_BYTES // 2, 2 * CHUNK_BYTES) for _ in range(CUT_CONNECTIONS)])


def bulk_proxy(federation: Federation, allowances: Iterator[int]) -> CuttingProxy:
    return CuttingProxy(str(federation.addresses()["bulk"]), allowances)


def set_transfer(federation: Federation, name: str, bulk: int | str) -> None:
    settings = federation.home(name) / "participant.yaml"
    edit_line(settings, r"streams: auto", f"streams: {STREAMS}")
    edit_line(settings, r"bulk: auto", f"bulk: {bulk}")


def ended(federation: Federation, draft: Draft) -> RunRecord:
    """The run, which went to its last round with everybody's delta."""
    federation.start_participants()
    record = federation.wait_until_ended(federation.start_run(draft))
    assert record.ended is not None
    assert record.ended.reason == "rounds-done"
    assert set(record.rounds[0].contributions) == set(NAMES)
    return record


def deltas(record: RunRecord) -> dict[str, BlobRef]:
    return {name: entry.contribution.blobs["delta"] for name, entry in record.rounds[0].contributions.items()}


def read_whole(federation: Federation, ref: BlobRef) -> None:
    """Every chunk as it lies on the coordinator's disk, against its digest; CorruptChunk where one differs."""
    with FolderBlobStore(federation.coordinator_home / "blobs").open(ref) as reader:
        buffer = chunk_buffer(ref)
        for index in range(ref.chunks):
            reader.read_chunk(index, buffer)


def told_no_way(federation: Federation, name: str) -> int:
    """How often an agent said that its way for large blobs is closed."""
    return len(re.findall(CLOSED, federation.log(name).read_text()))


def own_key(federation: Federation, name: str) -> str:
    """An institution's signing key, from its own home."""
    return SigningKey.load(HomeLayout(federation.home(name)).signing_key).public.public


def verified(
    federation: Federation, run: str, bundle: Path, output: pytest.CaptureFixture[str]
) -> tuple[int, dict[str, Any]]:
    """`llmasos verify` of what `evidence export` wrote: its exit code and its report."""
    home = str(federation.coordinator_home)
    assert exit_code_of(operators_app, ["verify", run, "--home", home]) == 0
    assert exit_code_of(operators_app, ["evidence", "export", str(bundle), "--with-deltas", "--home", home]) == 0
    words = ["--fingerprint", federation.entries()[0].statement.digest, "--format", "json"]
    words += [f"--pin={name}={own_key(federation, name)}" for name in NAMES]
    output.readouterr()
    code = exit_code_of(users_app, ["verify", str(bundle), *words])
    report: dict[str, Any] = json.loads(output.readouterr().out)
    return code, report


def without_bulk(folder: Path, draft: Draft) -> RunRecord:
    """The run with `transfer.bulk: off` everywhere, at a coordinator that names a bulk port."""
    with Federation(folder) as federation, bulk_proxy(federation, iter(())) as proxy:
        settings = federation.coordinator_home / "coordinator.yaml"
        edit_line(settings, r"  bulk: ", f"  public_bulk_port: {proxy.port}\n  bulk: ")
        federation.kill_coordinator()
        federation.start_coordinator()
        for name in NAMES:
            set_transfer(federation, name, "off")
        record = ended(federation, draft)
        assert (proxy.up, proxy.down) == (0, 0), "nobody came to the bulk port"
        return record


def test_a_run_has_the_same_bits_over_bulk_connections_over_cut_ones_and_past_a_closed_port(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draft = make_draft(tmp_path / "draft", shapes={"embedding": (MODEL_BYTES // 4000, 1000)}, rounds=1, quorum=3)
    model = draft.statement.initial.model
    assert model.chunks >= SMALL_CHUNKS
    over_grpc = without_bulk(tmp_path / "grpc", draft)

    with (
        Federation(tmp_path / "bulk") as federation,
        bulk_proxy(federation, iter(())) as whole,
        bulk_proxy(federation, at_random(seed=7)) as cutting,
        unused_port() as closed,
    ):
        for name, port in zip(NAMES, (whole.port, cutting.port, closed), strict=True):
            set_transfer(federation, name, port)
        record = ended(federation, draft)

        assert record.model == over_grpc.model
        assert deltas(record) == deltas(over_grpc)
        for ref in (record.model, *deltas(record).values()):
            read_whole(federation, ref)
        for proxy, name in ((whole, "bank"), (cutting, "clinic")):
            assert proxy.up > deltas(record)[name].size, f"the delta of {name} went up there"
            assert proxy.down > model.size + record.model.size, f"and both models came down to {name}"
        assert whole.cuts == 0
        assert cutting.cuts >= CUT_CONNECTIONS - STREAMS
        assert cutting.up > 1.05 * whole.up, "the upload was cut: bytes passed twice"
        assert cutting.down > 1.05 * whole.down, "and so were the downloads"
        assert [told_no_way(federation, name) for name in NAMES] == [0, 0, 1]
        code, report = verified(federation, record.run, tmp_path / "run.evidence", capsys)
        assert (code, report["result"]) == (0, "verified"), report
        (rounds,) = (check["examined"] for check in report["checks"] if check["name"] == "rounds")
        assert rounds == "1 of 1 recomputed here, equal in every bit"
