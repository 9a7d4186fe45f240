"""llmasos-coordinator backup, restore, recover."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from common.backup.output import put_out_backup, put_out_restored
from common.backup.restoring import restore as restore_home
from common.clock import SystemClock
from common.errors import UsageError
from common.terminal import FormatOption, HomeOption, OutputFormat, Terminal, resolve_home
from coordinator.config import HomeLayout


def backup(
    file: Annotated[Path, typer.Argument(help="The file to write; none of that name may exist.")],
    blobs: Annotated[
        str, typer.Option("--blobs", help="needed: what the ledger names and retention keeps; or all, or none.")
    ] = "needed",
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Write this home into one file, also while the coordinator runs; it is read back before it gets its name.

    PRIVATE KEYS ARE IN IT: who reads the file can sign as this consortium's coordinator, unless a passphrase protects them. So
    is what institutions sent: deltas, and their metrics. Only its owner may read it (mode 0600): keep it like the keys.
    """
    from coordinator.recovery.backing_up import back_up, blob_choice

    layout = HomeLayout(resolve_home(home, "coordinator"))
    manifest = back_up(layout, file, blob_choice(blobs), SystemClock())
    put_out_backup(Terminal(output), file, manifest)


def restore(
    file: Annotated[Path, typer.Argument(help="What `backup` wrote.")],
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Make a home folder from a backup. Once started it takes back from institutions what they saw since, and then goes on."""
    from coordinator.recovery.backing_up import check_restored

    folder = resolve_home(home, "coordinator")
    manifest = restore_home(file, folder, "coordinator", SystemClock(), check_restored)
    put_out_restored(
        Terminal(output),
        folder,
        manifest,
        "Next: llmasos-coordinator start. It signs nothing before institutions' daemons have brought what they saw since; or "
        "by hand: llmasos-coordinator recover --from FILE.",
    )


def recover(
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--from", help="What an institution exported, repeatable; best of all of them.", show_default=False
        ),
    ] = None,
    nothing_newer: Annotated[
        bool, typer.Option("--nothing-newer", help="You know that nothing was signed after the backup.")
    ] = False,
    new_lineage: Annotated[
        bool,
        typer.Option(
            "--new-lineage", help="You know that nobody holds what lacks: go on without it. Cannot be undone."
        ),
    ] = False,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Let a restored coordinator read what institutions export, where their daemons do not bring it themselves.

    Each institution: llmasos-participant evidence export FILE --with-deltas. Entries, models, deltas and measurements beyond
    the backup are verified and taken in. Exit 4 if something that a run needs was in none of the files.

    --new-lineage signs a statement, for everybody to read for ever, that gives up what the log had signed for beyond the
    entries that are here. Each institution that saw more stops, until it accepts that itself.
    """
    from coordinator.app import load_config
    from coordinator.recovery.from_files import recover as recover_home

    if bool(files) + nothing_newer + new_lineage != 1:
        raise UsageError("recover takes --from FILE, --nothing-newer or --new-lineage: one.", "See recover --help.")
    layout = HomeLayout(resolve_home(home, "coordinator"))
    if new_lineage:
        _begin_lineage(layout, Terminal(output))
        return
    found = recover_home(layout, load_config(layout.home), files or [], SystemClock())
    lines = [f"Recovered: {found.before:,} entries were here, {found.after:,} are; {found.blobs:,} blobs came."]
    lines += [f"Not brought by anybody: {each}" for each in found.lacking]
    lines += [f"Next: llmasos-coordinator start --home {layout.home}"]
    Terminal(output).result("\n".join(lines), data=asdict(found), quiet=str(found.after))
    if found.lacking:
        raise typer.Exit(4)


def _begin_lineage(layout: HomeLayout, terminal: Terminal) -> None:
    from coordinator.app import load_config
    from coordinator.recovery.new_lineage import begin_lineage

    begun = begin_lineage(layout, load_config(layout.home), SystemClock())
    given_up = begun.given_up.size - begun.index
    text = (
        f"Entry {begun.index:,} begins a new lineage. Given up: {given_up:,} entries of the tree of {begun.given_up.size:,}, "
        f"root {begun.given_up.root.hex()}.\nEach institution that saw them decides: llmasos-participant lineage show.\n"
        f"Next: llmasos-coordinator start --home {layout.home}"
    )
    data = {"index": begun.index, "given_up_size": begun.given_up.size, "given_up_root": begun.given_up.root.hex()}
    terminal.result(text, data=data, quiet=str(begun.index))
