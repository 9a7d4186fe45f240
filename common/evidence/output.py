"""How both daemons' commands export evidence: options, and what they say of the file that they made."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from common.evidence.files import check_free, save_bundle
from common.evidence.select import Holdings, Selection, select
from common.terminal import WIDTH, Terminal

ABSENT_SHOWN = 20
"""Rounds of which something is not in a bundle; JSON has all of them."""
FileArgument = Annotated[Path, typer.Argument(help="The file to write; none of that name may exist.")]
FromOption = Annotated[int, typer.Option("--from", min=0, help="Ledger index: runs that end before it are left out.")]
ToOption = Annotated[
    int | None,
    typer.Option(
        "--to", min=0, help="Ledger index: what comes after it is left out. Default: the end.", show_default=False
    ),
]
DeltasOption = Annotated[
    bool, typer.Option("--with-deltas", help="Put deltas and models in, as far as they are held here and visible.")
]


def put_out_bundle(terminal: Terminal, holdings: Holdings, file: Path, first: int, last: int | None) -> None:
    """Choose, write, and say what is in it.

    Raises:
        UsageError, RefusalError, BlobError, StorageFailure: as `select` and `save_bundle`.
    """
    check_free(file)
    chosen = select(holdings, first, last)
    digest = save_bundle(chosen.contents, file)
    size = file.stat().st_size
    said = [f"{size:,} bytes", *_said(chosen), f"Anybody verifies it: llmasos verify {file.name} --fingerprint HEX"]
    wrapped = [line for each in said for line in textwrap.wrap(each, WIDTH, subsequent_indent="  ")]
    data = _data(chosen) | {"file": str(file), "bytes": size, "digest": digest}
    terminal.result("\n".join([f"Evidence: {file}", f"digest {digest}", *wrapped]), data=data, quiet=str(file))


def _said(chosen: Selection) -> Iterable[str]:
    contents = chosen.contents
    entries = len(contents.envelopes)
    runs = ", ".join(chosen.runs) or "none"
    yield f"Entries {chosen.first} to {chosen.last} with all before them of runs: {runs}"
    yield f"{entries - chosen.withheld} of {entries} entries, {chosen.withheld} withheld as hashes"
    yield f"{len(contents.checkpoints)} checkpoints, the largest of {chosen.covered} entries"
    if contents.conflicting:
        yield f"Notes that contradict this history, the proof of two histories: {len(contents.conflicting)}"
    if contents.metrics:
        yield f"Own measurements beside {len(contents.metrics)} contributions"
    if contents.blobs:
        yield f"{len(contents.blobs)} models and deltas"
    for name, count in sorted(chosen.deltas.items()):
        yield f"Deltas of {name}: {count}. Whoever gets this file can read them."
    for each in chosen.absent[:ABSENT_SHOWN]:
        yield f"Not in it, {each}"
    if len(chosen.absent) > ABSENT_SHOWN:
        yield f"and something of {len(chosen.absent) - ABSENT_SHOWN} more rounds; --format json has all"


def _data(chosen: Selection) -> dict[str, Any]:
    contents = chosen.contents
    return {
        "from": chosen.first,
        "to": chosen.last,
        "runs": list(chosen.runs),
        "entries": len(contents.envelopes),
        "withheld": chosen.withheld,
        "covered": chosen.covered,
        "checkpoints": len(contents.checkpoints),
        "conflicting": len(contents.conflicting),
        "metrics": len(contents.metrics),
        "blobs": len(contents.blobs),
        "deltas": dict(chosen.deltas),
        "absent": list(chosen.absent),
    }
