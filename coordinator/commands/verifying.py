"""llmasos-coordinator verify: this home's ledger, tables and rounds, checked as a stranger would."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from common.blobs.store import FolderBlobStore
from common.errors import NotInitialised
from common.identity.invitation import open_genesis
from common.terminal import FormatOption, HomeOption, OutputFormat, Terminal, resolve_home
from common.verify.material import Material
from common.verify.output import FingerprintOption, HtmlOption, put_out, watching
from coordinator.config import HomeLayout
from coordinator.store.database import Database, file_url
from coordinator.tables import check_tables


def verify(
    run: Annotated[str | None, typer.Argument(help="A run's id, or a unique beginning of it; none: every run.")] = None,
    fingerprint: FingerprintOption = None,
    html: HtmlOption = None,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Check every statement, recompute every round, hold the tables against the ledger.

    Works on the home folder, also beside the running coordinator. Exit 0: verified; 4: verified with gaps; 1: failed.
    """
    from common.verify.verify import verify as verify_material  # lazily: the reducer imports numpy

    layout = HomeLayout(resolve_home(home, "coordinator"))
    if not layout.state.exists():
        raise NotInitialised(f"{layout.home} holds no coordinator's ledger.", "Name its home folder with --home.")
    terminal = Terminal(output)
    database, blobs = Database(file_url(layout.state)), FolderBlobStore(layout.blobs)
    try:
        material = Material(stored_envelopes(database), blobs, fingerprint or _own_fingerprint(layout))
        report = verify_material(
            material, run=run, also=(partial(check_tables, database),), watching=watching(terminal)
        )
    finally:
        blobs.close()
        database.close()
    put_out(report, output, html)


def _own_fingerprint(layout: HomeLayout) -> str | None:
    """The one of the genesis that the operator keeps beside its keys, apart from the database."""
    kept: Path = layout.operator / "genesis.json"
    return open_genesis(kept.read_bytes())[0].digest if kept.exists() else None


def stored_envelopes(database: Database) -> list[bytes]:
    """All of them as they are stored, whatever the rows say about their places."""
    found: list[bytes] = []
    while rows := database.envelopes(len(found)):
        found += [bytes(row.envelope) for row in rows if isinstance(row.envelope, bytes)]
        if rows[-1].index != len(found) - 1:
            break  # a row is gone or altered: the history ends here, and check_tables names the place
    return found
