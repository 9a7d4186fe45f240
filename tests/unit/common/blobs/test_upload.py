"""Uploads: chunks in any order, several threads, crashes."""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.blobs.store import FolderBlobStore
from common.errors import (
    BadBlobReference,
    CorruptChunk,
    InvalidName,
    MissingBlob,
    StorageFailure,
    TruncatedChunk,
)
from tests.support.blobs import leaves_and_ref, put_blob, read_blob
from tests.unit.common.blobs.conftest import Content


def part(root: Path, owner: str, ref: BlobRef) -> Path:
    return root / "partial" / owner / f"{ref.algorithm}-{ref.root}.part"


def test_chunks_in_any_order_make_the_blob(store: FolderBlobStore, content: Content) -> None:
    upload = store.begin(content.ref, content.leaves, owner="north")
    assert upload.missing() == [(0, 3)]
    upload.write(1, memoryview(content.chunk(1)))
    assert upload.missing() == [(0, 1), (2, 1)]
    assert upload.finish() is False
    assert not store.contains(content.ref)
    upload.write(2, content.chunk(2))
    upload.write(0, content.chunk(0))
    assert upload.missing() == []
    assert upload.finish() is True
    assert read_blob(store, content.ref) == content.data
    assert store.leaves(content.ref) == content.leaves


def test_a_corrupt_chunk_is_refused_and_nothing_of_it_kept(store: FolderBlobStore, content: Content) -> None:
    upload = store.begin(content.ref, content.leaves, owner="north")
    damaged = bytearray(content.chunk(0))
    damaged[17] ^= 1
    with pytest.raises(CorruptChunk, match=r"Chunk 0 of blob blake3:.* does not have the digest"):
        upload.write(0, damaged)
    assert upload.missing() == [(0, 3)]
    upload.write(0, content.chunk(0))
    assert upload.missing() == [(1, 2)]


def test_a_truncated_chunk_is_refused(store: FolderBlobStore, content: Content) -> None:
    upload = store.begin(content.ref, content.leaves, owner="north")
    with pytest.raises(TruncatedChunk, match=r"Chunk 2 .* came with 999 bytes, expected 1,000"):
        upload.write(2, content.chunk(2)[:-1])
    with pytest.raises(TruncatedChunk, match=r"came with 4,194,304 bytes, expected 1,000"):
        upload.write(2, content.chunk(0))


@pytest.mark.parametrize("index", [3, -1, 2**40])
def test_a_chunk_beyond_the_end_is_refused(store: FolderBlobStore, content: Content, index: int) -> None:
    upload = store.begin(content.ref, content.leaves, owner="north")
    with pytest.raises(TruncatedChunk, match=r"lies beyond the end of blob .* which has 3 chunks"):
        upload.write(index, b"x")


def test_leaves_that_do_not_fit_are_refused_before_anything_is_written(
    store: FolderBlobStore, content: Content
) -> None:
    with pytest.raises(BadBlobReference, match="expected 96 for 3 chunks"):
        store.begin(content.ref, content.leaves[:32], owner="north")
    assert store.usage("north") == 0


@pytest.mark.parametrize("owner", ["../north", "", "North", "a/b", "."])
def test_an_owner_that_is_no_name_is_refused(store: FolderBlobStore, content: Content, owner: str) -> None:
    with pytest.raises(InvalidName, match="is not a name"):
        store.begin(content.ref, content.leaves, owner=owner)
    with pytest.raises(InvalidName, match="is not a name"):
        store.discard_uploads(owner)


def test_a_blob_that_is_there_misses_nothing(store: FolderBlobStore, content: Content) -> None:
    put_blob(store, content.data)
    upload = store.begin(content.ref, content.leaves, owner="north")
    assert upload.missing() == []
    upload.write(1, content.chunk(1))
    assert upload.finish() is True
    assert store.usage("north") == 0


def test_an_empty_blob_is_whole_at_once(store: FolderBlobStore) -> None:
    leaves, ref = leaves_and_ref(b"")
    upload = store.begin(ref, leaves, owner="north")
    assert upload.missing() == []
    assert upload.finish() is True
    assert read_blob(store, ref) == b""


def test_two_streams_of_one_owner_share_an_upload(store: FolderBlobStore, content: Content) -> None:
    first = store.begin(content.ref, content.leaves, owner="north")
    second = store.begin(content.ref, content.leaves, owner="north")
    first.write(0, content.chunk(0))
    assert second.missing() == [(1, 2)]
    second.write(1, content.chunk(1))
    second.write(2, content.chunk(2))
    assert first.finish() is True
    assert second.finish() is True


def test_two_owners_of_one_blob_do_not_share_and_both_finish(store: FolderBlobStore, content: Content) -> None:
    north = store.begin(content.ref, content.leaves, owner="north")
    south = store.begin(content.ref, content.leaves, owner="south")
    for index in range(3):
        north.write(index, content.chunk(index))
    assert south.missing() == [(0, 3)]
    assert north.finish() is True
    for index in range(3):
        south.write(index, content.chunk(index))
    assert south.finish() is True
    assert read_blob(store, content.ref) == content.data


def test_many_threads_may_send_the_same_chunks_at_once(store: FolderBlobStore, content: Content) -> None:
    threads = 6
    start = threading.Barrier(threads)

    def stream(number: int) -> bool:
        start.wait()
        upload = store.begin(content.ref, content.leaves, owner="north")
        for step in range(3):
            index = (number + step) % 3
            upload.write(index, content.chunk(index))
        return upload.finish()

    with ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(stream, range(threads)))
    assert any(results), "who ends last finds it whole; another's last chunk may just be coming once more"
    assert store.begin(content.ref, content.leaves, owner="north").finish() is True
    assert read_blob(store, content.ref) == content.data
    assert len(list(store.path(content.ref).parent.iterdir())) == 2


def test_after_a_crash_only_missing_chunks_are_asked_for(
    store: FolderBlobStore, content: Content, tmp_path: Path
) -> None:
    upload = store.begin(content.ref, content.leaves, owner="north")
    upload.write(1, content.chunk(1))
    store.close()
    restarted = FolderBlobStore(tmp_path / "blobs")
    again = restarted.begin(content.ref, content.leaves, owner="north")
    assert again.missing() == [(0, 1), (2, 1)]
    again.write(0, content.chunk(0))
    again.write(2, content.chunk(2))
    assert again.finish() is True
    assert read_blob(restarted, content.ref) == content.data


def test_what_a_power_failure_damaged_is_asked_for_again(
    store: FolderBlobStore, content: Content, tmp_path: Path
) -> None:
    upload = store.begin(content.ref, content.leaves, owner="north")
    for index in range(3):
        upload.write(index, content.chunk(index))
    store.close()
    path = part(tmp_path / "blobs", "north", content.ref)
    with path.open("r+b") as file:
        file.seek(CHUNK_BYTES + 5)
        file.write(b"\0" * 4096)
        file.truncate(2 * CHUNK_BYTES + 10)
    restarted = FolderBlobStore(tmp_path / "blobs")
    assert restarted.begin(content.ref, content.leaves, owner="north").missing() == [(1, 2)]
    restarted.close()


def test_usage_counts_what_unfinished_uploads_reserve(store: FolderBlobStore, content: Content) -> None:
    upload = store.begin(content.ref, content.leaves, owner="north")
    assert store.usage("north") == content.ref.size
    assert store.usage("south") == 0
    for index in range(3):
        upload.write(index, content.chunk(index))
    upload.finish()
    assert store.usage("north") == 0


def test_discarded_uploads_are_gone_and_their_streams_told(
    store: FolderBlobStore, content: Content, tmp_path: Path
) -> None:
    upload = store.begin(content.ref, content.leaves, owner="north")
    upload.write(0, content.chunk(0))
    kept = store.begin(content.ref, content.leaves, owner="south")
    assert store.upload_owners() == ("north", "south")
    store.discard_uploads("north")
    with pytest.raises(MissingBlob, match="was discarded while parts of it still came"):
        upload.write(1, content.chunk(1))
    with pytest.raises(MissingBlob, match="was discarded"):
        upload.finish()
    assert store.usage("north") == 0
    assert store.begin(content.ref, content.leaves, owner="north").missing() == [(0, 3)]
    kept.write(0, content.chunk(0))
    assert kept.missing() == [(1, 2)]


def test_discarding_spares_uploads_that_were_written_to_lately(
    store: FolderBlobStore, content: Content, tmp_path: Path
) -> None:
    store.begin(content.ref, content.leaves, owner="north")
    path = part(tmp_path / "blobs", "north", content.ref)
    os.utime(path, (1000, 1000))
    store.discard_uploads("north", older_than=1000)
    assert path.exists()
    store.discard_uploads("north", older_than=1001)
    assert not path.exists()


def test_leftovers_of_an_earlier_process_are_discarded_too(
    store: FolderBlobStore, content: Content, tmp_path: Path
) -> None:
    store.begin(content.ref, content.leaves, owner="north")
    store.close()
    restarted = FolderBlobStore(tmp_path / "blobs")
    assert restarted.usage("north") == content.ref.size
    restarted.discard_uploads("north")
    assert restarted.usage("north") == 0


def test_a_blob_gets_its_name_only_after_its_bytes_are_durable(
    store: FolderBlobStore, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def recording_fsync(fd: int) -> None:
        events.append("fsync folder" if os.path.isdir(f"/proc/self/fd/{fd}") else "fsync file")
        fsync(fd)

    def recording_replace(source: Path, target: Path) -> None:
        events.append(f"rename {Path(target).suffix}")
        replace(source, target)

    upload = store.begin(content.ref, content.leaves, owner="north")
    for index in range(3):
        upload.write(index, content.chunk(index))
    store.path(content.ref).parent.mkdir(parents=True)
    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(os, "replace", recording_replace)
    assert upload.finish() is True
    if Path("/proc/self/fd").exists():
        assert events == ["fsync file", "fsync file", "rename .leaves", "rename .blob", "fsync folder"]


def test_a_full_disk_is_a_clear_error_and_the_chunk_stays_missing(
    store: FolderBlobStore, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: memoryview, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    upload = store.begin(content.ref, content.leaves, owner="north")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(StorageFailure, match=r"Could not write .*\.part: No space left on device"):
            upload.write(0, content.chunk(0))
    assert upload.missing() == [(0, 3)]
    upload.write(0, content.chunk(0))
    assert upload.missing() == [(1, 2)]


def test_the_same_root_with_another_size_is_refused(store: FolderBlobStore, content: Content) -> None:
    lying = BlobRef(algorithm="blake3", size=content.ref.size + 1, root=content.ref.root)
    upload = store.begin(content.ref, content.leaves, owner="north")
    with pytest.raises(BadBlobReference, match="is being sent with size"):
        store.begin(lying, content.leaves, owner="north")
    for index in range(3):
        upload.write(index, content.chunk(index))
    upload.finish()
    with pytest.raises(BadBlobReference, match="has 8,389,608 bytes"):
        store.begin(lying, content.leaves, owner="north")
    assert not store.contains(lying)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts file descriptors through /proc")
def test_no_file_stays_open_after_finish_or_discard(store: FolderBlobStore, content: Content) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    upload = store.begin(content.ref, content.leaves, owner="north")
    store.begin(content.ref, content.leaves, owner="south")
    for index in range(3):
        upload.write(index, content.chunk(index))
    upload.finish()
    store.discard_uploads("south")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_blobs_age_counts_from_when_it_was_whole_in_its_place(store: FolderBlobStore, content: Content) -> None:
    """Its last chunk may have come hours before a disk that was full let it be finished."""
    upload = store.begin(content.ref, content.leaves, owner="north")
    for index in range(3):
        upload.write(index, content.chunk(index))
    partial = next(store._partial.glob("north/*.part"))
    os.utime(partial, (1000, 1000))
    assert upload.finish()
    assert store.path(content.ref).stat().st_mtime > 1_000_000


def test_letting_go_waits_for_whoever_writes(store: FolderBlobStore, content: Content) -> None:
    """A descriptor closed under a writer could by then be another file's."""
    upload = store.begin(content.ref, content.leaves, owner="north")
    incoming = upload.incoming(0)
    upload.close()
    assert upload._fd >= 0
    incoming.write(content.chunk(0))
    incoming.finish()
    assert upload._fd == -1
    with pytest.raises(MissingBlob, match=r"was let go of: begin it again\."):
        upload.write(1, content.chunk(1))
    assert upload.missing() == [(1, 2)]


def test_a_chunk_may_come_in_pieces(store: FolderBlobStore, content: Content) -> None:
    upload = store.begin(content.ref, content.leaves, owner="north")
    incoming, chunk = upload.incoming(1), content.chunk(1)
    for start in range(0, len(chunk), 1_000_000):
        incoming.write(chunk[start : start + 1_000_000])
        assert (1, 1) in [(first, min(count, 1)) for first, count in upload.missing()] or (0, 3) in upload.missing()
    incoming.finish()
    assert upload.missing() == [(0, 1), (2, 1)]


def test_of_two_streams_with_one_chunk_the_later_one_writes(store: FolderBlobStore, content: Content) -> None:
    """The earlier one's connection may be dead without anybody's knowing it; and what it writes late must not spoil a chunk."""
    upload = store.begin(content.ref, content.leaves, owner="north")
    chunk = content.chunk(0)
    stale = upload.incoming(0)
    stale.write(chunk[:1000])
    later = upload.incoming(0)
    later.write(chunk)
    later.finish()
    stale.write(b"!" * 1000)
    assert upload.missing() == [(1, 2)]
    for index in (1, 2):
        upload.write(index, content.chunk(index))
    assert upload.finish()
    assert store.path(content.ref).read_bytes() == content.data


def test_a_chunk_given_up_is_missing_as_before(store: FolderBlobStore, content: Content) -> None:
    upload = store.begin(content.ref, content.leaves, owner="north")
    incoming = upload.incoming(0)
    incoming.write(content.chunk(0))
    incoming.abandon()
    assert upload.missing() == [(0, 3)]
    upload.write(0, content.chunk(0))
    assert upload.missing() == [(1, 2)]


def test_wrong_bytes_in_pieces_count_for_nothing(store: FolderBlobStore, content: Content) -> None:
    upload = store.begin(content.ref, content.leaves, owner="north")
    incoming = upload.incoming(0)
    incoming.write(b"!" * len(content.chunk(0)))
    with pytest.raises(CorruptChunk):
        incoming.finish()
    assert upload.missing() == [(0, 3)]
    with pytest.raises(TruncatedChunk, match="expected"):
        upload.incoming(0).write(b"!" * (len(content.chunk(0)) + 1))
    short = upload.incoming(0)
    short.write(b"!")
    with pytest.raises(TruncatedChunk, match="came with 1 bytes"):
        short.finish()


def test_a_chunk_whose_observer_fails_is_missing_and_can_come_again(store: FolderBlobStore, content: Content) -> None:
    upload = store.begin(content.ref, content.leaves, owner="north")
    failing = [True]

    def observe(chunk: int) -> None:
        if failing.pop():
            raise StorageFailure("The disk could not be read.")

    upload.when_chunk_came(observe)
    with pytest.raises(StorageFailure):
        upload.write(0, content.chunk(0))
    assert upload.missing() == [(0, 3)]
    failing.append(False)
    upload.write(0, content.chunk(0))
    assert upload.missing() == [(1, 2)]
