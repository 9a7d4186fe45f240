"""llmasos-participant backup, restore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.backup.output import put_out_backup, put_out_restored
from common.backup.restoring import restore as restore_home
from common.clock import SystemClock
from common.terminal import FormatOption, HomeOption, OutputFormat, Terminal, resolve_home
from participant.config import HomeLayout, load_config


def backup(
    file: Annotated[Path, typer.Argument(help="The file to write; none of that name may exist.")],
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Write this home into one file, also while the daemon runs; it is read back before it gets its name.

    PRIVATE KEYS ARE IN IT: who reads the file can sign as this institution, unless a passphrase protects them. Residuals and
    personal layers are numbers that were learned from private text. No text and no token file is in it. Only its owner may
    read it (mode 0600): keep it like the keys.
    """
    from participant.memory.backup import back_up

    layout = HomeLayout(resolve_home(home, "participant"))
    manifest = back_up(layout, file, load_config(layout.home).institution, SystemClock())
    put_out_backup(Terminal(output), file, manifest)


def restore(
    file: Annotated[Path, typer.Argument(help="What `backup` wrote.")],
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Make a home folder from a backup.

    Its daemon signs nothing before it has followed the ledger to the newest checkpoint and taken over what stands there under
    this institution's name. The home that was backed up must not run any more.
    """
    from participant.memory.backup import check_restored

    folder = resolve_home(home, "participant")
    manifest = restore_home(file, folder, "participant", SystemClock(), check_restored)
    put_out_restored(Terminal(output), folder, manifest, f"Next: llmasos-participant start --home {folder}")
