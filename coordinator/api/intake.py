"""Blobs on their way in: which uploads were begun, and how much each member may have unfinished."""

from __future__ import annotations

import threading
from collections import OrderedDict

from common.blobs.reference import BlobRef
from common.blobs.store import FolderBlobStore
from common.blobs.upload import Upload
from common.errors import BlobTooLarge, MissingBlob

MAX_UNFINISHED_BYTES = 2**38
MOST_UPLOADS_A_MEMBER = 16
"""Each holds a file open: rounds that begin uploads and never finish them must not use up what the process may open."""


class Intake:
    """Begun uploads by member and blob; any thread.

    Only memory of this process: after a restart a caller begins again and is told what the disk still misses. Of one member's
    uploads the oldest beyond 16 is let go of, not dropped: beginning it again goes on.
    """

    def __init__(self, store: FolderBlobStore, *, max_unfinished_bytes: int = MAX_UNFINISHED_BYTES) -> None:
        self._store, self._most_bytes = store, max_unfinished_bytes
        self._lock = threading.Lock()
        self._uploads: dict[str, OrderedDict[BlobRef, Upload]] = {}

    def begin(self, owner: str, ref: BlobRef, leaves: bytes) -> list[tuple[int, int]]:
        """The chunks that are missing, as (first, count). When none is, the blob is durable on return.

        Raises:
            BlobTooLarge: the owner's unfinished uploads would hold more than the quota.
            BadBlobReference: leaf list and reference do not fit together.
        """
        with self._lock:
            begun = self._uploads.setdefault(owner, OrderedDict())
            if ref not in begun and not self._store.contains(ref):
                self._check_quota(owner, ref)
        upload = self._store.begin(ref, leaves, owner=owner)
        missing = upload.missing()
        if not missing:
            self.finish(owner, upload)
            return []
        with self._lock:
            begun[ref] = upload
            begun.move_to_end(ref)
            while len(begun) > MOST_UPLOADS_A_MEMBER:
                begun.popitem(last=False)[1].close()
        return missing

    def find(self, owner: str, ref: BlobRef) -> Upload:
        """The upload that `owner` began.

        Raises:
            MissingBlob: there is none.
        """
        with self._lock:
            upload = self._uploads.setdefault(owner, OrderedDict()).get(ref)
        if upload is None:
            raise MissingBlob(f"{owner} has not begun blob {ref} since the coordinator's start.", "Call Begin first.")
        return upload

    def finish(self, owner: str, upload: Upload) -> bool:
        """Makes the blob durable if all of it is there; whether it is. Several streams may ask."""
        complete = upload.finish()
        if complete:
            with self._lock:
                self._uploads.setdefault(owner, OrderedDict()).pop(upload.ref, None)
        return complete

    def _check_quota(self, owner: str, ref: BlobRef) -> None:
        reserved = self._store.usage(owner)
        if reserved + ref.size > self._most_bytes:
            raise BlobTooLarge(
                f"Blob {ref}: expected at most {self._most_bytes:,} bytes of unfinished uploads for {owner}, "
                f"got {reserved + ref.size:,}."
            )
