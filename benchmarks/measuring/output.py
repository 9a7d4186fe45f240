"""Where results go: a table for people, JSON for programs, a plot as SVG; the same options for each benchmark."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common.errors import LLMasOSError
from llmasos.simulation.svg import Mark, Series, line_chart

COLOURS = ("#3065c0", "#c0562a", "#2e8b57", "#8a4fbe", "#b8860b", "#c02a6a", "#1f8fa0", "#6b6b6b")
STYLE = (
    "svg { font: 12px system-ui, sans-serif; background: #fff; } text { fill: #222; } text.axis { fill: #666; } "
    ".grid { stroke: #ddd; } line.mark { stroke: #666; stroke-dasharray: 5 4; } polyline { fill: none; } "
) + " ".join(
    f"polyline.s{index} {{ stroke: {colour}; }} circle.s{index}, text.label.s{index} {{ fill: {colour}; }}"
    for index, colour in enumerate(COLOURS)
)


def parser(doc: str | None) -> argparse.ArgumentParser:
    """With the options that all benchmarks of the data plane have."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="small sizes, to see that it works: the figures say little")
    made.add_argument("--json", metavar="FILE", help="write the result there; - is standard output, without the table")
    made.add_argument("--plot", metavar="FILE.svg", type=svg_path, help="draw the result")
    made.add_argument("--folder", type=Path, help="where files lie meanwhile; default: the temporary folder")
    return made


def svg_path(text: str) -> Path:
    if not text.endswith(".svg"):
        raise argparse.ArgumentTypeError(f"{text} does not end in .svg; plots are drawn without a plotting library")
    return Path(text)


def numbers(text: str) -> list[int]:
    """`100,400`: positive whole numbers."""
    try:
        found = [int(each) for each in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise argparse.ArgumentTypeError(f"expected positive whole numbers with commas between, got {text!r}")
    return found


def deliver(
    options: argparse.Namespace, found: dict[str, Any], table: Callable[[Any], str], plot: Callable[[Any], str]
) -> None:
    """Print the table or the JSON, and write what files were asked for."""
    text = json.dumps(found, indent=2)
    print(text if options.json == "-" else table(found))
    if options.json not in {None, "-"}:
        Path(options.json).write_text(text + "\n")
    if options.plot is not None:
        options.plot.write_text(plot(found) + "\n")


def failed(error: LLMasOSError) -> int:
    """Say what went wrong and what to do, as the commands do; the exit code."""
    print(f"error: {error.message}\n  fix: {error.fix}", file=sys.stderr)
    return 1


def columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A text table: the first column to the left, the others to the right; a header may hold line breaks."""
    heads = [name.split("\n") for name in header]
    tallest = max(len(lines) for lines in heads)
    top = [[""] * (tallest - len(lines)) + lines for lines in heads]
    grid = [*([lines[at] for lines in top] for at in range(tallest)), *rows]
    widths = [max(len(line[at]) for line in grid) for at in range(len(header))]

    def shown(line: Sequence[str]) -> str:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        return "  ".join(cells).rstrip()

    return "\n".join(shown(line) for line in grid)


def lines_plot(
    lines: dict[str, Sequence[tuple[float, float]]],
    *,
    title: str,
    x: str,
    y: str,
    marks: dict[str, float] | None = None,
) -> str:
    """Named lines over a linear x and a logarithmic y axis, as a file of its own."""
    series = [Series(name, sorted(points), colour=at) for at, (name, points) in enumerate(lines.items())]
    chart = line_chart(
        series, [Mark(name, value) for name, value in (marks or {}).items()], title=title, x_label=x, y_label=y
    )
    return chart.replace("</title>", f"</title>\n<style>{STYLE}</style>", 1)
