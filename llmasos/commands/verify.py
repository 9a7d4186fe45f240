"""`llmasos verify FILE_OR_FOLDER`: an evidence bundle by itself, or what a simulation left, from every party's side."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated

import typer

from common.errors import MalformedStatement, NotInitialised, UsageError
from common.terminal import WIDTH, FormatOption, OutputFormat, Terminal, table
from common.verify.output import FingerprintOption, HtmlOption, PinOption, parse_pins, put_out, watching
from common.verify.report import NOT_PROVEN
from llmasos.simulation.layout import MARKER, Layout
from llmasos.simulation.verification import verify_sides


def verify(
    path: Annotated[
        Path,
        typer.Argument(
            help="What `evidence export` wrote, or the folder that `llmasos demo` or `llmasos simulate` wrote.",
            metavar="FILE_OR_FOLDER",
        ),
    ],
    fingerprint: FingerprintOption = None,
    pin: PinOption = None,
    html: HtmlOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Verify an evidence bundle, on a machine that knows nothing else; or a simulation's folder, from every party's side.

    A bundle: its one form, every signature, the tree's head against each checkpoint, cosignatures, the whole history, and each
    round whose deltas are in it, recomputed. --fingerprint, --pin and --html are for bundles.

    Exit 0: verified; 4: verified with gaps; 1: failed.
    """
    if not path.is_dir():
        _verify_bundle(path, fingerprint, parse_pins(pin), html, output)
        return
    if fingerprint or pin or html:
        raise UsageError(
            f"{path} is a folder; --fingerprint, --pin and --html are for evidence bundles.", "Leave them out."
        )
    _verify_folder(path, output)


def _verify_bundle(
    path: Path, fingerprint: str | None, pins: dict[str, str], html: Path | None, output: OutputFormat
) -> None:
    """Says the result and exits."""
    from common.evidence.checks import bundle_checks, refused_report  # lazily: the reducer imports numpy
    from common.evidence.read import read_bundle
    from common.verify.material import Material
    from common.verify.verify import verify as verify_material

    if not path.exists():
        raise UsageError(f"There is no {path}.", "Name a file that `evidence export` wrote, or a simulation's folder.")
    try:
        bundle = read_bundle(path)
    except MalformedStatement as err:
        put_out(refused_report(err), output, html)
        return
    with bundle:
        material = Material(
            bundle.envelopes,
            bundle.blobs,
            fingerprint,
            pins,
            tree=bundle.tree,
            checkpoints=bundle.checkpoints,
            sealed=True,
        )
        report = verify_material(material, also=bundle_checks(bundle), watching=watching(Terminal(output)))
    put_out(report, output, html)


def _verify_folder(folder: Path, output: OutputFormat) -> None:
    """Each party verifies its own part, by its own command; says the result and exits."""
    layout = Layout(folder.absolute())
    if not (layout.root / MARKER).exists():
        raise NotInitialised(f"{folder} is not a simulation's folder.", "Make one: llmasos demo --quick --out FOLDER.")
    found = verify_sides(layout)
    data = {
        "result": found.outcome,
        "forks": found.forks,
        "sides": {side.who: side.report for side in found.sides},
    }
    rows = [[side.who, side.outcome, str(side.report["entries"]), side.rounds] for side in found.sides]
    terminal = Terminal(output)
    terminal.result(table(["SIDE", "RESULT", "ENTRIES", "ROUNDS"], rows), data=data, quiet=found.outcome)
    if output is OutputFormat.HUMAN:
        terminal.result("\n".join([*found.findings, "", *textwrap.wrap(NOT_PROVEN, WIDTH)]), data=None)
    raise typer.Exit(found.outcome.exit_code)
