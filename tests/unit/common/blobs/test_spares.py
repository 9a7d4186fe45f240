"""Files that are written over: what they held never shows, and readers keep what they read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from common.blobs.reader import chunk_buffer
from common.blobs.reference import BlobRef
from common.blobs.store import FolderBlobStore
from tests.support.blobs import leaves_and_ref, put_blob, read_blob
from tests.unit.common.blobs.conftest import Content


def inode(path: Path) -> int:
    return path.stat().st_ino


def spares(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "blobs" / "spare").glob("*"))


@pytest.fixture
def old(store: FolderBlobStore, content: Content) -> BlobRef:
    """A larger blob that was given up."""
    return put_blob(store, content.data[::-1] + b"more", "blake3")


def test_an_upload_is_written_over_a_retired_blob(store: FolderBlobStore, content: Content, old: BlobRef) -> None:
    file = inode(store.path(old))
    store.retire(old)
    assert not store.contains(old)
    assert store.spare_bytes() == old.size
    upload = store.begin(content.ref, content.leaves, owner="north")
    assert upload.missing() == [(0, 3)]
    for index in range(3):
        upload.write(index, content.chunk(index))
    assert upload.finish()
    assert read_blob(store, content.ref) == content.data
    assert inode(store.path(content.ref)) == file
    assert store.spare_bytes() == 0


def test_what_a_spare_holds_counts_for_nothing(store: FolderBlobStore, content: Content) -> None:
    """Also where it is the very blob that is sent again."""
    put_blob(store, content.data, "blake3")
    store.retire(content.ref)
    assert store.begin(content.ref, content.leaves, owner="north").missing() == [(0, 3)]


def test_after_a_crash_only_verified_chunks_are_there(
    store: FolderBlobStore, content: Content, old: BlobRef, tmp_path: Path
) -> None:
    store.retire(old)
    upload = store.begin(content.ref, content.leaves, owner="north")
    upload.write(1, content.chunk(1))
    upload.incoming(2).write(content.chunk(2)[:10])
    store.close()
    again = FolderBlobStore(tmp_path / "blobs")
    assert again.begin(content.ref, content.leaves, owner="north").missing() == [(0, 1), (2, 1)]
    again.close()


def test_a_writer_writes_over_a_retired_blob(store: FolderBlobStore, content: Content, old: BlobRef) -> None:
    file = inode(store.path(old))
    store.retire(old)
    with store.writer("blake3", about=len(content.data)) as writer:
        writer.write(content.data)
        assert writer.commit() == content.ref
    assert read_blob(store, content.ref) == content.data
    assert inode(store.path(content.ref)) == file


def test_the_file_of_the_nearest_size_is_taken(store: FolderBlobStore) -> None:
    refs = [put_blob(store, bytes([size]) * (size * 1000), "blake3") for size in (1, 2, 3)]
    files = {ref.size: inode(store.path(ref)) for ref in refs}
    for ref in refs:
        store.retire(ref)
    with store.writer("blake3", about=2100) as writer:
        writer.write(b"x" * 2100)
        ref = writer.commit()
    assert inode(store.path(ref)) == files[2000]


def test_open_readers_keep_theirs(store: FolderBlobStore, content: Content, old: BlobRef) -> None:
    buffer = chunk_buffer(old)
    with store.open(old) as reader:
        before = bytes(reader.read_chunk(1, buffer))
        store.retire(old)
        assert store.spare_bytes() == 0
        with store.writer("blake3") as writer:
            writer.write(content.data)
            writer.commit()
        assert bytes(reader.read_chunk(1, buffer)) == before


def test_a_file_with_a_second_name_is_left_alone(store: FolderBlobStore, old: BlobRef, tmp_path: Path) -> None:
    other = tmp_path / "base.safetensors"
    os.link(store.path(old), other)
    content = other.read_bytes()
    store.retire(old)
    assert store.spare_bytes() == 0
    assert other.read_bytes() == content


def test_a_spare_is_lent_once_and_comes_back(store: FolderBlobStore, old: BlobRef, tmp_path: Path) -> None:
    store.retire(old)
    lent = tmp_path / "delta.spare"
    store.lend(old.size, lent)
    assert lent.stat().st_size == old.size
    store.lend(old.size, lent)
    with lent.open("r+b") as file:
        file.write(b"new")
        file.truncate(3)
    assert store.ingest(lent, "blake3", move=True) == leaves_and_ref(b"new", "blake3")[1]


def test_nothing_is_left_when_spares_are_dropped(store: FolderBlobStore, old: BlobRef, tmp_path: Path) -> None:
    store.retire(old)
    store.retire(old)  # gone already
    assert [path.stat().st_mode & 0o777 for path in spares(tmp_path)] == [0o600]
    store.drop_spares()
    assert spares(tmp_path) == []


def test_no_more_files_are_kept_to_be_written_over_than_a_round_takes(tmp_path: Path) -> None:
    store = FolderBlobStore(tmp_path / "blobs", most_spares=2)
    for ref in [put_blob(store, bytes([number]) * 100, "blake3") for number in range(5)]:
        store.retire(ref)
    assert len(spares(tmp_path)) == 2
    assert store.spare_bytes() == 200
