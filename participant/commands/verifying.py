"""llmasos-participant verify: what this institution holds of a run, checked without trusting anybody."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.blobs.store import FolderBlobStore
from common.identity.invitation import open_genesis
from common.terminal import FormatOption, HomeOption, OutputFormat, Terminal, resolve_home
from common.verify.material import Material, Own, Several
from common.verify.output import FingerprintOption, HtmlOption, put_out, watching
from participant.config import HomeLayout, load_config
from participant.memory.journal import Journal


def verify(
    run: Annotated[str | None, typer.Argument(help="A run's id, or a unique beginning of it; none: every run.")] = None,
    blobs: Annotated[
        Path | None,
        typer.Option(help="A further folder of blobs to read, such as a coordinator's.", show_default=False),
    ] = None,
    fingerprint: FingerprintOption = None,
    html: HtmlOption = None,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Check every statement of the own copy of the ledger, and that own contributions are in, unaltered.

    Rounds are recomputed where all deltas are held here or in --blobs; others are gaps. Exit 0: verified; 4: gaps; 1: failed.
    """
    from common.verify.verify import verify as verify_material  # lazily: the reducer imports numpy

    layout = HomeLayout(resolve_home(home, "participant"))
    institution = load_config(layout.home).institution
    journal = Journal(layout.journal)
    stores = [FolderBlobStore(place) for place in (layout.blobs, blobs) if place is not None]
    try:
        own = Own(institution, {each.slot: each.digest for each in journal.all_signed()})
        known = fingerprint or open_genesis(layout.genesis.read_bytes())[0].digest
        material = Material(journal.ledger(), Several(stores), known, own=own)
        report = verify_material(material, run=run, watching=watching(Terminal(output)))
    finally:
        for store in stores:
            store.close()
        journal.close()
    put_out(report, output, html)
