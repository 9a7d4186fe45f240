"""A coordinator's home as one file, beside the running daemon; and what a restored one has to know before it starts.

In it: keys, CA, configuration, genesis, the operator's certificate, the state database, log.head, and blobs. What institutions
sent of metrics is in the database. Unfinished uploads and drafts' blobs that await approvals are not: they are sent again.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal

from common.backup.archive import Manifest, Source, write_archive
from common.backup.collecting import copy_database, files_of
from common.backup.restoring import restoration
from common.blobs.store import FolderBlobStore
from common.clock import Clock, rfc3339
from common.errors import MalformedBackup, NotInitialised, NotRecovered, StorageFailure, UsageError
from common.evidence.files import check_free
from common.ledger.rules import admit, start
from common.ledger.state import LedgerState
from coordinator.aggregation import kept_roots
from coordinator.config import HomeLayout

BlobChoice = Literal["all", "needed", "none"]
FILES = ("coordinator.yaml", "genesis.json", "identity", "operator")
DATABASE, HEAD = "state.sqlite", "log.head"
ATTEMPTS = 3
"""A blob may be given up between the copy of the database and its turn: then everything is taken once more."""


def blob_choice(word: str) -> BlobChoice:
    """
    Raises:
        UsageError: it is none of them.
    """
    choices: dict[str, BlobChoice] = {"all": "all", "needed": "needed", "none": "none"}
    if word not in choices:
        raise UsageError(f"--blobs is {word[:40]!r}, expected one of {', '.join(choices)}.")
    return choices[word]


def back_up(layout: HomeLayout, file: Path, blobs: BlobChoice, clock: Clock) -> Manifest:
    """Write a backup of a home, also beside its running daemon.

    Args:
        blobs: `needed`: those that the ledger names and retention keeps; `none`: they are kept by other means.

    Raises:
        NotInitialised: there is no coordinator's home.
        UsageError: the file's name is taken.
        StorageFailure: something cannot be read or written; no file is left.
    """
    if not layout.state.exists():
        raise NotInitialised(f"{layout.home} holds no coordinator's ledger.", "Name its home folder with --home.")
    check_free(file)
    for attempt in range(ATTEMPTS):
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".backup-") as folder:
            sources, manifest = _collect(layout, Path(folder), blobs, clock)
            try:
                return write_archive(file, sources, manifest)
            except StorageFailure:
                if attempt + 1 == ATTEMPTS or all(source.file.exists() for source in sources):
                    raise
    raise AssertionError("unreachable")


def _collect(layout: HomeLayout, folder: Path, blobs: BlobChoice, clock: Clock) -> tuple[list[Source], Manifest]:
    head, copy = folder / HEAD, folder / DATABASE
    if layout.log_head.exists():  # before the database, which then holds all that it shows was signed for
        head.write_bytes(layout.log_head.read_bytes())
    copy_database(layout.state, copy)
    state = ledger_of(copy, layout.genesis.read_bytes())
    sources = [*files_of(layout.home, FILES), Source(DATABASE, copy)]
    sources += [Source(HEAD, head)] if head.exists() else []
    sources += _blobs(layout, state, blobs)
    manifest = Manifest(
        side="coordinator",
        name=state.genesis.consortium,
        genesis=state.genesis_place.digest,
        made_at=rfc3339(clock.now()),
        entries=state.size,
        blobs=blobs,
        files=(),
    )
    return sources, manifest


def _blobs(layout: HomeLayout, state: LedgerState, choice: BlobChoice) -> Iterator[Source]:
    if choice == "none":
        return
    needed, _ = kept_roots(state)
    store = FolderBlobStore(layout.blobs)
    try:
        for ref, _ in store.list():
            if choice == "all" or ref.root in needed:
                for path in (store.path(ref), store.path(ref).with_suffix(".leaves")):
                    yield Source(path.relative_to(layout.home).as_posix(), path)
    finally:
        store.close()


def ledger_of(database: Path, genesis: bytes) -> LedgerState:
    """The fold of a copied database's ledger.

    Raises:
        StorageFailure: it cannot be read, or is another consortium's.
        RefusalError: an entry breaks a rule.
    """
    try:
        with closing(sqlite3.connect(database)) as connection:
            envelopes = [bytes(row[0]) for row in connection.execute('SELECT envelope FROM ledger ORDER BY "index"')]
    except sqlite3.Error as err:
        raise StorageFailure(f"{database} cannot be read: {err}.") from err
    if not envelopes or envelopes[0] != genesis:
        raise StorageFailure(f"{database} does not begin with the genesis beside it.")
    state = start(genesis).state
    for envelope in envelopes[1:]:
        state = admit(state, envelope).state
    return state


def check_restored(home: Path, manifest: Manifest) -> None:
    """
    Raises:
        MalformedBackup: the home that came out is not the one that the manifest describes.
    """
    layout = HomeLayout(home)
    state = ledger_of(layout.state, layout.genesis.read_bytes())
    found = (state.genesis_place.digest, state.size)
    if found != (manifest.genesis, manifest.entries):
        raise MalformedBackup(
            f"The backup holds {found[1]} entries of {found[0]}, its manifest says {manifest.entries} of {manifest.genesis}."
        )


def expect_recovered(home: Path) -> None:
    """
    Raises:
        NotRecovered: it was restored, and nobody has found out yet what was signed after the backup.
    """
    note = restoration(home)
    if note is not None and not note.get("settled"):
        raise NotRecovered(
            f"{home} was restored from a backup of {note.get('made_at')} with {note.get('entries')} ledger entries, and "
            "institutions may have seen more. Nothing is signed until that is known.",
            "Start it: institutions' daemons bring what they saw. Or let them export it (llmasos-participant evidence export "
            "FILE --with-deltas), then: llmasos-coordinator recover --from FILE.",
        )
