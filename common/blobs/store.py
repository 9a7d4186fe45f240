"""Blobs in a folder. A blob that has its final name is whole and durable; everything else lies under partial/.

    ROOT/blake3/3f/3f9a….blob       content, mode 0600
    ROOT/blake3/3f/3f9a….leaves     its leaf list
    ROOT/partial/OWNER/…            uploads of one owner, counted in `usage`, dropped by `discard_uploads`
    ROOT/sent/OWNER/blake3-3f9a…    empty: that owner itself sent every byte of that blob (`begin_own`)
    ROOT/writing/                   blobs that this process writes itself
    ROOT/spare/                     files of blobs that were given up, to be written over (`retire`)

One process owns a store; its threads may all use it at once.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from common.blobs import digest, disk, ingest
from common.blobs.proof import Proof
from common.blobs.reader import BlobReader, chunk_buffer
from common.blobs.reference import BlobRef, DigestName
from common.blobs.senders import Senders
from common.blobs.spares import MOST_SPARES, Spares
from common.blobs.upload import Upload
from common.blobs.writer import BlobWriter
from common.errors import BadBlobReference, BlobError, MissingBlob
from common.homes import sync_folder
from common.names import check_name

_ROOT = re.compile(r"[0-9a-f]{64}")


class FolderBlobStore:
    """Content by reference, in a private folder."""

    def __init__(self, root: Path, *, most_spares: int = MOST_SPARES) -> None:
        """
        Args:
            most_spares: so many files at most are kept to be written over.
        """
        self._root = root
        self._uploads: dict[tuple[str, str], Upload] = {}
        self._proofs: dict[tuple[str, str], Proof] = {}
        self._senders = Senders(root / "sent")
        self._spares = Spares(root / "spare", most_spares)
        self._readers: Counter[BlobRef] = Counter()
        self._lock = threading.Lock()
        with disk.storage("create", root):
            self._partial = disk.private_folder(root / "partial")
            self._writing = disk.private_folder(root / "writing")

    # --- coming in, chunk by chunk -----------------------------------------------------------------------------------

    def begin(
        self, ref: BlobRef, leaves: bytes, *, owner: str, durable: bool = True, instead_of: BlobRef | None = None
    ) -> Upload:
        """The upload of a blob by one owner: the running one, what a crash left of it, or a new one.

        A blob that is there already gives an upload that misses nothing. Room for the blob and the owner's quota are the
        caller's to check (`usage`).

        Args:
            durable: False for what can be fetched again: nobody waits for the disk, and a power failure may damage the
                blob under its final name. Then `discard_damaged` comes first at the next start.
            instead_of: a blob that nobody reads any more, given up for this one: its file is written over in place, which
                is far cheaper than a new file, and chunks that both have are there already.

        Raises:
            BadBlobReference: leaf list and reference do not fit together, or a blob of that root has another size.
            InvalidName: the owner's name.
            StorageFailure: the disk refuses.
        """
        check_name(owner)
        digest.check_leaves(ref, leaves)
        key = (owner, f"{ref.algorithm}-{ref.root}")
        with self._lock:
            upload = self._uploads.get(key)
            if upload is None and self._size_of(ref) is not None:
                self._expect_size(ref)
                with disk.storage("touch", self.path(ref)):
                    os.utime(self.path(ref))  # wanted again: who deletes old blobs that no statement names shall wait
                return Upload.finished(ref, leaves, final=self.path(ref))
            if upload is None:
                partial = self._partial / owner / f"{key[1]}.part"
                upload = Upload(ref, leaves, partial=partial, final=self.path(ref), durable=durable)
                if instead_of is not None:
                    self._give_up(instead_of, upload)
                elif not partial.exists() and self._take_spare(ref.size, partial):
                    upload.start_over()
                upload.when_finished(lambda: self._forget(key))
                self._uploads[key] = upload
        if upload.ref != ref:
            raise BadBlobReference(f"Blob {ref} is being sent with size {upload.ref.size:,} already.")
        upload.open()
        return upload

    def begin_own(self, ref: BlobRef, leaves: bytes, *, owner: str) -> Upload | Proof:
        """As `begin`, for an owner that must have the bytes itself: what others sent counts for nothing.

        A blob that is there, and that this owner has not sent, gives a proof that misses everything; its chunks are checked
        and not stored again. Who came to the end `has_sent` it, also after a restart.

        Raises:
            BadBlobReference, InvalidName, StorageFailure: as `begin`.
        """
        upload = self.begin(ref, leaves, owner=owner)
        key = (owner, f"{ref.algorithm}-{ref.root}")
        if not upload.is_finished:
            upload.when_finished(lambda: self._sent(owner, ref))
            return upload
        if self.has_sent(owner, ref):
            return upload
        with self._lock:
            if key not in self._proofs:
                self._proofs[key] = Proof(
                    ref, leaves, is_there=lambda: self.contains(ref), when_proven=lambda: self._sent(owner, ref)
                )
            return self._proofs[key]

    def has_sent(self, owner: str, ref: BlobRef) -> bool:
        """Whether that owner itself sent every byte of that blob, by `begin_own`.

        Raises:
            InvalidName: the owner's name.
        """
        return self._senders.has(owner, ref)

    def let_go(self, owner: str, ref: BlobRef) -> None:
        """Forget an unfinished upload or proof; of an upload the file stays, and beginning it again goes on."""
        key = (owner, f"{ref.algorithm}-{ref.root}")
        with self._lock:
            self._proofs.pop(key, None)
            upload = self._uploads.pop(key, None)
        if upload is not None:
            upload.close()

    def _sent(self, owner: str, ref: BlobRef) -> None:
        self._senders.add(owner, ref)
        with self._lock:
            self._uploads.pop((owner, f"{ref.algorithm}-{ref.root}"), None)
            self._proofs.pop((owner, f"{ref.algorithm}-{ref.root}"), None)

    def _give_up(self, ref: BlobRef, upload: Upload) -> None:
        """Let an upload have a blob's file, unless that has another name somewhere."""
        path = self.path(ref)
        with disk.storage("reuse", path):
            if self.contains(ref) and path.stat().st_nlink == 1:
                upload.start_from(path, self.leaves(ref))
                path.with_suffix(".leaves").unlink()

    def _take_spare(self, size: int, to: Path) -> bool:
        with disk.storage("create", to):
            disk.private_folder(to.parent)
        return self._spares.take(size, to)

    def _forget(self, key: tuple[str, str]) -> None:
        with self._lock:
            self._uploads.pop(key, None)

    def discard_uploads(self, owner: str, *, older_than: float | None = None) -> None:
        """Drop unfinished uploads of one owner, also an earlier process's; streams that still write get MissingBlob.

        Args:
            owner: whose.
            older_than: only those to which nothing was written since then; seconds since 1970. Default: all.

        Raises:
            InvalidName: the owner's name.
        """
        folder = self._partial / check_name(owner)
        with self._lock, disk.storage("empty", folder):
            for path in sorted(folder.glob("*")):
                if older_than is not None and not _unwritten_since(path, older_than):
                    continue
                upload = self._uploads.pop((owner, path.stem), None)
                if upload is not None:
                    upload.discard()
                path.unlink(missing_ok=True)
            if older_than is None:
                for key in [key for key in self._uploads if key[0] == owner]:
                    self._uploads.pop(key).discard()

    def upload_owners(self) -> tuple[str, ...]:
        """Who has unfinished uploads, or once had some."""
        return tuple(sorted(path.name for path in self._partial.iterdir()))

    def usage(self, owner: str) -> int:
        """Bytes that the unfinished uploads of one owner will have when they are whole."""
        return self.unfinished(owner)[1]

    def unfinished(self, owner: str) -> tuple[int, int]:
        """How many unfinished uploads one owner has, and the bytes that they will have when they are whole."""
        folder = self._partial / check_name(owner)
        count = total = 0
        for path in folder.glob("*.part"):
            try:
                total += path.stat().st_size
                count += 1
            except FileNotFoundError:  # finished or discarded meanwhile
                continue
        return count, total

    def free_bytes(self) -> int:
        """What this process may still write on the store's disk, besides writing over spare files."""
        with disk.storage("look at", self._root):
            return shutil.disk_usage(self._root).free

    # --- coming in from this process ---------------------------------------------------------------------------------

    def writer(self, algorithm: DigestName, *, about: int = 0) -> BlobWriter:
        """A new blob, written from its first byte to its last.

        Args:
            about: how many bytes are expected, to find a spare file of that size.
        """
        path = self._writing / uuid.uuid4().hex
        self._take_spare(about, path)
        return BlobWriter(path, algorithm, self._install)

    def ingest(self, path: Path, algorithm: DigestName, *, move: bool) -> BlobRef:
        """Take a file in; durable on return.

        Args:
            path: a regular file; a link is refused.
            algorithm: the consortium's digest.
            move: rename it instead of copying, where that is safe; the file is gone afterwards either way.

        Raises:
            StorageFailure: not a regular file, or the disk refuses.
        """
        with ingest.open_plain_file(path) as fd:
            if move and ingest.is_ours_alone(fd, self._root):
                return ingest.move_in(fd, path, algorithm, self._install)
            ref = ingest.copy_in(fd, self.writer(algorithm, about=os.fstat(fd).st_size), path)
        if move:
            with disk.storage("remove", path):
                path.unlink(missing_ok=True)
        return ref

    def discard_unfinished_writers(self) -> None:
        """Remove what writers of an earlier process left. For start-up, while the home's lock is held."""
        with disk.storage("empty", self._writing):
            for path in self._writing.glob("*"):
                path.unlink(missing_ok=True)

    def _install(self, path: Path, ref: BlobRef, leaves: bytes) -> None:
        final = self.path(ref)
        with disk.storage("finish", final):
            disk.private_folder(final.parent)
            staged = self._writing / f"{uuid.uuid4().hex}.leaves"
            disk.write_file(staged, leaves)
            # Leaves first: a blob with its final name always has them.
            os.replace(staged, final.with_suffix(".leaves"))
            os.utime(path)  # a blob's age counts from here
            os.replace(path, final)
            sync_folder(final.parent)

    # --- what is there -----------------------------------------------------------------------------------------------

    def path(self, ref: BlobRef) -> Path:
        """Where the blob is, or would be."""
        return self._root / ref.algorithm / ref.root[:2] / f"{ref.root}.blob"

    def contains(self, ref: BlobRef) -> bool:
        """Whether the blob is there, whole."""
        return self._size_of(ref) == ref.size

    def list(self) -> Iterator[tuple[BlobRef, float]]:
        """Every blob, with the time it came or was last begun again, in seconds since 1970; in no order."""
        for algorithm in digest.HASH_FUNCTIONS:
            for path in (self._root / algorithm).glob("??/*.blob"):
                if not _ROOT.fullmatch(path.stem):  # somebody else's file
                    continue
                try:
                    found = path.stat()
                except FileNotFoundError:  # deleted meanwhile
                    continue
                yield BlobRef(algorithm=algorithm, size=found.st_size, root=path.stem), found.st_mtime

    def leaves(self, ref: BlobRef) -> bytes:
        """The blob's leaf list.

        Raises:
            MissingBlob: the blob is not there.
            BadBlobReference: it was damaged on disk, or the reference names another size.
        """
        self._expect_size(ref)
        path = self.path(ref).with_suffix(".leaves")
        with disk.storage("read", path):
            leaves = path.read_bytes()
        digest.check_leaves(ref, leaves)
        return leaves

    def open(self, ref: BlobRef) -> BlobReader:
        """A reader that verifies each chunk; close it.

        Raises:
            MissingBlob: the blob is not there.
            BadBlobReference: the leaf list was damaged on disk, or the reference names another size.
        """
        with self._lock:
            reader = BlobReader(self.path(ref), ref, self.leaves(ref), when_closed=lambda: self._closed(ref))
            self._readers[ref] += 1
        return reader

    def _closed(self, ref: BlobRef) -> None:
        with self._lock:
            self._readers[ref] -= 1
            if not self._readers[ref]:
                del self._readers[ref]

    def discard_damaged(self) -> tuple[BlobRef, ...]:
        """Read every blob and remove those that are not what their names say; which. For start-up."""
        damaged = []
        for ref, _ in tuple(self.list()):
            try:
                with self.open(ref) as reader:
                    buffer = chunk_buffer(ref)
                    for index in range(ref.chunks):
                        reader.read_chunk(index, buffer)
            except BlobError:
                damaged.append(ref)
                self.delete(ref)
        return tuple(damaged)

    def delete(self, ref: BlobRef, *, older_than: float | None = None) -> None:
        """Remove a blob, if it is there; open readers keep theirs.

        Args:
            older_than: only if it came, and was last begun again, before then; seconds since 1970. Default: in any case.
        """
        path = self.path(ref)
        with self._lock, disk.storage("remove", path):  # the lock: `begin` may find it wanted again at this very moment
            if older_than is not None and not _unwritten_since(path, older_than):
                return
            path.unlink(missing_ok=True)
            path.with_suffix(".leaves").unlink(missing_ok=True)
            self._senders.forget(ref)

    def retire(self, ref: BlobRef) -> None:
        """As `delete`, but unless somebody reads it, its file is kept, to be written over by the next one of its size."""
        path = self.path(ref)
        with self._lock, disk.storage("remove", path):
            path.with_suffix(".leaves").unlink(missing_ok=True)
            if self._readers[ref]:
                path.unlink(missing_ok=True)
            else:
                self._spares.keep(path)
            self._senders.forget(ref)

    def lend(self, size: int, to: Path) -> None:
        """Give a spare file away, if there is one, to somebody who will hand it back by `ingest`."""
        if not to.exists():
            self._spares.take(size, to)

    def spare_bytes(self) -> int:
        """What the files hold that are kept to be written over."""
        return self._spares.total_bytes()

    def drop_spares(self) -> None:
        """Remove the files that are kept to be written over."""
        self._spares.drop()

    def _size_of(self, ref: BlobRef) -> int | None:
        path = self.path(ref)
        try:
            return path.stat().st_size if path.with_suffix(".leaves").exists() else None
        except FileNotFoundError:
            return None

    def _expect_size(self, ref: BlobRef) -> None:
        size = self._size_of(ref)
        if size is None:
            raise MissingBlob(f"Blob {ref} is not in the blob folder.")
        if size != ref.size:
            raise BadBlobReference(
                f"The file of blob {ref} has {size:,} bytes.",
                "If the reference is right, the file was changed on disk: delete the blob and fetch it again.",
            )

    def close(self) -> None:
        """Let go of the files of unfinished uploads; they can be resumed."""
        with self._lock:
            for upload in self._uploads.values():
                upload.close()
            self._uploads.clear()


def _unwritten_since(path: Path, moment: float) -> bool:
    try:
        return path.stat().st_mtime < moment
    except FileNotFoundError:  # finished meanwhile
        return False
