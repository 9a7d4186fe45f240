"""The page stands alone, escapes everything, and its charts are well-formed SVG."""

from __future__ import annotations

import math
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from llmasos.simulation.report_html import curve_chart, institution_chart, page
from llmasos.simulation.results import Scores
from llmasos.simulation.svg import Bars, Mark, Series, bar_chart, line_chart, log_ticks
from tests.support.simulated import a_comparison, a_statement, some_results

SVG = "{http://www.w3.org/2000/svg}"


class Elements(HTMLParser):
    """Tags with their attributes; void elements apart, every tag must be closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(text: str) -> Elements:
    elements = Elements()
    elements.feed(text)
    elements.close()
    return elements


def test_the_page_needs_no_script_and_nothing_from_elsewhere() -> None:
    elements = parsed(page(some_results()))
    assert elements.open == []
    assert "script" not in elements.tags
    assert not {name for name, _ in elements.attributes} & {"src", "href", "onclick", "onload"}


def test_the_page_is_readable_in_light_and_dark() -> None:
    assert "prefers-color-scheme: dark" in page(some_results())


def test_what_comes_from_outside_is_escaped() -> None:
    text = page(some_results(statement=a_statement(description="<script>alert(1)</script>")))
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "&lt;b&gt;bold&lt;/b&gt;" in text


def test_a_failed_run_says_why() -> None:
    text = page(some_results(succeeded=False, comparison=None, federated=None))
    assert "The run failed: rounds-done." in text
    assert "verdict failed" in text


def test_the_curve_has_a_line_an_institution_one_for_all_text_and_marks_to_compare_with() -> None:
    chart = ElementTree.fromstring(curve_chart(some_results()))
    assert len(chart.findall(f".//{SVG}polyline")) == 4
    labels = [text.text for text in chart.findall(f".//{SVG}text") if "label" in text.get("class", "")]
    assert set(labels) == {"north", "south", "west", "all text, pooled", "best alone, pooled", "pooled data", "n-gram"}


def test_labels_at_the_lines_ends_never_overlap() -> None:
    series = [Series(f"name {index}", [(0, 10.0), (1, 5.0 + index / 1000)], index) for index in range(6)]
    chart = ElementTree.fromstring(line_chart(series, [Mark("mark", 5.0)], title="t", x_label="x", y_label="y"))
    heights = sorted(
        float(text.get("y", "0")) for text in chart.findall(f"{SVG}text") if "label" in text.get("class", "")
    )
    assert min(b - a for a, b in pairwise(heights)) >= 13.9
    assert heights[-1] <= 320


def test_a_chart_of_nothing_is_empty() -> None:
    assert line_chart([], [], title="t", x_label="x", y_label="y") == ""
    assert bar_chart([Bars("a", [("b", math.nan, 0)])], title="t") == ""
    assert institution_chart(some_results(comparison=None)) == ""


def test_a_single_point_and_equal_values_can_be_drawn() -> None:
    chart = line_chart([Series("one", [(0, 5.0)], 0)], [], title="t", x_label="x", y_label="y")
    assert ElementTree.fromstring(chart).findall(f".//{SVG}circle")


def test_infinite_perplexities_are_left_out_of_charts() -> None:
    federated = Scores(math.inf, {"north": math.inf, "south": 60.0, "west": 60.0})
    text = page(some_results(federated=federated))
    assert parsed(text).open == []
    assert "north: not measured" not in text
    assert "federated: not measured" in text


def test_names_in_charts_are_escaped() -> None:
    chart = bar_chart([Bars("a<b", [("x&y", 2.0, 0)])], title='"quoted"')
    root = ElementTree.fromstring(chart)
    assert "a<b" in [text.text for text in root.findall(f"{SVG}text")]


@pytest.mark.parametrize(("low", "high"), [(1.0, 1000.0), (20.0, 30.0), (24.0, 24.5), (0.001, 2.0)])
def test_an_axis_has_at_least_two_ticks_within_its_bounds(low: float, high: float) -> None:
    ticks = log_ticks(low, high)
    assert len(ticks) >= 2
    assert all(low <= tick <= high for tick in ticks)


def test_bars_show_each_institutions_own_text() -> None:
    chart = institution_chart(some_results(comparison=a_comparison()))
    assert chart.count("<rect") == 9
