"""The live panel: what stands in it, and that it fits 80 columns of plain characters."""

from __future__ import annotations

import io
from datetime import UTC

import pytest
from rich.console import Console

from common.wire.messages import TransferProgress
from coordinator.commands.panel import INSTITUTIONS_SHOWN, LivePanel, panel_lines
from coordinator.ports import ParticipantView, RunView
from tests.unit.coordinator.commands.a_view import NOW, REFUSAL, a_round, a_view, measured


def lines(view: RunView, width: int = 80) -> list[str]:
    return panel_lines(view, NOW, width=width, zone=UTC)


def text(view: RunView) -> str:
    return "\n".join(lines(view))


def test_the_panel_shows_phase_round_times_and_institutions() -> None:
    shown = lines(a_view())
    assert shown[0].split() == ["tiny-3f2a90", "collecting", "round", "3", "of", "9", "(train)"]
    assert shown[1] == "opened 10:02, 41 s ago; deadline 11:02; about 6 min left"
    assert shown[2] == "1 of 3 contributed, quorum 3; 3.0 MB fetched, 1.0 MB sent"
    assert shown[4:8] == [
        "east   contributed  [############]     25/25    6.0 MB",
        "north  training     [#######-----]     15/25    1,204 tok/s    4.0 MB",
        "south  outside-hours until 18:00",
        "west   refused      quorum-too-small budget",
    ]


def test_a_transfer_is_shown_with_rate_and_time_left() -> None:
    north = ParticipantView("north", "sending", 25, 25, transfer=TransferProgress(120_000_000, 400_000_000, 4_750_000))
    (line,) = [each for each in lines(a_view(participants=(north,))) if each.startswith("north")]
    assert line == "north  sending      30 % of 400.0 MB, 38 Mbit/s, 59 s left"


@pytest.mark.parametrize("width", [80, 60, 40])
def test_no_line_is_wider_than_the_terminal_and_none_leaves_ascii(width: int) -> None:
    wide = a_view(
        run="a" * 63,
        participants=(ParticipantView("n" * 63, "training", 10**6, 10**6, 10**9, 10**12, 10**12, 2**40, (), 1e7),),
        refusals=(REFUSAL,) * 9,
    )
    for view in (a_view(), wide):
        shown = lines(view, width)
        assert max(map(len, shown)) <= width
        assert all(line.isascii() for line in shown)


def test_control_characters_of_peers_do_not_reach_the_terminal() -> None:
    hostile = a_view(participants=(ParticipantView("north", "refused", reasons=("\x1b[2Jgone",)),))
    assert "\x1b" not in text(hostile)


def test_the_pooled_curve_has_its_scale() -> None:
    shown = text(a_view())
    assert "perplexity  100.0 |*" in shown
    assert "            50.00 now, 100.00 at first; pooled over institutions" in shown


def test_single_losses_are_shown_where_the_view_holds_them_alone() -> None:
    assert "of each" not in text(a_view())
    assert "train loss" not in text(a_view())
    open_plan = a_view(
        rounds=(a_round(1, evaluations=(measured(40.0), measured(30.0, "east"), measured(50.0, "north"))),),
        participants=(ParticipantView("north", "training", 1, 2, loss_fixed=3 * 65536),),
    )
    assert "of each     east 30.00, north 50.00 (round 1)" in text(open_plan)
    assert "train loss  north 3.000" in text(open_plan)


def test_refusals_are_shown_with_code_and_digest() -> None:
    shown = text(a_view(refusals=(REFUSAL,) * 5))
    assert "refused     north: contribution refused: non-finite-delta (usually a bug), round" in shown
    assert "sha256 abababababababab" in shown
    assert "and 2 before; see `run show`" in shown


def test_of_many_institutions_those_at_work_have_lines_and_the_rest_is_counted() -> None:
    many = tuple(ParticipantView(f"site-{number:03d}", "contributed") for number in range(97))
    shown = lines(a_view(participants=(*many, ParticipantView("zeta", "training", 1, 2))))
    assert any(line.startswith("zeta ") for line in shown)
    assert f"and {98 - (INSTITUTIONS_SHOWN - 1)} more: 83 contributed" in shown


def test_while_answers_are_awaited_they_are_counted() -> None:
    asked = (ParticipantView("east", "accepted"), ParticipantView("north", "asked"))
    shown = lines(
        a_view(phase="answering", round=0, rounds=(), participants=asked, opened_at="", deadline="", eta_seconds=0)
    )
    assert "1 of 2 answered, 1 accepted, quorum 3" in shown


def test_an_ended_run_says_why() -> None:
    ended = a_view(phase="ended", end_reason="rounds-done", opened_at="", deadline="", eta_seconds=0.0)
    assert lines(ended)[0].startswith("tiny-3f2a90  ended: rounds-done ")


def test_the_live_panel_leaves_its_last_state_and_uses_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, highlight=False)
    with LivePanel(console, lambda: NOW, UTC) as panel:
        panel.show(a_view())
        panel.say("No answer. Trying again.")
    written = out.getvalue()
    assert "No answer. Trying again." in written
    assert "outside-hours until 18:00" in written
    assert "\x1b[3" not in written, "no foreground colour"
    assert "\x1b[2m" not in written, "nothing dim"
