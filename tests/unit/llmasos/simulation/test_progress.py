"""Progress as lines, and as a table on a terminal."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from llmasos.simulation.live import LiveProgress, baselines_table, open_progress, participants_table, rounds_table
from llmasos.simulation.progress import BaselineState, LineProgress, changes, size
from llmasos.simulation.watch import RunView, parse_view
from tests.support.fake_daemons import a_view


def view(**changed: Any) -> RunView:
    return parse_view(json.dumps(a_view(ended=False) | changed).encode())


def wide(renderable: object) -> str:
    out = io.StringIO()
    Console(file=out, width=80).print(renderable)
    return out.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_every_change_is_told_once() -> None:
    first = view()
    told = list(changes(None, first))
    assert told[0] == "run tiny-abc123: 2 rounds planned"
    assert "round 1 opened to north, south, west: train" in told
    assert "north: contributed, 2/2 steps, loss 4.000, 900 tokens/s" in told
    assert list(changes(first, first)) == []


def test_a_round_that_closes_is_told_with_its_numbers() -> None:
    before = view(rounds=[a_view()["rounds"][0] | {"outcome": "open"}])
    after = view(rounds=[a_view()["rounds"][0]])
    assert list(changes(before, after)) == [
        "round 1 committed: 3 of 3 contributed, started from perplexity 445.86, 1.5 s, 150.0 kB up, 300.0 kB down"
    ]


def test_an_abandoned_round_gives_its_reason() -> None:
    entry = a_view()["rounds"][0] | {"outcome": "abandoned", "reason": "no-quorum", "contributors": ["north"]}
    told = list(changes(view(rounds=[]), view(rounds=[entry])))
    assert told[-1].startswith("round 1 abandoned (no-quorum): 1 of 3 contributed")


def test_refusals_of_plans_and_deltas_are_told() -> None:
    refusing = {"institution": "north", "state": "refused", "reasons": ["quorum-too-small"]}
    refusal = {"index": 7, "institution": "south", "round": 1, "code": "non-finite-delta", "attribution": "signed-by"}
    told = list(changes(view(), view(participants=[refusing], refusals=[refusal])))
    assert told == ["north: refused, (quorum-too-small)", "refusal non-finite-delta: south, round 1"]


def test_the_end_is_told() -> None:
    assert list(changes(view(), parse_view(json.dumps(a_view()).encode())))[-1] == "run tiny-abc123 ended: rounds-done"


def test_without_a_terminal_progress_is_lines_with_the_time() -> None:
    out = io.StringIO()
    with open_progress(out, lambda: 12.34, title="demo") as show:
        show.stage("training")
        show.baseline(BaselineState("alone: north", 0, 10))
        show.baseline(BaselineState("alone: north", 5, 10, 3.0))
        show.baseline(BaselineState("alone: north", 10, 10, done=True))
    assert out.getvalue().splitlines() == [
        "   12.3 s  training",
        "   12.3 s  alone: north: training",
        "   12.3 s  alone: north: 10 steps done",
    ]


def test_a_terminal_gets_a_live_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(open_progress(Terminal(), lambda: 0.0, title="demo"), LiveProgress)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(open_progress(Terminal(), lambda: 0.0, title="demo"), LineProgress)


def test_the_live_table_shows_stage_rounds_participants_and_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    with LiveProgress(out, lambda: 61.0, title="LLMasOS demo") as show:
        show.stage("training")
        show.run(view())
        show.event("participant west was ended by signal 9")
        show.baseline(BaselineState("pooled data", 3, 10, 2.5))
    told = out.getvalue()
    assert "LLMasOS demo  01:01  training" in told
    assert "participant west was ended by signal 9" in told
    assert "900" in told
    assert "\x1b[31m" not in told


def test_tables_fit_in_80_columns() -> None:
    long = view(
        participants=[
            a_view()["participants"][0] | {"institution": "data-and-numbers", "steps_done": 100, "steps_total": 100}
        ]
    )
    for shown in (rounds_table(long), participants_table(long.participants)):
        assert "…" not in wide(shown)
    assert "done" in wide(baselines_table({"x": BaselineState("x", done=True)}))


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2_100_000, "2.1 MB"), (3e15, "3000.0 TB")]
)
def test_sizes_have_decimal_units(count: float, text: str) -> None:
    assert size(count) == text
