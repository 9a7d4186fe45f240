from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.blobs.store import FolderBlobStore
from common.errors import (
    BadBlobReference,
    BlobTooLarge,
    CorruptChunk,
    MissingBlob,
    StorageFailure,
    TooManyRequests,
)
from coordinator.api.intake import MOST_UNFINISHED, MOST_UPLOADS_A_MEMBER, RESERVED_BYTES, Intake
from tests.support.blobs import leaves_and_ref


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FolderBlobStore]:
    made = FolderBlobStore(tmp_path / "store")
    yield made
    made.close()


def a_blob(folder: Path, content: bytes) -> tuple[BlobRef, bytes]:
    """A reference and its leaf list, from another store."""
    elsewhere = FolderBlobStore(folder / "elsewhere")
    (folder / "content").write_bytes(content)
    ref = elsewhere.ingest(folder / "content", "blake3", move=False)
    return ref, elsewhere.leaves(ref)


def test_a_begun_upload_is_found_until_it_is_whole(store: FolderBlobStore, tmp_path: Path) -> None:
    intake, (ref, leaves) = Intake(store), a_blob(tmp_path, b"content")
    assert intake.begin("north", ref, leaves) == [(0, 1)]
    upload = intake.find("north", ref)
    assert intake.finish("north", upload) is False
    upload.write(0, b"content")
    assert intake.finish("north", upload) is True
    assert store.contains(ref)
    assert intake.begin("north", ref, leaves) == []
    with pytest.raises(MissingBlob, match="north has not begun blob"):
        intake.find("north", ref)


def test_one_members_upload_is_not_anothers(store: FolderBlobStore, tmp_path: Path) -> None:
    intake, (ref, leaves) = Intake(store), a_blob(tmp_path, b"content")
    intake.begin("north", ref, leaves)
    with pytest.raises(MissingBlob, match="south has not begun blob") as error:
        intake.find("south", ref)
    assert error.value.fix == "Call Begin first."


def test_what_another_sent_must_be_sent_again_and_is_not_stored_twice(store: FolderBlobStore, tmp_path: Path) -> None:
    intake, (ref, leaves) = Intake(store), a_blob(tmp_path, b"content")
    intake.begin("north", ref, leaves)
    intake.find("north", ref).write(0, b"content")
    assert intake.finish("north", intake.find("north", ref))
    assert intake.begin("south", ref, leaves) == [(0, 1)]
    assert (store.has_sent("north", ref), store.has_sent("south", ref)) == (True, False)
    proof = intake.find("south", ref)
    with pytest.raises(CorruptChunk, match=r"Chunk 0 of blob .* does not have the digest that its leaf list names"):
        proof.write(0, b"guessed")
    assert not intake.finish("south", proof)
    proof.write(0, b"content")
    assert intake.finish("south", proof)
    assert store.has_sent("south", ref)
    assert store.unfinished("south") == (0, 0)
    assert intake.begin("south", ref, leaves) == []


def test_a_plans_blob_may_be_there_already(store: FolderBlobStore, tmp_path: Path) -> None:
    intake, (ref, leaves) = Intake(store), a_blob(tmp_path, b"content")
    intake.begin("north", ref, leaves)
    intake.find("north", ref).write(0, b"content")
    assert intake.finish("north", intake.find("north", ref))
    assert intake.begin("operator", ref, leaves, own=False) == []
    assert not store.has_sent("operator", ref)


def test_a_member_that_begins_thousands_of_uploads_is_stopped_early(store: FolderBlobStore, tmp_path: Path) -> None:
    intake, answers = Intake(store), Counter[str]()
    for number in range(2_000):
        leaves, ref = leaves_and_ref(b"content %d" % number)
        try:
            intake.begin("north", ref, leaves, own=number % 2 == 0)
            answers["begun"] += 1
        except TooManyRequests as error:
            answers[error.message] += 1
    words = f"north has {MOST_UNFINISHED} unfinished uploads, expected fewer than {MOST_UNFINISHED}."
    assert answers == {"begun": MOST_UNFINISHED, words: 2_000 - MOST_UNFINISHED}
    assert len(list((tmp_path / "store" / "partial" / "north").iterdir())) == MOST_UNFINISHED
    assert len(store._uploads) == MOST_UPLOADS_A_MEMBER
    leaves, ref = leaves_and_ref(b"of another")
    assert intake.begin("south", ref, leaves) == [(0, 1)]


def test_uploads_that_nobody_sent_to_for_an_hour_make_room(store: FolderBlobStore, tmp_path: Path) -> None:
    intake = Intake(store)
    for number in range(MOST_UNFINISHED):
        leaves, ref = leaves_and_ref(b"content %d" % number)
        intake.begin("north", ref, leaves)
    hour_ago = time.time() - 3601
    for path in (tmp_path / "store" / "partial" / "north").iterdir():
        os.utime(path, (hour_ago, hour_ago))
    leaves, ref = leaves_and_ref(b"one more")
    assert intake.begin("north", ref, leaves) == [(0, 1)]
    assert store.unfinished("north") == (1, 8)


def test_a_full_disk_takes_no_uploads_and_is_the_operators_matter(
    store: FolderBlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "free_bytes", lambda: RESERVED_BYTES + 6)
    with pytest.raises(StorageFailure, match=r"The disk of the blobs has 268,435,462 bytes free; .* of north needs 7"):
        Intake(store).begin("north", *a_blob(tmp_path, b"content"))


def test_an_empty_blob_is_there_once_begun(store: FolderBlobStore, tmp_path: Path) -> None:
    ref, leaves = a_blob(tmp_path, b"")
    assert Intake(store).begin("north", ref, leaves) == []
    assert store.contains(ref)


def test_unfinished_uploads_of_a_member_are_bounded(store: FolderBlobStore, tmp_path: Path) -> None:
    intake = Intake(store, max_unfinished_bytes=CHUNK_BYTES + 10)
    large, small = a_blob(tmp_path, bytes(CHUNK_BYTES)), a_blob(tmp_path, b"eleven byte")
    intake.begin("north", *large)
    with pytest.raises(BlobTooLarge, match=r"at most 4,194,314 bytes of unfinished uploads for north, got 4,194,315\."):
        intake.begin("north", *small)
    assert intake.begin("north", *large) == [(0, 1)]
    assert intake.begin("south", *small) == [(0, 1)]


def test_leaves_that_do_not_give_the_root_are_refused(store: FolderBlobStore, tmp_path: Path) -> None:
    ref, leaves = a_blob(tmp_path, b"content")
    with pytest.raises(BadBlobReference):
        Intake(store).begin("north", ref, bytes(len(leaves)))
    with pytest.raises(MissingBlob):
        Intake(store).find("north", ref)


def test_a_member_that_begins_and_never_finishes_holds_few_files_open(store: FolderBlobStore, tmp_path: Path) -> None:
    intake, before = Intake(store), len(os.listdir("/proc/self/fd"))
    blobs = [a_blob(tmp_path, b"content %d" % number) for number in range(MOST_UPLOADS_A_MEMBER + 20)]
    for blob in blobs:
        intake.begin("north", *blob)
    assert len(os.listdir("/proc/self/fd")) <= before + MOST_UPLOADS_A_MEMBER
    oldest, leaves = blobs[0]
    with pytest.raises(MissingBlob, match="north has not begun blob"):
        intake.find("north", oldest)
    assert intake.begin("north", oldest, leaves) == [(0, 1)]
    intake.find("north", oldest).write(0, b"content 0")
    assert intake.finish("north", intake.find("north", oldest))
