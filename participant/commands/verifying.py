"""llmasos-participant verify: what this institution holds of a run and may fetch, checked without trusting anybody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from common.blobs.store import FolderBlobStore
from common.errors import LLMasOSError
from common.identity.invitation import open_genesis
from common.terminal import FormatOption, HomeOption, OutputFormat, Terminal, resolve_home
from common.verify.material import Blobs, Material, Own, Several
from common.verify.output import FingerprintOption, HtmlOption, PinOption, parse_pins, put_out, watching
from participant.commands.connection import member_session
from participant.config import HomeLayout, ParticipantConfig, load_config
from participant.memory.journal import Journal
from participant.memory.rows import as_bytes, check_journal


def verify(
    run: Annotated[str | None, typer.Argument(help="A run's id, or a unique beginning of it; none: every run.")] = None,
    blobs: Annotated[
        Path | None,
        typer.Option(help="A further folder of blobs to read, such as a coordinator's.", show_default=False),
    ] = None,
    fetch: Annotated[
        bool, typer.Option("--fetch/--no-fetch", help="Fetch what this institution may read and does not hold.")
    ] = True,
    fingerprint: FingerprintOption = None,
    pin: PinOption = None,
    html: HtmlOption = None,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Check every statement of the own copy of the ledger, and that own contributions are in, unaltered.

    Rounds are recomputed from what is held here, in --blobs, or may be fetched, which is deleted again; else an auditor's
    signed attestation is named; else it is a gap. Exit 0: verified; 4: gaps; 1: failed.
    """
    from common.verify.verify import verify as verify_material  # lazily: the reducer imports numpy

    layout, terminal, pins = HomeLayout(resolve_home(home, "participant")), Terminal(output), parse_pins(pin)
    config = load_config(layout.home)
    with ExitStack() as stack:
        journal = Journal(layout.journal)
        stack.callback(journal.close)
        places = [FolderBlobStore(place) for place in (layout.blobs, blobs) if place is not None]
        for place in places:
            stack.callback(place.close)
        read = stack.enter_context(fetching(layout, config, terminal, places)) if fetch else Several(places)
        known = fingerprint or open_genesis(layout.genesis.read_bytes())[0].digest
        material = material_of(journal, config.institution, read, known, pins or None)
        also = (partial(check_journal, journal, config.institution),)
        report = verify_material(material, run=run, also=also, watching=watching(terminal))
    put_out(report, output, html)


def material_of(
    journal: Journal, institution: str, blobs: Blobs, fingerprint: str, pins: Mapping[str, str] | None = None
) -> Material:
    """What this institution's journal holds, with every checkpoint that it ever kept, also those that stopped it."""
    return Material(
        [as_bytes(envelope) for envelope in journal.ledger()],
        blobs,
        fingerprint,
        pins,
        Own(institution, {str(each.slot): str(each.digest) for each in journal.all_signed()}),
        checkpoints=list(dict.fromkeys(as_bytes(row[2]) for row in journal.rows("checkpoints"))),
    )


@contextmanager
def fetching(
    layout: HomeLayout, config: ParticipantConfig, terminal: Terminal, places: Sequence[FolderBlobStore]
) -> Iterator[Blobs]:
    """What is held here, and what the coordinator lets this institution read; without one, what is held."""
    from participant.fetching import Fetched, folder_for_fetching

    held, genesis = Several(places), open_genesis(layout.genesis.read_bytes())[1]
    try:
        session = member_session(layout, config, genesis)
    except LLMasOSError as err:
        terminal.progress(f"going on with what is held here: {err.message} ({err.code})")
        yield held
        return
    with session, folder_for_fetching(layout.home) as fetched:
        yield Fetched(held, session, fetched, config.institution, terminal.progress)
