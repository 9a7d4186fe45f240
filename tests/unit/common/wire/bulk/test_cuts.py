"""Transfers over bulk connections that are cut at random bytes: they end whole, and little passes twice."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from common.blobs.reference import CHUNK_BYTES
from common.blobs.store import FolderBlobStore
from common.wire.session import Session
from common.wire.transfer import Backoff, TransferOptions
from tests.support.api import ROUND, Scene
from tests.support.blobs import put_blob
from tests.support.cuts import CuttingProxy

CHUNKS = 10
CUTS = 6
LOST_BY_A_CUT = CHUNK_BYTES
"""Bytes that passed for nothing: of a chunk that was not whole."""
WITH_FRAMES = 1.02
CONTENT = random.Random(5).randbytes(CHUNKS * CHUNK_BYTES + 4321)
QUICK = Backoff(retries=20, first_seconds=0.02, most_seconds=0.05)


def at_random(seed: int) -> Iterator[int]:
    """When the first connections break, in bytes. Together they have room for far more than what may pass twice."""
    rng = random.Random(seed)
    return iter([rng.randrange(CHUNK_BYTES // 2, 3 * CHUNK_BYTES) for _ in range(CUTS)])


def through(scene: Scene, proxy: CuttingProxy, streams: int) -> Session:
    consortium = scene.consortium
    genesis, files = consortium.genesis, consortium.tls("north")
    return Session(scene.addresses.work, genesis, files, streams=streams, bulk=proxy.port)


@pytest.mark.parametrize("streams", [2, 4])
def test_an_upload_cut_at_random_bytes_ends_whole_and_repeats_a_chunk_a_cut_at_most(
    scene: Scene, ours: FolderBlobStore, calls: Counter[tuple[str, str]], streams: int
) -> None:
    ref = put_blob(ours, CONTENT)
    cutting = CuttingProxy(scene.addresses.bulk or "", at_random(streams))
    with cutting as proxy, through(scene, proxy, streams) as session, ours.open(ref) as reader:
        assert session.upload(reader, ROUND, TransferOptions(backoff=QUICK)) is True
    assert scene.consortium.store.path(ref).read_bytes() == CONTENT
    assert proxy.cuts >= CUTS - streams
    assert scene.ports.moved.up == {"north": len(CONTENT)}
    assert proxy.up <= WITH_FRAMES * len(CONTENT) + proxy.cuts * LOST_BY_A_CUT
    assert set(calls) == {("Put", "bulk")}


@pytest.mark.parametrize("streams", [2, 4])
def test_a_download_cut_at_random_bytes_ends_whole_and_repeats_a_chunk_a_cut_at_most(
    scene: Scene, ours: FolderBlobStore, calls: Counter[tuple[str, str]], streams: int
) -> None:
    ref = scene.consortium.blob(CONTENT, "north")
    cutting = CuttingProxy(scene.addresses.bulk or "", at_random(streams))
    with cutting as proxy, through(scene, proxy, streams) as session:
        assert session.download(ref, ours, "north", TransferOptions(backoff=QUICK)) is True
    assert ours.path(ref).read_bytes() == CONTENT
    assert proxy.cuts >= CUTS - streams
    assert proxy.down <= WITH_FRAMES * len(CONTENT) + proxy.cuts * LOST_BY_A_CUT
    assert set(calls) == {("Get", "bulk")}
