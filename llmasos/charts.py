"""What results show of themselves in a notebook: an SVG, a table, and the same as a DataFrame where pandas is installed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmasos.atomic import BY_UMASK, replacing
from llmasos.extras import require_extra

if TYPE_CHECKING:
    import pandas


_COLOURS = ("#2f7fd6", "#d9622b", "#808a96", "#189c7d", "#a855c0", "#b07d16", "#d0447e", "#1f8ba3")
"""Readable on light and dark grounds; the report page has a set for each."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing as SVG text, coloured; `svg` is empty where there was nothing to draw. A notebook shows it."""

    svg: str
    title: str

    def save(self, path: str | Path) -> Path:
        """Write the drawing to an .svg file at `path`, which browsers and word processors read.

        Raises:
            StorageFailure: it cannot be written.
        """
        with replacing(Path(path), mode=BY_UMASK) as file:
            file.write(self._styled().encode())
        return Path(path)

    def _styled(self) -> str:
        """With its colours inside, so that it stands alone; no rule of it reaches the page around it."""
        head, sign, rest = self.svg.partition(">")
        return f'{head} class="llmasos"{sign}<style>{_style()}</style>{rest}' if self.svg else ""

    def _repr_html_(self) -> str:
        return f'<div style="max-width: 45rem">{self._styled()}</div>' if self.svg else "<p>Nothing to draw.</p>"

    def __repr__(self) -> str:
        return f"Chart({self.title}: .save(path) writes it as SVG)"


def _style() -> str:
    """Rules for the classes of llmasos.simulation.svg, inside the drawing alone."""
    rules = [
        "svg.llmasos{font:12px system-ui,sans-serif;width:100%;height:auto}",
        ".llmasos text{fill:#76808c}.llmasos .grid{stroke:#76808c;stroke-opacity:.25}",
        ".llmasos line.mark{stroke:#76808c;stroke-dasharray:5 4}",
        ".llmasos polyline{fill:none;stroke-width:1.6}.llmasos polyline.wide{stroke-width:3}",
    ]
    for place, colour in enumerate(_COLOURS):
        rules.append(f".llmasos polyline.s{place}{{stroke:{colour}}}")
        rules.append(f".llmasos circle.s{place},.llmasos rect.s{place},.llmasos text.label.s{place}{{fill:{colour}}}")
    return "".join(rules)


def frame_of(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> pandas.DataFrame:
    """`rows` as a pandas DataFrame with `columns`.

    Raises:
        MissingExtra: pandas is not installed.
    """
    require_extra("notebook", "pandas", task="make a DataFrame")
    import pandas

    return pandas.DataFrame([dict(row) for row in rows], columns=list(columns))


def table_html(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """`rows` as an HTML table with `columns`, everything escaped."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(shown(row[name]))}</td>" for name in columns) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def shown(value: Any) -> str:
    """`value` in a cell: numbers to four digits, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e6 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
