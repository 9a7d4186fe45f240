"""`run watch` without a terminal: one line an event."""

from __future__ import annotations

import io
from datetime import UTC

from common.terminal import Terminal
from common.wire.messages import TransferProgress
from coordinator.commands.watching import Watcher
from coordinator.ports import ParticipantView, RunView
from tests.unit.coordinator.commands.a_view import NOW, REFUSAL, a_view


def shown(*views: RunView) -> list[str]:
    out = io.StringIO()
    watcher = Watcher(Terminal(stdout=out, stderr=out), lambda: NOW, UTC)
    for view in views:
        watcher.show(view)
    return out.getvalue().splitlines()


def test_each_event_is_one_line_and_stands_once() -> None:
    once = shown(a_view())
    assert shown(a_view(), a_view()) == once
    assert once[0] == (
        "round 1 committed (train, all-contributed) 3/3 in 40.0 s, 4.0 MB; base model's perplexity 100.00"
    )
    assert "round 3/9  north                training  15/25 steps  1,204 tokens/s" in once
    assert "round 3/9  west                 refused  quorum-too-small budget" in once
    assert once[-1] == "tiny-3f2a90  collecting"


def test_being_away_is_a_state_not_silence() -> None:
    assert "round 3/9  south                outside-hours until 18:00" in shown(a_view())


def test_a_new_end_of_an_absence_is_an_event() -> None:
    later = ParticipantView("south", "outside-hours", available_at="2026-01-01T19:00:00.000Z")
    assert shown(a_view(), a_view(participants=(later,)))[-1].endswith("outside-hours until 19:00")


def test_a_long_transfer_has_a_line_a_quarter_and_a_short_one_has_none() -> None:
    def sending(percent: int, rate: int) -> RunView:
        moving = TransferProgress(percent * 1_000_000, 100_000_000, rate)
        return a_view(participants=(ParticipantView("north", "sending", transfer=moving),))

    slow = [line for line in shown(*(sending(percent, 125_000) for percent in (1, 24, 26, 49, 51))) if "north" in line]
    assert slow == [
        "round 3/9  north                sending  1 % of 100.0 MB, 1 Mbit/s, 13 min left",
        "round 3/9  north                sending  26 % of 100.0 MB, 1 Mbit/s, 10 min left",
        "round 3/9  north                sending  51 % of 100.0 MB, 1 Mbit/s, 7 min left",
    ]
    assert len([line for line in shown(*(sending(at, 10**8) for at in (1, 30, 60))) if "north" in line]) == 1


def test_a_refusal_stands_once_in_neutral_words() -> None:
    lines = [line for line in shown(a_view(), a_view(refusals=(REFUSAL,)), a_view(refusals=(REFUSAL,))) if "77" in line]
    assert lines == [
        "refused  north: contribution refused: non-finite-delta (usually a bug), round 2, signed by north, ledger 77, "
        "sha256 abababababababab"
    ]
