"""The folder: what is in it, who may read it, how things come in and go."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from common.blobs.reader import BlobReader, BlobStream, chunk_buffer
from common.blobs.reference import CHUNK_BYTES, BlobRef, DigestName
from common.blobs.store import FolderBlobStore
from common.errors import (
    BadBlobReference,
    CorruptChunk,
    MissingBlob,
    StorageFailure,
    TruncatedChunk,
)
from tests.support.blobs import leaves_and_ref, put_blob, read_blob
from tests.unit.common.blobs.conftest import Content


@pytest.mark.parametrize("algorithm", ["blake3", "sha256"])
@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1])
def test_what_is_written_is_read_again(store: FolderBlobStore, algorithm: DigestName, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    ref = put_blob(store, data, algorithm)
    assert (store.leaves(ref), ref) == leaves_and_ref(data, algorithm)
    assert store.contains(ref)
    assert read_blob(store, ref) == data


def test_a_writer_hashes_across_pieces_of_any_length(store: FolderBlobStore, content: Content) -> None:
    with store.writer("blake3") as writer:
        position = 0
        for length in (1, 5_000_000, 0, 3_000_000, 10**9):
            writer.write(memoryview(content.data)[position : position + length])
            position += length
        assert writer.commit() == content.ref
    assert read_blob(store, content.ref) == content.data


def test_an_abandoned_writer_leaves_nothing(store: FolderBlobStore, tmp_path: Path) -> None:
    with store.writer("blake3") as writer:
        writer.write(b"half")
    assert list((tmp_path / "blobs" / "writing").iterdir()) == []
    assert list(store.list()) == []


def test_a_crashed_writer_is_swept_at_start(store: FolderBlobStore, tmp_path: Path) -> None:
    writer = store.writer("blake3")
    writer.write(b"half")
    store.discard_unfinished_writers()
    assert list((tmp_path / "blobs" / "writing").iterdir()) == []
    writer.abort()


def test_files_and_folders_are_the_owners_alone(store: FolderBlobStore, tmp_path: Path, content: Content) -> None:
    put_blob(store, b"abc")
    upload = store.begin(content.ref, content.leaves, owner="north")
    for index in range(3):
        upload.write(index, content.chunk(index))
    upload.finish()
    for path in (tmp_path / "blobs").rglob("*"):
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path
    assert stat.S_IMODE((tmp_path / "blobs").stat().st_mode) == 0o700


def test_the_layout_is_the_documented_one(store: FolderBlobStore, tmp_path: Path) -> None:
    ref = put_blob(store, b"abc")
    folder = tmp_path / "blobs" / "blake3" / ref.root[:2]
    assert sorted(path.name for path in folder.iterdir()) == [f"{ref.root}.blob", f"{ref.root}.leaves"]
    assert store.path(ref) == folder / f"{ref.root}.blob"


def test_a_missing_blob_is_named(store: FolderBlobStore, content: Content) -> None:
    assert not store.contains(content.ref)
    with pytest.raises(MissingBlob, match=r"Blob blake3:.* is not in the blob folder\."):
        store.open(content.ref)
    with pytest.raises(MissingBlob, match="is not in"):
        store.leaves(content.ref)


def test_a_deleted_blob_is_gone_and_open_readers_keep_theirs(store: FolderBlobStore) -> None:
    ref = put_blob(store, b"abc")
    with store.open(ref) as reader:
        store.delete(ref)
        store.delete(ref)
        assert bytes(reader.read_chunk(0, chunk_buffer(ref))) == b"abc"
    assert not store.contains(ref)


def test_a_list_names_every_blob_with_its_time(store: FolderBlobStore) -> None:
    refs = {put_blob(store, b"abc"), put_blob(store, b"", "sha256")}
    assert {ref for ref, _ in store.list()} == refs
    one = next(iter(refs))
    os.utime(store.path(one), (5000, 5000))
    assert (one, 5000.0) in list(store.list())


def test_beginning_a_blob_again_makes_it_young(store: FolderBlobStore) -> None:
    leaves, ref = leaves_and_ref(b"abc")
    put_blob(store, b"abc")
    os.utime(store.path(ref), (5000, 5000))
    store.begin(ref, leaves, owner="north")
    [(_, modified)] = store.list()
    assert modified > 10**9


# --- reading ---------------------------------------------------------------------------------------------------------


def test_a_byte_changed_on_disk_is_found_when_its_chunk_is_read(store: FolderBlobStore, content: Content) -> None:
    ref = put_blob(store, content.data)
    with store.path(ref).open("r+b") as file:
        file.seek(CHUNK_BYTES + 3)
        file.write(b"\xff\xfe\xfd")
    with store.open(ref) as reader:
        reader.read_chunk(0, chunk_buffer(ref))
        with pytest.raises(CorruptChunk, match=r"Chunk 1 of blob blake3:.* was changed on disk"):
            reader.read_chunk(1, chunk_buffer(ref))


def test_a_file_cut_short_while_open_is_found(store: FolderBlobStore, content: Content) -> None:
    ref = put_blob(store, content.data)
    with store.open(ref) as reader:
        os.truncate(store.path(ref), 2 * CHUNK_BYTES)
        with pytest.raises(CorruptChunk, match=r"ends 1,000 bytes before the end of chunk 2"):
            reader.read_chunk(2, chunk_buffer(ref))


def test_a_file_cut_short_before_is_found_when_it_is_opened(store: FolderBlobStore, content: Content) -> None:
    ref = put_blob(store, content.data)
    os.truncate(store.path(ref), 10)
    assert not store.contains(ref)
    with pytest.raises(BadBlobReference, match="has 10 bytes") as caught:
        store.open(ref)
    assert "delete the blob and fetch it again" in caught.value.fix


def test_leaves_changed_on_disk_are_found_when_the_blob_is_opened(store: FolderBlobStore) -> None:
    ref = put_blob(store, b"abc")
    store.path(ref).with_suffix(".leaves").write_bytes(b"\0" * 32)
    with pytest.raises(BadBlobReference, match=f"expected {ref.root}"):
        store.open(ref)


def test_a_reader_needs_a_buffer_that_holds_the_chunk(store: FolderBlobStore) -> None:
    ref = put_blob(store, b"abc")
    with store.open(ref) as reader:
        with pytest.raises(ValueError, match="a buffer of 2 bytes for a chunk of 3"):
            reader.read_chunk(0, memoryview(bytearray(2)))
        with pytest.raises(IndexError, match="chunk 1 of a blob of 1 chunks"):
            reader.read_chunk(1, memoryview(bytearray(3)))


def test_a_reader_of_no_file_says_so(tmp_path: Path) -> None:
    leaves, ref = leaves_and_ref(b"abc")
    with pytest.raises(StorageFailure, match=r"Could not open .*nowhere: No such file"):
        BlobReader(tmp_path / "nowhere", ref, leaves)


def test_a_stream_gives_every_byte_in_pieces_of_any_length(store: FolderBlobStore, content: Content) -> None:
    with store.open(put_blob(store, content.data)) as reader:
        stream = BlobStream(reader)
        parts = [bytes(stream.take(1_000_003)) for _ in range(4)]
        assert len(parts[-1]) == CHUNK_BYTES - 3 * 1_000_003 or len(parts[-1]) == 1_000_003
        rest = bytearray(content.ref.size - stream.position)
        stream.read_into(memoryview(rest))
        assert b"".join(parts) + rest == content.data
        assert bytes(stream.take(10)) == b""
        with pytest.raises(TruncatedChunk, match=r"ends at byte 8,389,608, 5 bytes too early"):
            stream.read_into(memoryview(bytearray(5)))


# --- files that come in ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("move", [True, False])
def test_a_file_is_taken_in(store: FolderBlobStore, content: Content, tmp_path: Path, move: bool) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content.data)
    path.chmod(0o644)
    os.utime(path, (5000, 5000))
    ref = store.ingest(path, "blake3", move=move)
    assert ref == content.ref
    assert path.exists() is not move
    assert read_blob(store, ref) == content.data
    assert stat.S_IMODE(store.path(ref).stat().st_mode) == 0o600
    assert store.path(ref).stat().st_mtime > 10**9


def test_a_file_with_two_names_is_copied_so_that_the_other_name_changes_no_blob(
    store: FolderBlobStore, tmp_path: Path
) -> None:
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"abc")
    os.link(path, other)
    ref = store.ingest(path, "blake3", move=True)
    other.write_bytes(b"xyz")
    assert read_blob(store, ref) == b"abc"
    assert not path.exists()


def test_a_link_is_not_followed(store: FolderBlobStore, tmp_path: Path) -> None:
    secret = tmp_path / "signing.key.pem"
    secret.write_bytes(b"secret")
    link = tmp_path / "delta.safetensors"
    link.symlink_to(secret)
    with pytest.raises(StorageFailure, match=r"Could not open .*delta\.safetensors"):
        store.ingest(link, "blake3", move=True)
    assert list(store.list()) == []


def test_a_pipe_or_folder_is_not_waited_for(store: FolderBlobStore, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(StorageFailure, match="is not a regular file"):
            store.ingest(path, "blake3", move=False)


def test_the_same_content_twice_is_one_blob(store: FolderBlobStore) -> None:
    first, second = put_blob(store, b"abc"), put_blob(store, b"abc")
    assert first == second
    assert isinstance(first, BlobRef)
    assert len(list(store.list())) == 1


def test_a_blob_whose_leaf_list_is_gone_is_not_there_and_may_be_sent_again(
    store: FolderBlobStore, content: Content
) -> None:
    put_blob(store, content.data)
    store.path(content.ref).with_suffix(".leaves").unlink()
    assert not store.contains(content.ref)
    upload = store.begin(content.ref, content.leaves, owner="north")
    for index in range(content.ref.chunks):
        upload.write(index, content.chunk(index))
    assert upload.finish()
    assert read_blob(store, content.ref) == content.data


def test_a_blob_that_was_begun_again_is_not_deleted_as_old(store: FolderBlobStore, content: Content) -> None:
    put_blob(store, content.data)
    os.utime(store.path(content.ref), (1000, 1000))
    store.begin(content.ref, content.leaves, owner="north")
    store.delete(content.ref, older_than=2000)
    assert store.contains(content.ref)
    os.utime(store.path(content.ref), (1000, 1000))
    store.delete(content.ref, older_than=2000)
    assert not store.contains(content.ref)


def test_a_file_that_is_no_blob_is_not_listed(tmp_path: Path) -> None:
    store = FolderBlobStore(tmp_path)
    stray = tmp_path / "blake3" / "ab" / "notes.blob"
    stray.parent.mkdir(parents=True)
    stray.write_text("not ours")
    assert list(store.list()) == []
