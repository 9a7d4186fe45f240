"""A participant's home as one file, beside the running daemon.

In it: keys, certificate, configuration, policy, data set definitions, the journal, residuals, personal layers, and deltas that
were signed for and whose round is open. Not in it: text, token files, models, snapshots: they are read, fetched or made again.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from common.backup.archive import Manifest, Source, write_archive
from common.backup.collecting import copy_database, files_of
from common.blobs.store import FolderBlobStore
from common.clock import Clock, rfc3339
from common.errors import MalformedBackup, NotInitialised, StorageFailure
from common.evidence.files import check_free
from common.ledger.rules import admit, start
from common.ledger.state import LedgerState
from common.statements.envelope import parse
from common.statements.kinds import Contribution
from participant.bench.worker_protocol import PERSONAL
from participant.config import HomeLayout
from participant.tasks import contribution_slot

FILES = ("participant.yaml", "policy.yaml", "data", "genesis.json", "identity")
JOURNAL = "journal.sqlite"


def back_up(layout: HomeLayout, file: Path, institution: str, clock: Clock) -> Manifest:
    """Write a backup of a home, also beside its running daemon.

    Raises:
        NotInitialised: there is no journal: the daemon never ran here.
        UsageError: the file's name is taken.
        StorageFailure: something cannot be read or written; no file is left.
    """
    if not layout.journal.exists():
        raise NotInitialised(f"{layout.home} holds no journal.", "There is nothing to back up before the first start.")
    check_free(file)
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".backup-") as folder:
        copy = Path(folder) / JOURNAL
        copy_database(layout.journal, copy)
        with closing(sqlite3.connect(copy)) as journal:
            state = _ledger_of(journal, layout.genesis.read_bytes())
            deltas = list(_unsettled_deltas(journal, state, layout))
        personal = [f"jobs/{path.parent.name}/{PERSONAL}" for path in sorted(layout.jobs.glob(f"*/{PERSONAL}"))]
        sources = [
            *files_of(layout.home, FILES),
            Source(JOURNAL, copy),
            *files_of(layout.home, ("residuals", *personal), optional=True),
            *deltas,
        ]
        manifest = Manifest(
            side="participant",
            name=institution,
            genesis=state.genesis_place.digest,
            made_at=rfc3339(clock.now()),
            entries=state.size,
            blobs="needed",
            files=(),
        )
        return write_archive(file, sources, manifest)


def _ledger_of(journal: sqlite3.Connection, genesis: bytes) -> LedgerState:
    envelopes = [bytes(row[0]) for row in journal.execute("SELECT envelope FROM ledger ORDER BY position")]
    if not envelopes or envelopes[0] != genesis:
        raise StorageFailure("The journal does not begin with the genesis beside it.")
    state = start(genesis).state
    for envelope in envelopes[1:]:
        state = admit(state, envelope).state
    return state


def _unsettled_deltas(journal: sqlite3.Connection, state: LedgerState, layout: HomeLayout) -> Iterator[Source]:
    """Blobs of contributions that were signed for rounds that are open: nobody else may have them."""
    store = FolderBlobStore(layout.blobs)
    try:
        for run in state.active_runs:
            if run.open_round is None:
                continue
            slot = contribution_slot(run.open_round)
            for (envelope,) in journal.execute("SELECT envelope FROM signed WHERE slot = ?", (slot,)).fetchall():
                predicate = parse(envelope).predicate
                for ref in predicate.blobs.values() if isinstance(predicate, Contribution) else ():
                    if store.contains(ref):
                        for path in (store.path(ref), store.path(ref).with_suffix(".leaves")):
                            yield Source(path.relative_to(layout.home).as_posix(), path, optional=True)
    finally:
        store.close()


def check_restored(home: Path, manifest: Manifest) -> None:
    """
    Raises:
        MalformedBackup: the home that came out is not the one that the manifest describes.
    """
    layout = HomeLayout(home)
    with closing(sqlite3.connect(layout.journal)) as journal:
        state = _ledger_of(journal, layout.genesis.read_bytes())
    found = (state.genesis_place.digest, state.size)
    if found != (manifest.genesis, manifest.entries):
        raise MalformedBackup(
            f"The backup holds {found[1]} entries of {found[0]}, its manifest says {manifest.entries} of {manifest.genesis}."
        )
