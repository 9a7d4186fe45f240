"""report.html: one file that needs nothing else, for light and dark, without scripts.

Written by small functions that return HTML; whatever comes from a plan, a name or a log passes through `escape`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from llmasos.simulation.progress import size
from llmasos.simulation.results import Results, by_rounds_trained
from llmasos.simulation.svg import Bars, Mark, Series, bar_chart, finite, line_chart
from llmasos.simulation.table import COLUMNS, ROWS, explanations, shown, table_rows, verdict
from llmasos.simulation.watch import Round

FEDERATED, ALONE, POOLED_DATA = 0, 1, 2
FIRST_INSTITUTION = 3

STYLE = """
:root { color-scheme: light dark; --bg: #ffffff; --fg: #1d2530; --soft: #5b6672; --rule: #dde2e8; --card: #f6f8fa;
  --c0: #0b62c4; --c1: #c2410c; --c2: #6b7280; --c3: #0f8a6d; --c4: #9333a8; --c5: #a16207; --c6: #be185d; --c7: #0e7490; }
@media (prefers-color-scheme: dark) { :root { --bg: #12161c; --fg: #e4e9ef; --soft: #9aa5b1; --rule: #2b333d;
  --card: #1a2028; --c0: #66aefc; --c1: #fb9a5b; --c2: #a3acb8; --c3: #4fd1ab; --c4: #d59bea; --c5: #e5bd54; --c6: #f58bb4;
  --c7: #5cc8de; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 56rem; background: var(--bg); color: var(--fg);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; }
p { margin: .5rem 0; } .soft, figcaption { color: var(--soft); font-size: .92rem; }
.verdict { font-size: 1.08rem; border-left: 4px solid var(--c0); padding: .2rem 0 .2rem .9rem; margin: 1.2rem 0; }
.failed { border-color: var(--c1); }
figure { margin: .8rem 0; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .93rem; }
th, td { padding: .38rem .7rem; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; } th { color: var(--soft); font-weight: 600; }
table.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
tr.total td { border-top: 2px solid var(--rule); font-weight: 600; }
pre { background: var(--card); padding: .9rem 1rem; border-radius: 6px; overflow-x: auto; font-size: .88rem;
  white-space: pre-wrap; overflow-wrap: anywhere; } pre b { color: var(--c0); }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif; } svg text { fill: var(--fg); stroke: none; }
svg text.axis { fill: var(--soft); } svg .grid { stroke: var(--rule); }
svg line.mark { stroke: var(--soft); stroke-dasharray: 5 4; } svg text.mark { fill: var(--soft); }
polyline { fill: none; stroke-width: 1.6; } polyline.wide { stroke-width: 3; }
"""


def series_style(colours: int = 8) -> str:
    """One rule a colour: lines by stroke, dots, bars and labels by fill."""
    rules = []
    for index in range(colours):
        rules.append(f"polyline.s{index} {{ stroke: var(--c{index}); }}")
        rules.append(f"circle.s{index}, rect.s{index}, svg text.label.s{index} {{ fill: var(--c{index}); }}")
    return "\n".join(rules)


def page(results: Results) -> str:
    """The whole document."""
    parts = [
        _head(results),
        _section(
            "Who is better off" if results.comparison else "Held-out perplexity",
            _comparison_table(results) + _paragraphs(explanations(results), "soft"),
        ),
        _section("Perplexity by round", _figure(curve_chart(results), _curve_caption(results))),
        _section(
            "Each institution's own text", _figure(institution_chart(results), "Held-out perplexity, lower is better.")
        ),
        _section("Rounds", _rounds_table(results.view.rounds)),
        _section("Refusals", _refusals(results)),
        _section("Verified", _verification(results)),
        _section("A sample", _sample(results)),
        _section("Facts", _facts(results)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(results.title)}</title>\n<style>{STYLE}{series_style()}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )


def write_report_html(results: Results, file: Path) -> None:
    file.write_text(page(results), encoding="utf-8")


def curve_chart(results: Results) -> str:
    """Perplexity after each committed round: pooled strong, institutions fine, baselines as marks."""
    curve = by_rounds_trained(results.view.rounds)
    series = [
        Series(
            name, finite([(x, s.institutions[name]) for x, s in curve if name in s.institutions]), FIRST_INSTITUTION + i
        )
        for i, name in enumerate(results.institutions if len(results.institutions) <= ROWS else ())
    ]
    series.append(Series("all text, pooled", finite([(x, s.pooled) for x, s in curve]), FEDERATED, wide=True))
    marks = []
    if results.best_alone is not None:
        marks.append(Mark("best alone, pooled", results.best_alone[1]))
    if results.comparison is not None:
        marks.append(Mark("pooled data", results.comparison.pooled_data.pooled))
    if results.ngram is not None:
        marks.append(Mark("n-gram", results.ngram.scores.pooled))
    drawn = [line for line in series if line.points]
    return line_chart(
        drawn,
        marks,
        title="Held-out perplexity of the federated model by rounds trained",
        x_label="rounds trained",
        y_label="perplexity, logarithmic",
    )


def institution_chart(results: Results) -> str:
    """For each institution's held-out text: its own model, the federation's, and the upper bound."""
    comparison, federated = results.comparison, results.federated
    if comparison is None or federated is None:
        return ""
    groups = []
    for name in results.institutions if len(results.institutions) <= ROWS else ():
        models = [("alone", comparison.alone.get(name), ALONE), ("federated", federated, FEDERATED)]
        models.append(("pooled data", comparison.pooled_data, POOLED_DATA))
        values = [(label, s.institutions[name], colour) for label, s, colour in models if s and name in s.institutions]
        if values:
            groups.append(Bars(name, values))
    return (
        bar_chart(groups, title="Perplexity on each institution's own held-out text") + _bar_legend() if groups else ""
    )


def _bar_legend() -> str:
    names = (("alone", ALONE), ("federated", FEDERATED), ("pooled data", POOLED_DATA))
    return (
        '<p class="soft">'
        + " · ".join(f'<span style="color:var(--c{colour})">■</span> {escape(name)}' for name, colour in names)
        + " (top to bottom)</p>"
    )


def _head(results: Results) -> str:
    state = "" if results.succeeded else " failed"
    plan = results.statement.plan
    return (
        f"<h1>{escape(results.title)}</h1>\n"
        f'<p class="soft">{escape(plan.description)}</p>\n'
        f'<p class="soft">Run {escape(results.view.run)}, plan {escape(plan.name)}: {len(results.institutions)} '
        f"institutions, {results.view.trained_rounds} of {plan.rounds} rounds trained, {results.timing.total:.0f} s.</p>\n"
        f'<p class="verdict{state}">{escape(verdict(results))}</p>'
    )


def _section(title: str, body: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{body}" if body else ""


def _figure(chart: str, caption: str) -> str:
    return f"<figure>{chart}<figcaption>{escape(caption)}</figcaption></figure>" if chart else ""


def _paragraphs(lines: Iterable[str], css: str) -> str:
    return "".join(f'<p class="{css}">{escape(line)}</p>' for line in lines)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, total: bool = False) -> str:
    """An HTML table; with `total`, the last row is set apart."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = ""
    for index, row in enumerate(rows):
        css = ' class="total"' if total and index == len(rows) - 1 else ""
        body += f"<tr{css}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n"
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _comparison_table(results: Results) -> str:
    rows = [shown(results, row) for row in table_rows(results)]
    return table(shown(results, ("held-out text of", *COLUMNS)), rows, total=True)


def _curve_caption(results: Results) -> str:
    return (
        f"The federated model after each round, {results.statement.plan.local.steps} optimizer steps an institution each. "
        "Dashed: the best model trained alone, the one trained on pooled data, and the n-gram model, on all held-out text."
    )


def _rounds_table(rounds: Sequence[Round]) -> str:
    header = ("round", "task", "outcome", "perplexity before", "contributed", "seconds", "up", "down")
    rows = [
        (
            str(entry.round),
            entry.task,
            entry.outcome + (f" ({entry.reason})" if entry.outcome == "abandoned" and entry.reason else ""),
            "-" if entry.pooled is None else f"{entry.pooled:,.2f}",
            f"{len(entry.contributors)} of {len(entry.cohort)}",
            f"{entry.seconds:.1f}",
            size(entry.bytes_up),
            size(entry.bytes_down),
        )
        for entry in rounds
    ]
    return table(header, rows) if rows else ""


def _refusals(results: Results) -> str:
    rows = [(str(r.index), r.institution, str(r.round), r.code, r.attribution) for r in results.view.refusals]
    return table(("ledger index", "institution", "round", "code", "attribution"), rows) if rows else ""


def _verification(results: Results) -> str:
    found = results.verification
    if found is None:
        return ""
    rows = [(side.who, side.outcome, str(side.report["entries"]), side.rounds) for side in found.sides]
    return table(("side", "result", "entries", "rounds"), rows) + _paragraphs(found.findings, "soft")


def _sample(results: Results) -> str:
    if not results.sample_text:
        return ""
    return f"<pre><b>{escape(results.sample_prompt)}</b>{escape(results.sample_text)}</pre>"


def _facts(results: Results) -> str:
    timing = results.timing
    rows = [
        ("final model", results.digest or "-"),
        (
            "preparing, federation, baselines, verification",
            f"{timing.prepare:.1f} s, {timing.federation:.1f} s, {timing.baselines:.1f} s, {timing.verification:.1f} s",
        ),
        *((name, version) for name, version in results.versions.items()),
    ]
    body = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>\n" for name, value in rows)
    return f'<table class="facts"><tbody>{body}</tbody></table>'
