"""A bundle on disk: private, whole or absent, never over another file; and what is read from it later is what was parsed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from common.blobs.reference import CHUNK_BYTES
from common.blobs.store import FolderBlobStore
from common.errors import CorruptChunk, LedgerConflict, MalformedStatement, MissingBlob, UsageError
from common.evidence.files import save_bundle
from common.evidence.format import MAX_NOTES_BYTES, Contents
from common.evidence.read import read_bundle
from common.evidence.select import Holdings, select
from tests.support.blobs import put_blob
from tests.support.evidence import MadeLedger, bundle
from tests.support.statements import a_blob_ref

LARGE = bytes(range(256)) * (CHUNK_BYTES // 256) + b"the second chunk"


@pytest.fixture
def contents(ledger: MadeLedger) -> Contents:
    return select(Holdings(ledger.entries, [ledger.checkpoint(35)])).contents


def test_a_file_is_private_and_ends_in_the_digest_that_is_returned(contents: Contents, tmp_path: Path) -> None:
    path = tmp_path / "a.evidence"
    digest = save_bundle(contents, path)
    assert path.read_bytes() == bundle(contents)
    assert path.read_bytes().endswith(f"end {digest}\n".encode())
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_written_over(contents: Contents, tmp_path: Path) -> None:
    path = tmp_path / "thesis"
    path.write_text("years of work")
    with pytest.raises(UsageError, match="thesis exists already"):
        save_bundle(contents, path)
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="thesis exists already"):
        save_bundle(contents, path)
    with pytest.raises(UsageError, match="absent is no folder"):
        save_bundle(contents, tmp_path / "absent" / "a.evidence")


def test_what_a_reader_would_refuse_is_not_left_behind(contents: Contents, ledger: MadeLedger, tmp_path: Path) -> None:
    with pytest.raises(MalformedStatement, match="a checkpoint does not come after"):
        save_bundle(replace(contents, checkpoints=[*contents.checkpoints] * 2), tmp_path / "a.evidence")
    with pytest.raises(MissingBlob):
        save_bundle(
            replace(contents, blobs=[a_blob_ref()], source=FolderBlobStore(tmp_path / "blobs")), tmp_path / "b.evidence"
        )
    assert [path.name for path in tmp_path.iterdir()] == ["blobs"]


def test_too_many_notes_are_refused(ledger: MadeLedger, contents: Contents, tmp_path: Path) -> None:
    note = ledger.checkpoint(35)
    bulky = [note.replace(b"\n\n", b"\n\n" + b"\xe2\x80\x94 %d AAAAAAAA\n" % index * 1000) for index in range(10, 1100)]
    assert sum(map(len, bulky)) > MAX_NOTES_BYTES
    with pytest.raises(MalformedStatement, match=r"the notes have more than 16,777,216 bytes together"):
        save_bundle(replace(contents, conflicting=sorted(bulky)), tmp_path / "a.evidence")


# --- in place ---------------------------------------------------------------------------------------------------------


def test_blobs_are_read_where_they_lie_chunk_by_chunk(contents: Contents, tmp_path: Path) -> None:
    store, path = FolderBlobStore(tmp_path / "blobs"), tmp_path / "a.evidence"
    refs = sorted((put_blob(store, LARGE), put_blob(store, b"small"), put_blob(store, b"")), key=lambda ref: ref.root)
    save_bundle(replace(contents, blobs=refs, source=store), path)
    with read_bundle(path) as found:
        assert found.blobs.refs == tuple(refs)
        large = next(ref for ref in refs if ref.size == len(LARGE))
        buffer = memoryview(bytearray(CHUNK_BYTES))
        with found.blobs.open(large) as reader:
            assert reader.read_chunk(1, buffer) == b"the second chunk"
            assert reader.read_chunk(0, buffer) == LARGE[:CHUNK_BYTES]
        with pytest.raises(MissingBlob, match=r"is not in .*a\.evidence"):
            found.blobs.open(a_blob_ref())


def test_a_file_that_changes_under_its_reader_is_found_out(contents: Contents, tmp_path: Path) -> None:
    store, path = FolderBlobStore(tmp_path / "blobs"), tmp_path / "a.evidence"
    ref = put_blob(store, b"small")
    save_bundle(replace(contents, blobs=[ref], source=store), path)
    with read_bundle(path) as found:
        data = path.read_bytes().replace(b"\nsmall\n", b"\nsmalI\n").replace(b'{"payload"', b'{"paylaod"')
        with path.open("r+b") as file:
            file.write(data)
        with pytest.raises(LedgerConflict, match=r"Entry 5 of .* was changed while the file was being read"):
            found.envelopes[5]
        with pytest.raises(CorruptChunk), found.blobs.open(ref) as reader:
            reader.read_chunk(0, memoryview(bytearray(5)))


def test_a_link_to_a_bundle_is_read_blobs_included(contents: Contents, tmp_path: Path) -> None:
    store, path = FolderBlobStore(tmp_path / "blobs"), tmp_path / "a.evidence"
    ref = put_blob(store, b"small")
    save_bundle(replace(contents, blobs=[ref], source=store), path)
    (tmp_path / "link").symlink_to(path)
    with read_bundle(tmp_path / "link") as found, found.blobs.open(ref) as reader:
        assert reader.read_chunk(0, memoryview(bytearray(5))) == b"small"
