"""llmasos-coordinator verify: this home's ledger, tables and rounds, checked as a stranger would."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from common.blobs.store import FolderBlobStore
from common.errors import NotInitialised
from common.identity.invitation import open_genesis
from common.terminal import FormatOption, HomeOption, OutputFormat, Terminal, resolve_home
from common.verify.material import Material, Watching
from common.verify.output import FingerprintOption, HtmlOption, PinOption, parse_pins, put_out, watching
from common.verify.report import Report
from coordinator.config import HomeLayout
from coordinator.rows.reading import raw
from coordinator.store.database import Database, file_url
from coordinator.tables import check_kept_blobs, check_tables


def verify(
    run: Annotated[str | None, typer.Argument(help="A run's id, or a unique beginning of it; none: every run.")] = None,
    fingerprint: FingerprintOption = None,
    pin: PinOption = None,
    html: HtmlOption = None,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Check every statement, recompute every round, hold the tables against the ledger.

    Works on the home folder, also beside the running coordinator. Exit 0: verified; 4: verified with gaps; 1: failed.
    """
    layout = HomeLayout(resolve_home(home, "coordinator"))
    if not layout.state.exists():
        raise NotInitialised(f"{layout.home} holds no coordinator's ledger.", "Name its home folder with --home.")
    pins, progress = parse_pins(pin) or None, watching(Terminal(output))
    put_out(verified(layout, run=run, fingerprint=fingerprint, pins=pins, progress=progress), output, html)


def verified(
    layout: HomeLayout,
    *,
    run: str | None = None,
    fingerprint: str | None = None,
    pins: Mapping[str, str] | None = None,
    progress: Watching | None = None,
) -> Report:
    """What a stranger who may read the home folder finds there.

    Raises:
        StorageFailure: the database cannot be read, or a later release made it.
    """
    from common.verify.verify import verify as verify_material  # lazily: the reducer imports numpy

    database, blobs = Database(file_url(layout.state)), FolderBlobStore(layout.blobs)
    try:
        known = fingerprint or _own_fingerprint(layout)
        notes = [raw(note) for note in database.checkpoints()]
        material = Material(stored_envelopes(database), blobs, known, pins, checkpoints=notes)
        also = (partial(check_tables, database, home=layout), partial(check_kept_blobs, blobs))
        return verify_material(material, run=run, also=also, watching=progress)
    finally:
        blobs.close()
        database.close()


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
