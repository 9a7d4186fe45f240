"""Large blobs on connections of their own, between real daemons: over connections that are cut, and past a closed port."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from pathlib import Path

from common.blobs.reader import chunk_buffer
from common.blobs.reference import BlobRef
from common.blobs.store import FolderBlobStore
from llmasos.simulation.deployment import edit_line
from tests.support.cuts import CuttingProxy
from tests.support.drafts import make_draft
from tests.support.federations import Federation

MEGABYTE = 10**6
MODEL_BYTES = 20 * MEGABYTE
CUT_CONNECTIONS = 6


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def allowances() -> Iterator[int]:
    """Bytes of the first connections, less than a chunk; those after them are not cut."""
    chance = random.Random(7)
    yield from (chance.randrange(MEGABYTE // 2, 4 * MEGABYTE) for _ in range(CUT_CONNECTIONS))


def set_transfer(federation: Federation, name: str, port: int) -> None:
    settings = federation.home(name) / "participant.yaml"
    edit_line(settings, r"streams: auto", "streams: 2")
    edit_line(settings, r"bulk: auto", f"bulk: {port}")


def read_whole(federation: Federation, ref: BlobRef) -> None:
    """Every chunk as it lies on the coordinator's disk, against its digest; CorruptChunk where one differs."""
    with FolderBlobStore(federation.coordinator_home / "blobs").open(ref) as reader:
        buffer = chunk_buffer(ref)
        for index in range(ref.chunks):
            reader.read_chunk(index, buffer)


def test_a_run_ends_whether_the_bulk_port_is_cut_again_and_again_or_closed(tmp_path: Path) -> None:
    with (
        Federation(tmp_path, ("bank", "clinic", "registry")) as federation,
        CuttingProxy(str(federation.addresses()["bulk"]), allowances()) as proxy,
    ):
        through = int(proxy.address.rpartition(":")[2])
        set_transfer(federation, "bank", through)
        set_transfer(federation, "clinic", through)
        set_transfer(federation, "registry", closed_port())
        federation.start_participants()
        shapes = {"embedding": (MODEL_BYTES // 4000, 1000)}
        draft = make_draft(tmp_path / "draft", shapes=shapes, rounds=1, quorum=3)
        ended = federation.wait_until_ended(federation.start_run(draft))

        assert ended.ended is not None
        assert ended.ended.reason == "rounds-done"
        first = ended.rounds[0]
        assert set(first.contributions) == {"bank", "clinic", "registry"}
        for entry in first.contributions.values():
            read_whole(federation, entry.contribution.blobs["delta"])
        assert proxy.cuts >= 2, "two institutions try the way once, then each begins with two streams"
        assert proxy.up > 2 * MODEL_BYTES, "two deltas went up there"
        assert proxy.down > 2 * MODEL_BYTES, "and the model came down twice"
        assert federation.log("registry").read_text().count("no bulk connection") == 1
        assert "no bulk connection" not in federation.log("bank").read_text()
