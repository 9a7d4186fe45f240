"""Reports in words: 80 columns, everything escaped, nothing left out silently."""

from __future__ import annotations

from common.verify.report import NOT_PROVEN, Check, Finding, Outcome, Report
from common.verify.text import FINDINGS_SHOWN, as_html, as_text

LONG = "The contribution of a-rather-long-institution-name to round 12 of a-plan-with-a-name-0a1b2c is not the one."


def report(*findings: Finding) -> Report:
    checks = (Check("genesis", "Is it?", "entry 0"), Check("rounds", "Do they follow?", "2 of 3 rounds", findings))
    return Report("hospitals", "ab" * 32, 41, "cd" * 32, checks)


def test_a_verified_report_says_so_and_what_is_not_proven() -> None:
    text = as_text(report())
    assert "ok      Is it?" in text
    assert "\nVerified.\n" in text
    assert "".join(NOT_PROVEN.split()) in "".join(text.split())


def test_a_failure_names_leaf_expected_got_and_signer_within_80_columns() -> None:
    text = as_text(report(Finding(Outcome.FAILED, LONG, 17, "11" * 32, "22" * 32, "coordinator")))
    assert max(map(len, text.splitlines())) <= 80
    flat = " ".join(text.split())
    assert "FAILED Do they follow?" in flat
    assert f"- leaf 17: {LONG} (expected {'11' * 32}; got {'22' * 32}; signed by coordinator)" in flat


def test_many_findings_are_counted() -> None:
    text = as_text(report(*[Finding(Outcome.GAPS, f"gap {number}") for number in range(FINDINGS_SHOWN + 3)]))
    assert "and 3 more; --format json has all of them" in text
    assert "with gaps" in text


def test_nothing_that_a_ledger_says_becomes_markup_or_control() -> None:
    hostile = report(Finding(Outcome.FAILED, "<script>alert(1)</script>\x1b[31m", got="&"))
    assert "<script>" not in as_html(hostile)
    assert "\x1b" not in as_html(hostile)
    assert "\x1b" not in as_text(hostile)
    assert 'class="failed"' in as_html(hostile)


def test_json_has_everything() -> None:
    data = report(Finding(Outcome.GAPS, "a gap", 3)).as_json()
    assert (data["result"], data["entries"], data["checks"][1]["outcome"]) == (
        "verified-with-gaps",
        41,
        "verified-with-gaps",
    )
    assert data["checks"][1]["findings"][0]["leaf"] == 3
    assert [outcome.exit_code for outcome in (Outcome.VERIFIED, Outcome.GAPS, Outcome.FAILED)] == [0, 4, 1]
