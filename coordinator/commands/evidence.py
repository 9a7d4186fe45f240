"""llmasos-coordinator evidence: the ledger, or a part of it, as one file that anybody verifies, also when this home is gone."""

from __future__ import annotations

from common.blobs.store import FolderBlobStore
from common.errors import NotInitialised
from common.evidence.output import DeltasOption, FileArgument, FromOption, ToOption, put_out_bundle
from common.evidence.select import Holdings
from common.ledger.notes import read_checkpoint
from common.terminal import FormatOption, HomeOption, OutputFormat, Terminal, new_app, resolve_home
from coordinator.commands.checkpoints import newest_checkpoint
from coordinator.commands.verifying import stored_envelopes
from coordinator.config import HomeLayout
from coordinator.store.database import Database, file_url

app = new_app("evidence", "The ledger as one file that anybody verifies.")


@app.callback()
def _group() -> None:
    """The ledger as one file that anybody verifies."""


@app.command()
def export(
    file: FileArgument,
    first: FromOption = 0,
    last: ToOption = None,
    with_deltas: DeltasOption = False,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Write one file that proves the ledger, or a part of it, to anybody: llmasos verify FILE.

    It holds the statements of the runs that the range touches, the newest checkpoint, and those that witnesses cosigned.
    Other runs are withheld as hashes. Institutions' measurements are theirs, and not in it. With --with-deltas: every delta and
    model of the rounds in the range; whose deltas leave this house is said.
    """
    layout = HomeLayout(resolve_home(home, "coordinator"))
    if not layout.state.exists():
        raise NotInitialised(f"{layout.home} holds no coordinator's ledger.", "Name its home folder with --home.")
    database = Database(file_url(layout.state))
    blobs = FolderBlobStore(layout.blobs) if with_deltas else None
    try:
        newest, log = newest_checkpoint(layout)
        size = read_checkpoint(newest, log).size
        notes, envelopes = database.checkpoints(), stored_envelopes(database)[:size]  # a running coordinator goes on
        holdings = Holdings(envelopes, (*notes, newest.encode()), blobs=blobs)
        put_out_bundle(Terminal(output), holdings, file, first, last)
    finally:
        if blobs is not None:
            blobs.close()
        database.close()
