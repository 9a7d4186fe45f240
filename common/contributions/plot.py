"""Rows as a drawing: bars from a zero line, a panel a figure; one SVG file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

NAMES, WIDTH, PANEL, GAP = 190, 1130, 150, 85
TOP, BAR, STEP = 56, 14, 20
MAX_NAME = 26
STYLE = (
    "text{font:12px sans-serif;fill:#222}.t{font-weight:bold}.v{font-size:10px}.up{fill:#2b6cb0}.down{fill:#b7791f}"
    ".zero{stroke:#888}.page{fill:#fff}"
)


@dataclass(frozen=True, slots=True)
class Panel:
    """One figure: a value a bar, None where it is not known."""

    title: str
    values: Sequence[float | None]
    form: str = ",.3g"


def bars(title: str, names: Sequence[str], panels: Sequence[Panel]) -> str:
    """An SVG document; each panel has a scale of its own, and bars go left where a value is below zero."""
    height = TOP + STEP * len(names) + 16
    body = [f'<rect class="page" width="{WIDTH}" height="{height}"/>', _text(10, 20, title, "t")]
    for place, name in enumerate(names):
        short = name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…"
        body.append(_text(10, TOP + STEP * place + BAR - 2, short))
    for position, panel in enumerate(panels):
        body += _panel(panel, NAMES + position * (PANEL + GAP), height)
    inner = "\n".join(body)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n{inner}\n</svg>\n"
    )


def _panel(panel: Panel, left: float, height: int) -> list[str]:
    known = [value for value in panel.values if value is not None]
    low, high = min([0.0, *known]), max([0.0, *known])
    scale = PANEL / ((high - low) or 1.0)
    zero = left - low * scale
    body = [_text(left, TOP - 12, panel.title, "t")]
    for place, value in enumerate(panel.values):
        y = TOP + STEP * place
        if value is None:
            body.append(_text(zero + 4, y + BAR - 3, "unknown", "v"))
            continue
        start, length, css = (
            (zero, value * scale, "up") if value >= 0 else (zero + value * scale, -value * scale, "down")
        )
        body.append(f'<rect class="{css}" x="{start:.1f}" y="{y}" width="{max(length, 0.5):.1f}" height="{BAR}"/>')
        body.append(_text(max(zero, start + length) + 4, y + BAR - 3, format(value, panel.form), "v"))
    body.append(f'<line class="zero" x1="{zero:.1f}" x2="{zero:.1f}" y1="{TOP - 4}" y2="{height - 12}"/>')
    return body


def _text(x: float, y: float, text: str, css: str = "") -> str:
    named = f' class="{css}"' if css else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{named}>{escape(text)}</text>'
