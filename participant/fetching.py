"""What verification lacks, from the coordinator, for as long as a round is looked at.

    held here ─▶ read where it lies
    lacking   ─▶ all of it readable? ─▶ fetched into HOME/fetched, read, deleted with the round
                                   └▶ why not: not visible, not retained, not reached

The home's own blob folder belongs to the daemon, which tidies it; so what is fetched has a folder of its own. Nothing of it is
left when the command ends; what a killed command left there, the next one goes on with, and deletes.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from common.blobs.reader import BlobReader
from common.blobs.reference import BlobRef
from common.blobs.store import FolderBlobStore
from common.errors import (
    BlobError,
    CoordinatorUnreachable,
    IdentityError,
    MissingBlob,
    NotAuthorised,
    StorageFailure,
    TooManyRequests,
    UsageError,
)
from common.homes import HomeLock, private_folder
from common.verify.material import Blobs
from common.wire.transfer import Backoff, TransferOptions

FOLDER = "fetched"
NOT_RETAINED = "not retained by the coordinator"
NOT_REACHED = "not held here, and the coordinator is not reached"
NOT_ASKED = "not fetched, as not all can be had"
TRIES = 20
PAUSE_SECONDS = 0.5


class Source(Protocol):
    """Where blobs come from; common.wire.session.Session is one."""

    def expect_readable(self, ref: BlobRef) -> None: ...

    def download(
        self, ref: BlobRef, store: FolderBlobStore, owner: str, options: TransferOptions | None = None
    ) -> bool: ...


class Fetched:
    """Blobs that are held, and more from a source: a common.verify.rounds.Fetching.

    Args:
        store: for what is fetched, and for nothing else.
        say: hears, once, why the coordinator is not asked any more, and what is fetched.
        sleep: waits so many seconds where the coordinator is busy.
    """

    def __init__(
        self,
        held: Blobs,
        source: Source,
        store: FolderBlobStore,
        institution: str,
        say: Callable[[str], None],
        *,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._held, self._source, self._store, self._institution = held, source, store, institution
        self._say, self._sleep = say, sleep
        self._known: dict[BlobRef, str] = {}
        self._silent = False

    def contains(self, ref: BlobRef) -> bool:
        return self._held.contains(ref) or self._store.contains(ref)

    def open(self, ref: BlobRef) -> BlobReader:
        """
        Raises:
            MissingBlob: it is neither held nor fetched.
        """
        return (self._held if self._held.contains(ref) else self._store).open(ref)

    def bring(self, refs: Sequence[BlobRef]) -> Mapping[BlobRef, str]:
        """Fetch what is lacking of these, all or nothing; for those that do not come, why.

        Deltas, which stand after the model, are asked for first: they are what is seen by few and kept for a time. After the
        first that cannot come nothing more is asked.

        Raises:
            StorageFailure: this disk has no room for them.
        """
        lacking = [ref for ref in dict.fromkeys(reversed(refs)) if not self.contains(ref)]
        for ref in lacking:
            why = self._why_not(ref)
            if why is not None:
                return self._nothing(lacking, ref, why)
        self._expect_room(lacking)
        if lacking:
            self._say(f"fetching {len(lacking)} blobs, {sum(ref.size for ref in lacking):,} bytes")
        for ref in lacking:
            why = self._fetch(ref)
            if why is not None:
                return self._nothing(lacking, ref, why)
        return {}

    def let_go(self) -> None:
        """Delete what was fetched."""
        for ref, _ in tuple(self._store.list()):
            self._store.delete(ref)

    # --- asking ------------------------------------------------------------------------------------------------------

    def _nothing(self, lacking: Sequence[BlobRef], cause: BlobRef, why: str) -> Mapping[BlobRef, str]:
        others = NOT_REACHED if self._silent else NOT_ASKED
        return {each: why if each == cause else self._known.get(each, others) for each in lacking}

    def _why_not(self, ref: BlobRef) -> str | None:
        """Why this blob cannot be fetched, as far as asking tells."""
        if self._silent:
            return NOT_REACHED
        if ref not in self._known:
            why = self._try(ref, lambda: self._patiently(ref))
            if why is None or self._silent:
                return why
            self._known[ref] = why
        return self._known[ref]

    def _fetch(self, ref: BlobRef) -> str | None:
        options = TransferOptions(backoff=Backoff(retries=5))
        return self._try(ref, lambda: self._source.download(ref, self._store, self._institution, options))

    def _try(self, ref: BlobRef, action: Callable[[], object]) -> str | None:
        """Why it failed; None where it did not."""
        try:
            action()
        except NotAuthorised:
            return f"not visible to {self._institution}"
        except MissingBlob:
            return NOT_RETAINED
        except BlobError as err:
            return f"not served as the ledger names it ({err.code})"
        except (
            CoordinatorUnreachable,
            IdentityError,
            UsageError,
        ) as err:  # UsageError: this home has no key to ask under
            if not self._silent:
                self._say(f"going on with what is held here: {err.message} ({err.code})")
            self._silent = True
            return NOT_REACHED
        return None

    def _patiently(self, ref: BlobRef) -> None:
        """Where the coordinator is busy with our own calls, the last try says so."""
        for _ in range(TRIES):
            with suppress(TooManyRequests):
                self._source.expect_readable(ref)
                return
            self._sleep(PAUSE_SECONDS)
        self._source.expect_readable(ref)

    def _expect_room(self, lacking: Sequence[BlobRef]) -> None:
        needed, free = sum(ref.size for ref in lacking), self._store.free_bytes()
        if needed > free:
            raise StorageFailure(
                f"Recomputing a round needs {needed:,} bytes of models and deltas, {free:,} are free on this disk.",
                "Make room, or verify what is held here: --no-fetch.",
            )


@contextmanager
def folder_for_fetching(home: Path) -> Iterator[FolderBlobStore]:
    """The folder for what is fetched, for one command at a time; empty when it ends.

    Raises:
        HomeLocked: another command fetches at this home.
    """
    folder = private_folder(home / FOLDER)
    with HomeLock(folder):
        store = FolderBlobStore(folder / "blobs")
        try:
            yield store
        finally:
            store.close()
            shutil.rmtree(folder / "blobs", ignore_errors=True)
