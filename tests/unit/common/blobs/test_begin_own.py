"""Who must have the bytes itself: what others sent counts for nothing, and nothing is stored twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.blobs.proof import Proof
from common.blobs.store import FolderBlobStore
from common.errors import CorruptChunk, InvalidName, MissingBlob, TruncatedChunk
from tests.support.blobs import leaves_and_ref, put_blob
from tests.unit.common.blobs.conftest import Content


def send(store: FolderBlobStore, content: Content, owner: str) -> None:
    upload = store.begin_own(content.ref, content.leaves, owner=owner)
    for first, count in upload.missing():
        for chunk in range(first, first + count):
            upload.write(chunk, content.chunk(chunk))
    assert upload.finish()


def test_who_sent_every_chunk_is_remembered_also_after_a_restart(store: FolderBlobStore, content: Content) -> None:
    send(store, content, "north")
    again = FolderBlobStore(store._root)
    assert (again.has_sent("north", content.ref), again.has_sent("south", content.ref)) == (True, False)
    assert again.begin_own(content.ref, content.leaves, owner="north").missing() == []


def test_a_blob_that_another_sent_misses_everything_until_it_was_sent_again(
    store: FolderBlobStore, content: Content
) -> None:
    send(store, content, "north")
    before = store.path(content.ref).stat()
    proof = store.begin_own(content.ref, content.leaves, owner="south")
    assert isinstance(proof, Proof)
    assert proof.missing() == [(0, 3)]
    proof.write(1, content.chunk(1))
    assert (proof.missing(), proof.finish()) == ([(0, 1), (2, 1)], False)
    assert store.begin_own(content.ref, content.leaves, owner="south") is proof
    for chunk in (0, 2):
        proof.write(chunk, content.chunk(chunk))
    assert proof.finish()
    assert store.has_sent("south", content.ref)
    after = store.path(content.ref).stat()
    assert (after.st_ino, after.st_mtime) == (before.st_ino, pytest.approx(before.st_mtime, abs=60))
    assert store.unfinished("south") == (0, 0)


def test_two_who_send_the_same_at_once_have_both_sent_it(store: FolderBlobStore, content: Content) -> None:
    uploads = [store.begin_own(content.ref, content.leaves, owner=name) for name in ("north", "south")]
    for chunk in range(3):
        for upload in uploads:
            upload.write(chunk, content.chunk(chunk))
    assert [upload.finish() for upload in uploads] == [True, True]
    assert [store.has_sent(name, content.ref) for name in ("north", "south", "east")] == [True, True, False]


def test_a_blob_that_came_on_another_way_proves_nothing(store: FolderBlobStore, content: Content) -> None:
    put_blob(store, content.data)
    assert store.begin(content.ref, content.leaves, owner="north").missing() == []
    assert not store.has_sent("north", content.ref)
    assert store.begin_own(content.ref, content.leaves, owner="north").missing() == [(0, 3)]


def test_a_proof_takes_the_very_bytes_only(store: FolderBlobStore, content: Content) -> None:
    send(store, content, "north")
    proof = store.begin_own(content.ref, content.leaves, owner="south")
    with pytest.raises(CorruptChunk, match=r"Chunk 2 of blob .* does not have the digest that its leaf list names"):
        proof.write(2, bytes(len(content.chunk(2))))
    with pytest.raises(TruncatedChunk, match=r"Chunk 2 of blob .* came with 4,194,304 bytes, expected 1,000"):
        proof.write(2, content.chunk(1))
    with pytest.raises(TruncatedChunk, match="Chunk 3 lies beyond the end of blob"):
        proof.write(3, content.chunk(1))
    assert proof.missing() == [(0, 3)]


def test_a_blob_that_is_deleted_is_forgotten_with_its_senders(store: FolderBlobStore, content: Content) -> None:
    send(store, content, "north")
    proof = store.begin_own(content.ref, content.leaves, owner="south")
    for chunk in range(3):
        proof.write(chunk, content.chunk(chunk))
    store.delete(content.ref)
    with pytest.raises(MissingBlob, match=r"was deleted while it was sent again\."):
        proof.finish()
    assert not store.has_sent("north", content.ref)


def test_what_was_let_go_of_is_begun_again_and_goes_on(store: FolderBlobStore, content: Content) -> None:
    upload = store.begin_own(content.ref, content.leaves, owner="north")
    upload.write(0, content.chunk(0))
    store.let_go("north", content.ref)
    with pytest.raises(MissingBlob, match=r"was let go of: begin it again\."):
        upload.write(1, content.chunk(1))
    assert store.begin_own(content.ref, content.leaves, owner="north").missing() == [(1, 2)]


def test_an_empty_blob_is_sent_by_whoever_begins_it(store: FolderBlobStore) -> None:
    leaves, ref = leaves_and_ref(b"")
    for name in ("north", "south"):
        assert store.begin_own(ref, leaves, owner=name).finish()
        assert store.has_sent(name, ref)


@pytest.mark.parametrize("owner", ["", "..", "../north", "north/south", "NORTH", "n" * 64, "north\0", "nоrth"])
def test_an_owner_that_is_no_name_is_refused(
    store: FolderBlobStore, content: Content, owner: str, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InvalidName):
        store.begin_own(content.ref, content.leaves, owner=owner)
    with pytest.raises(InvalidName):
        store.has_sent(owner, content.ref)
    assert sorted(tmp_path.rglob("*")) == before
