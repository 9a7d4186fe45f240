"""Transfers over real connections that are cut at random bytes, real TLS and the real listener behind them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.blobs.reference import CHUNK_BYTES
from common.blobs.store import FolderBlobStore
from common.wire.channel import WINDOW_BYTES
from common.wire.session import Session
from common.wire.transfer import Backoff, TransferOptions
from tests.support.api import ROUND, Scene
from tests.support.cuts import CuttingProxy

CHUNKS = 12
CUTS = 12
LOST_BY_A_CUT = CHUNK_BYTES + WINDOW_BYTES
"""Bytes that passed for nothing: of a chunk that was not whole, and what the receiver had not looked at."""
WITH_FRAMES = 1.02
CONTENT = random.Random(5).randbytes(CHUNKS * CHUNK_BYTES + 4321)
QUICK = Backoff(retries=20, first_seconds=0.02, most_seconds=0.05)


def at_random(seed: int) -> Iterator[int]:
    """When the first connections break, in bytes."""
    rng = random.Random(seed)
    return iter([rng.randrange(2 * CHUNK_BYTES) for _ in range(CUTS)])


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[FolderBlobStore]:
    store = FolderBlobStore(tmp_path / "ours")
    yield store
    store.close()


def through(scene: Scene, proxy: CuttingProxy, streams: int) -> Session:
    consortium = scene.consortium
    return Session(proxy.address, consortium.genesis, consortium.tls("north"), streams=streams)


@pytest.mark.parametrize("streams", [1, 3])
def test_an_upload_cut_at_random_bytes_ends_whole_and_repeats_a_chunk_a_cut_at_most(
    scene: Scene, ours: FolderBlobStore, tmp_path: Path, streams: int
) -> None:
    (tmp_path / "content").write_bytes(CONTENT)
    ref = ours.ingest(tmp_path / "content", "blake3", move=False)
    cutting = CuttingProxy(scene.addresses.work, at_random(streams))
    with cutting as proxy, through(scene, proxy, streams) as session, ours.open(ref) as reader:
        assert session.upload(reader, ROUND, TransferOptions(backoff=QUICK)) is True
    store = scene.consortium.store
    assert store.path(ref).read_bytes() == CONTENT
    assert proxy.cuts >= CUTS - streams
    assert scene.ports.moved.up == {"north": len(CONTENT)}
    assert proxy.up <= WITH_FRAMES * len(CONTENT) + proxy.cuts * LOST_BY_A_CUT


@pytest.mark.parametrize("streams", [1, 3])
def test_a_download_cut_at_random_bytes_ends_whole_and_repeats_a_chunk_a_cut_at_most(
    scene: Scene, ours: FolderBlobStore, streams: int
) -> None:
    ref = scene.consortium.blob(CONTENT, "north")
    with CuttingProxy(scene.addresses.work, at_random(streams)) as proxy, through(scene, proxy, streams) as session:
        assert session.download(ref, ours, "north", TransferOptions(backoff=QUICK)) is True
    assert ours.path(ref).read_bytes() == CONTENT
    assert proxy.cuts >= CUTS - streams
    assert proxy.down <= WITH_FRAMES * len(CONTENT) + proxy.cuts * LOST_BY_A_CUT
