"""A report in words: for a terminal of 80 columns, and as one HTML file that needs nothing else."""

from __future__ import annotations

import textwrap
from html import escape

from common.terminal import WIDTH, printable
from common.verify.report import NOT_PROVEN, Check, Finding, Outcome, Report

FINDINGS_SHOWN = 20
"""Of each check; JSON has all of them."""
_MARKS = {Outcome.VERIFIED: "ok", Outcome.GAPS: "gap", Outcome.FAILED: "FAILED"}
_RESULTS = {
    Outcome.VERIFIED: "Verified.",
    Outcome.GAPS: "Verified, with gaps: nothing that could be checked is wrong.",
    Outcome.FAILED: "FAILED: something is not as it must be. Keep every file, and do not go on.",
}


def as_text(report: Report) -> str:
    """At most 80 columns, no colour."""
    lines = []
    if report.entries:  # none where the file itself could not be read
        lines = [
            f"{report.consortium or 'an unknown consortium'}, {report.entries} entries",
            f"fingerprint {report.fingerprint}",
            "",
        ]
    for check in report.checks:
        lines += _check(check)
    return "\n".join([*lines, "", _RESULTS[report.outcome], "", *textwrap.wrap(NOT_PROVEN, WIDTH)])


def _check(check: Check) -> list[str]:
    lines = _wrapped(f"{_MARKS[check.outcome]:<7} {check.question}", 8)
    lines += [" " * 8 + line for line in textwrap.wrap(printable(check.examined), WIDTH - 8, break_on_hyphens=False)]
    for finding in check.findings[:FINDINGS_SHOWN]:
        lines += _wrapped(" " * 8 + "- " + sentence(finding), 10)
    if len(check.findings) > FINDINGS_SHOWN:
        lines.append(f"{' ' * 8}- and {len(check.findings) - FINDINGS_SHOWN} more; --format json has all of them")
    return lines


def sentence(finding: Finding) -> str:
    """A finding with leaf, signer, expected and got, as far as they are known."""
    where = f"leaf {finding.leaf}: " if finding.leaf is not None else ""
    parts = [f"{name} {value}" for name, value in (("expected", finding.expected), ("got", finding.got)) if value]
    parts += [f"signed by {finding.signer}"] if finding.signer else []
    return printable(where + finding.text + (f" ({'; '.join(parts)})" if parts else ""))


def _wrapped(text: str, indent: int) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=" " * indent, break_on_hyphens=False, drop_whitespace=True)


_STYLE = """
:root { color-scheme: light dark; --bg: #fff; --fg: #1d2530; --soft: #5b6672; --rule: #dde2e8; --ok: #0f7a5d; --gap: #915b00;
  --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --bg: #12161c; --fg: #e4e9ef; --soft: #9aa5b1; --rule: #2b333d; --ok: #4fd1ab;
  --gap: #e5bd54; --bad: #ff8a80; } }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 52rem; background: var(--bg); color: var(--fg);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.6rem; } .soft { color: var(--soft); } code { overflow-wrap: anywhere; }
section { border-top: 1px solid var(--rule); padding: .8rem 0; } h2 { font-size: 1.05rem; margin: 0; }
.verified { color: var(--ok); } .verified-with-gaps { color: var(--gap); } .failed { color: var(--bad); }
"""


def as_html(report: Report) -> str:
    """The same for a browser: light and dark, without scripts."""
    sections = "".join(_section(check) for check in report.checks)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Verification of {escape(report.consortium)}</title>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style><h1>Verification of {escape(report.consortium)}</h1>"
        f"<p class=soft>{report.entries} entries, fingerprint <code>{escape(report.fingerprint)}</code></p>"
        f'<p class="{report.outcome}"><strong>{escape(_RESULTS[report.outcome])}</strong></p>{sections}'
        f"<section><p class=soft>{escape(NOT_PROVEN)}</p></section></html>\n"
    )


def _section(check: Check) -> str:
    findings = "".join(f'<li class="{finding.outcome}">{escape(sentence(finding))}</li>' for finding in check.findings)
    mark = f'<span class="{check.outcome}">{_MARKS[check.outcome]}</span>'
    body = f"<p class=soft>{escape(printable(check.examined))}</p>" + (f"<ul>{findings}</ul>" if findings else "")
    return f"<section><h2>{mark} {escape(check.question)}</h2>{body}</section>"
