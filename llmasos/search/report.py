"""What a search leaves for people and programs: report.html, search.svg, trials.json."""

from __future__ import annotations

import dataclasses
import json
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmasos.search.space import shown
from llmasos.simulation.report_html import STYLE, series_style
from llmasos.simulation.report_html import table as html_table
from llmasos.simulation.svg import Series, finite, line_chart

if TYPE_CHECKING:
    from llmasos.search.search import Search, Tried

CURVES = 40
"""Of more trials, the curves of the newest."""


def write_reports(search: Search, *, title: str) -> None:
    (search.out / "trials.json").write_text(json.dumps(as_json(search), indent=2) + "\n", encoding="utf-8")
    (search.out / "search.svg").write_text(_alone(progress_chart(search)), encoding="utf-8")
    (search.out / "report.html").write_text(_page(search, title), encoding="utf-8")


def as_json(search: Search) -> dict[str, Any]:
    """All trials and the best, for programs."""
    return {
        "measure": search.measure,
        "best": {**_row_json(search.best), "plan": str(search.best_plan)},
        "trials": [_row_json(one) for one in search.trials],
    }


def rows(search: Search) -> list[tuple[str, ...]]:
    """One row a trial, the best first, then those without a result."""
    ranked = sorted(search.trials, key=lambda one: (one.value is None, one.value or 0.0, one.number))
    return [
        (
            str(one.number),
            one.state,
            "-" if one.value is None else f"{one.value:,.5g}",
            ", ".join(f"{field}={shown(value)}" for field, value in one.settings.items()),
        )
        for one in ranked
    ]


def progress_chart(search: Search) -> str:
    """Each trial's number, and the best so far."""
    values = finite([(float(one.number), one.value) for one in search.trials if one.value is not None])
    best = [(x, min(value for _, value in values[: place + 1])) for place, (x, _) in enumerate(values)]
    lines = [Series("each trial", values, 2), Series("best so far", best, 0, wide=True)]
    return line_chart(
        lines, [], title="Held-out number by trial", x_label="trial", y_label=f"{search.measure}, logarithmic"
    )


def curve_chart(search: Search) -> str:
    """The number after each round of each trial; the best trial strong."""
    newest = [one for one in search.trials[-CURVES:] if one.curve and one.number != search.best.number]
    lines = [Series(str(one.number), finite(sorted(one.curve.items())), 2) for one in newest]
    lines.append(Series(f"best: {search.best.number}", finite(sorted(search.best.curve.items())), 0, wide=True))
    drawn = [line for line in lines if line.points]
    return line_chart(
        drawn, [], title="Held-out number by round", x_label="rounds", y_label=f"{search.measure}, logarithmic"
    )


def _row_json(one: Tried) -> dict[str, Any]:
    return dataclasses.asdict(one) | {"curve": {str(rounds): value for rounds, value in one.curve.items()}}


def _alone(chart: str) -> str:
    """A chart as a file of its own: with the page's colours in it."""
    return chart.replace("\n<title>", f"\n<style>{_css()}</style>\n<title>", 1) if chart else _EMPTY


_EMPTY = '<svg xmlns="http://www.w3.org/2000/svg"/>\n'


def _css() -> str:
    return f"{STYLE}{series_style()}".replace("<", "")


def _page(search: Search, title: str) -> str:
    best = ", ".join(f"{field} = {shown(value)}" for field, value in search.best.settings.items())
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{escape(title)}</title>\n<style>{_css()}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        f'<p class="verdict">Best of {len(search.trials)} trials: {escape(search.measure)} {search.best.value:,.5g} '
        f"with {escape(best)}.</p>\n<figure>{progress_chart(search)}</figure>\n"
        f"<h2>Round by round</h2>\n<figure>{curve_chart(search)}</figure>\n<h2>Trials</h2>\n"
        f"{html_table(('trial', 'state', search.measure, 'settings'), rows(search))}\n</body>\n</html>\n"
    )


def files(out: Path) -> tuple[Path, ...]:
    """What a search leaves, in the order in which to look at it."""
    return tuple(out / name for name in ("best.yaml", "report.html", "search.svg", "trials.json", "search.db"))
