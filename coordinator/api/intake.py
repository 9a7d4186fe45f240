"""Blobs on their way in: which uploads were begun, and how much each member may have unfinished.

    Begin ─▶ begin ─▶ missing chunks          Put ─▶ find ─▶ write … ─▶ finish

A delta must come from its contributor's own hands: one that another member sent is asked for again, checked, and not stored
twice. A plan's blobs may be there already.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from common.blobs.proof import Proof
from common.blobs.reference import BlobRef
from common.blobs.store import FolderBlobStore
from common.blobs.upload import Upload
from common.errors import BlobTooLarge, MissingBlob, StorageFailure, TooManyRequests

MAX_UNFINISHED_BYTES = 2**38
MOST_UPLOADS_A_MEMBER = 16
"""Each holds a file open: rounds that begin uploads and never finish them must not use up what the process may open."""
MOST_UNFINISHED = 64
"""Files that one member's unfinished uploads may take."""
STALE_SECONDS = 3600.0
"""Nothing written to it for so long: it may go when its owner wants to begin more."""
RESERVED_BYTES = 2**28
"""Room on the disk that no upload takes: ledger and state must always be able to grow."""

Incoming = Upload | Proof


class Intake:
    """Begun uploads by member and blob; any thread.

    Only memory of this process: after a restart a caller begins again and is told what the disk still misses. Of one member's
    uploads the oldest beyond 16 is let go of, not dropped: beginning it again goes on.
    """

    def __init__(self, store: FolderBlobStore, *, max_unfinished_bytes: int = MAX_UNFINISHED_BYTES) -> None:
        self._store, self._most_bytes = store, max_unfinished_bytes
        self._lock = threading.Lock()
        self._uploads: dict[str, OrderedDict[BlobRef, Incoming]] = {}

    def begin(self, owner: str, ref: BlobRef, leaves: bytes, *, own: bool = True) -> list[tuple[int, int]]:
        """The chunks that are missing, as (first, count). When none is, the blob is durable on return.

        Args:
            own: whether the owner must send every byte itself, also of a blob that is here already.

        Raises:
            BlobTooLarge: the owner's unfinished uploads would hold more than the quota.
            TooManyRequests: it has begun too many that it never finished.
            BadBlobReference: leaf list and reference do not fit together.
            StorageFailure: the disk is as good as full.
        """
        with self._lock:
            begun = self._uploads.setdefault(owner, OrderedDict())
            if ref not in begun and not self._store.contains(ref):
                self._check_room(owner, ref)
        begin = self._store.begin_own if own else self._store.begin
        upload: Incoming = begin(ref, leaves, owner=owner)
        missing = upload.missing()
        if not missing:
            self.finish(owner, upload)
            return []
        with self._lock:
            begun[ref] = upload
            begun.move_to_end(ref)
            while len(begun) > MOST_UPLOADS_A_MEMBER:
                oldest, _ = begun.popitem(last=False)
                self._store.let_go(owner, oldest)
        return missing

    def find(self, owner: str, ref: BlobRef) -> Incoming:
        """The upload that `owner` began.

        Raises:
            MissingBlob: there is none.
        """
        with self._lock:
            upload = self._uploads.setdefault(owner, OrderedDict()).get(ref)
        if upload is None:
            raise MissingBlob(f"{owner} has not begun blob {ref} since the coordinator's start.", "Call Begin first.")
        return upload

    def finish(self, owner: str, upload: Incoming) -> bool:
        """Makes the blob durable if all of it is there; whether it is. Several streams may ask."""
        complete = upload.finish()
        if complete:
            with self._lock:
                self._uploads.setdefault(owner, OrderedDict()).pop(upload.ref, None)
        return complete

    def _check_room(self, owner: str, ref: BlobRef) -> None:
        count, reserved = self._store.unfinished(owner)
        if count >= MOST_UNFINISHED:
            self._store.discard_uploads(owner, older_than=time.time() - STALE_SECONDS)
            count, reserved = self._store.unfinished(owner)
        if count >= MOST_UNFINISHED:
            raise TooManyRequests(
                f"{owner} has {count} unfinished uploads, expected fewer than {MOST_UNFINISHED}.",
                "Finish those that were begun, or wait: what nobody sent to for an hour makes room.",
            )
        if reserved + ref.size > self._most_bytes:
            raise BlobTooLarge(
                f"Blob {ref}: expected at most {self._most_bytes:,} bytes of unfinished uploads for {owner}, "
                f"got {reserved + ref.size:,}."
            )
        free = self._store.free_bytes()
        if free < ref.size + RESERVED_BYTES:
            self._store.drop_spares()
            free = self._store.free_bytes()
        if free < ref.size + RESERVED_BYTES:
            raise StorageFailure(
                f"The disk of the blobs has {free:,} bytes free; {ref} of {owner} needs {ref.size:,} and "
                f"{RESERVED_BYTES:,} are kept for ledger and state."
            )
