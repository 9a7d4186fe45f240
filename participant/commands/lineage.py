"""llmasos-participant lineage: a coordinator that gave up a part of its ledger; see it, and decide whether to follow on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from common.clock import SystemClock, rfc3339
from common.errors import UsageError
from common.homes import HomeLock
from common.identity.invitation import open_genesis
from common.ledger.heads import log_key
from common.ledger.notes import parse_note, read_checkpoint
from common.statements.envelope import parse
from common.statements.kinds import Control, Genesis
from common.terminal import FormatOption, HomeOption, OutputFormat, Terminal, new_app, resolve_home
from participant.config import HomeLayout, load_config
from participant.memory.journal import Journal, OfferedLineage

app = new_app("lineage", "A coordinator that gave up a part of its ledger: see it, and decide whether to follow on.")

UNDECIDED_EXIT_CODE = 4


@app.command()
def show(home: HomeOption = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """What new lineages were shown to this institution, and what it saw that they give up. Exit 4 while one is undecided."""
    with _journal(home) as (layout, journal):
        genesis = open_genesis(layout.genesis.read_bytes())[1]
        found = [_described(each, journal, genesis) for each in journal.lineages()]
    lines = [_text(each) for each in found] or ["No new lineage was shown to this institution."]
    Terminal(output).result("\n".join(lines), data={"lineages": found}, quiet=str(len(found)))
    if any(not each["accepted_at"] for each in found):
        raise typer.Exit(UNDECIDED_EXIT_CODE)


@app.command()
def accept(
    digest: Annotated[str, typer.Argument(help="As `lineage show` prints it, or a unique beginning of it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Follow a new lineage from here on, with the daemon stopped. Cannot be undone.

    What this institution saw beyond its beginning stays in the journal and proves what was given up. Slots that it signed stay
    signed. As a witness it cosigns the new lineage from now on.
    """
    with _journal(home) as (layout, journal), HomeLock(layout.home):
        offered = [each for each in journal.lineages() if each.digest.startswith(digest) and not each.accepted_at]
        if len(offered) != 1:
            raise UsageError(
                f"{len(offered)} undecided lineages begin with {digest!r}.", "See: llmasos-participant lineage show."
            )
        described = _described(offered[0], journal, open_genesis(layout.genesis.read_bytes())[1])
        if not yes:
            typer.echo(_text(described), err=True)
            if not typer.confirm("Follow it?", default=False, err=True):
                raise typer.Exit(1)
        given_up = journal.accept_lineage(offered[0].digest, rfc3339(SystemClock().now()))
        for snapshots in layout.jobs.glob("*/snapshots"):  # of training in rounds that may be given up
            shutil.rmtree(snapshots)
    text = (
        f"This institution follows the lineage that begins at entry {offered[0].position:,}; {given_up:,} entries that it saw "
        "are given up, and kept. Start the daemon: llmasos-participant start"
    )
    Terminal(output).result(text, data={**described, "entries_given_up_here": given_up}, quiet=str(given_up))


@contextmanager
def _journal(home: Path | None) -> Iterator[tuple[HomeLayout, Journal]]:
    layout = HomeLayout(resolve_home(home, "participant"))
    load_config(layout.home)
    journal = Journal(layout.journal)
    try:
        yield layout, journal
    finally:
        journal.close()


def _described(offered: OfferedLineage, journal: Journal, genesis: Genesis) -> dict[str, Any]:
    said = parse(offered.envelope).predicate
    note = said.given_up if isinstance(said, Control) else None
    head = read_checkpoint(parse_note((note or "").encode()), log_key(genesis))
    return {
        "digest": offered.digest,
        "begins_at": offered.position,
        "reason": said.reason if isinstance(said, Control) else "",
        "issued_at": offered.offered_at,
        "given_up_size": head.size,
        "given_up_root": head.root.hex(),
        "entries_here": len(journal.ledger()),
        "accepted_at": offered.accepted_at,
    }


def _text(each: dict[str, Any]) -> str:
    begins, size = each["begins_at"], each["given_up_size"]
    beyond = max(0, each["entries_here"] - begins)
    held = f"This institution holds {beyond:,} of them." if beyond else "This institution holds none of them."
    decided = f"accepted {each['accepted_at']}" if each["accepted_at"] else "undecided"
    return (
        f"{each['digest'][:16]}  {decided}\n"
        f"  The coordinator's entry {begins:,} ({each['issued_at']}, {each['reason']}) begins a new lineage.\n"
        f"  Given up: entries {begins:,} to {size - 1:,} that its log had signed for, root {each['given_up_root']}.\n"
        + (
            ""
            if each["accepted_at"]
            else f"  {held}\n  To follow on: llmasos-participant lineage accept {each['digest'][:16]}"
        )
    )
