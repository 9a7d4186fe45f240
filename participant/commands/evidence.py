"""llmasos-participant evidence: what this institution can prove later, as one file for others or a folder for its own shelf."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.evidence.output import DeltasOption, FileArgument, FromOption, ToOption, put_out_bundle
from common.terminal import FormatOption, HomeOption, OutputFormat, Terminal, new_app, resolve_home
from participant.config import HomeLayout, load_config

app = new_app("evidence", "What this institution can prove later.")


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

    It holds the statements of the runs that the range touches, checkpoints with cosignatures, own measurements, and what
    contradicts this history, if anything does. Other runs are withheld as hashes. With --with-deltas: own deltas, and those
    that a plan lets this institution read, as far as they still lie here: after a run mostly none, and the coordinator's
    export is the one with deltas. It holds no key and no text of the data.
    """
    from common.blobs.store import FolderBlobStore
    from participant.memory.evidence import holdings

    layout = HomeLayout(resolve_home(home, "participant"))
    institution = load_config(layout.home).institution
    blobs = FolderBlobStore(layout.blobs) if with_deltas else None
    try:
        put_out_bundle(Terminal(output), holdings(layout, institution, blobs), file, first, last)
    finally:
        if blobs is not None:
            blobs.close()


@app.command()
def archive(
    folder: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Write everything that this institution can prove later into a folder, as `leave` does, for its own shelf.

    evidence.llmasos is what `evidence export` writes; the others need no program at all: genesis.json, ledger.jsonl,
    signed.jsonl, egress.csv, SHA256SUMS. They hold no key and no text of the data.
    """
    from participant.memory.evidence import export_evidence

    layout = HomeLayout(resolve_home(home, "participant"))
    files = export_evidence(layout, load_config(layout.home).institution, folder)
    listed = "\n".join(f"{path.stat().st_size:>12,} bytes  {path.name}" for path in files)
    Terminal(output).result(
        f"{listed}\nEvidence: {folder}",
        data={"folder": str(folder), "files": [path.name for path in files]},
        quiet=str(folder),
    )
