"""Uploads of what can be fetched again: no wait for the disk, and old files written over in place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from common.blobs.reference import CHUNK_BYTES
from common.blobs.store import FolderBlobStore
from tests.support.blobs import put_blob, read_blob
from tests.unit.common.blobs.conftest import Content


def test_a_blob_that_can_be_fetched_again_waits_for_no_disk(
    store: FolderBlobStore, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = store.begin(content.ref, content.leaves, owner="north", durable=False)
    for chunk in range(3):
        upload.write(chunk, content.chunk(chunk))
    store.path(content.ref).parent.mkdir(parents=True)
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    assert upload.finish() is True
    assert synced == []
    assert read_blob(store, content.ref) == content.data


def test_what_the_disk_lost_is_found_at_the_next_start(store: FolderBlobStore, content: Content) -> None:
    whole, damaged, cut = (put_blob(store, data) for data in (b"whole", content.data, b"cut short"))
    with store.path(damaged).open("r+b") as file:
        file.seek(CHUNK_BYTES)
        file.write(bytes(100))
    os.truncate(store.path(cut), 3)
    assert {ref.root for ref in store.discard_damaged()} == {damaged.root, cut.root}
    assert [ref for ref, _ in store.list()] == [whole]


def test_a_blob_written_over_another_needs_only_the_chunks_that_differ(
    store: FolderBlobStore, content: Content
) -> None:
    old = put_blob(store, content.chunk(0) + bytes(CHUNK_BYTES) + content.chunk(2) + b"and more")
    inode = store.path(old).stat().st_ino
    upload = store.begin(content.ref, content.leaves, owner="north", instead_of=old)
    assert not store.contains(old)
    assert upload.missing() == [(1, 2)]  # the third was longer
    upload.write(1, content.chunk(1))
    upload.write(2, content.chunk(2))
    assert upload.finish() is True
    assert read_blob(store, content.ref) == content.data
    assert store.path(content.ref).stat().st_ino == inode


def test_a_blob_whose_file_has_another_name_is_not_written_over(
    store: FolderBlobStore, content: Content, tmp_path: Path
) -> None:
    old = put_blob(store, b"a base model that a worker reads")
    os.link(store.path(old), tmp_path / "base.safetensors")
    upload = store.begin(content.ref, content.leaves, owner="north", instead_of=old)
    assert upload.missing() == [(0, 3)]
    assert read_blob(store, old) == b"a base model that a worker reads"


def test_an_upload_that_a_crash_interrupted_goes_on_and_the_old_blob_only_goes(
    store: FolderBlobStore, content: Content, tmp_path: Path
) -> None:
    old = put_blob(store, b"old")
    store.begin(content.ref, content.leaves, owner="north").write(0, content.chunk(0))
    restarted = FolderBlobStore(tmp_path / "blobs")
    assert restarted.begin(content.ref, content.leaves, owner="north", instead_of=old).missing() == [(1, 2)]
    assert not restarted.contains(old)
