"""Numbers, times and states as the operator's commands write them."""

from __future__ import annotations

from datetime import UTC, timedelta, timezone

import pytest

from common.errors import UsageError
from coordinator.commands import formats
from coordinator.ports import ParticipantView, RefusalView
from coordinator.watching import wording
from tests.unit.coordinator.commands.a_view import NOW, REFUSAL, a_round, measured


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (12_100_000, "12.1 MB"), (3e12, "3.0 TB")]
)
def test_bytes_are_in_powers_of_ten(count: float, text: str) -> None:
    assert formats.bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.2 s"), (45, "45 s"), (720, "12 min"), (12_000, "3 h 20 min"), (7200, "2 h"), (187_200, "2 d 4 h")],
)
def test_durations_are_in_words(seconds: float, text: str) -> None:
    assert formats.duration_text(seconds) == text


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86400)])
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert formats.parse_duration(text, "--timeout") == seconds


@pytest.mark.parametrize("text", ["", "2", "2 h", "-1h", "0s", "1.5h", "2w"])
def test_another_duration_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match=f"--timeout is '{text}', expected a number and s, m, h or d, such as 2h."):
        formats.parse_duration(text, "--timeout")


def test_a_moment_of_today_is_a_time_another_day_is_named() -> None:
    assert formats.moment_text("2026-01-01T18:00:00.000Z", now=NOW, zone=UTC) == "18:00"
    assert formats.moment_text("2026-01-03T06:30:00.000Z", now=NOW, zone=UTC) == "Jan 3 06:30"
    berlin = timezone(timedelta(hours=1))
    assert formats.moment_text("2026-01-01T23:30:00.000Z", now=NOW, zone=berlin) == "Jan 2 00:30"
    assert formats.moment_text("soon", now=NOW, zone=UTC) == "soon"


def test_being_away_is_a_state_with_its_end() -> None:
    away = ParticipantView("south", "outside-hours", available_at="2026-01-01T18:00:00.000Z")
    assert formats.state_text(away, now=NOW, zone=UTC) == "outside-hours until 18:00"
    assert formats.state_text(ParticipantView("south", "paused"), now=NOW, zone=UTC) == "paused"


def test_a_bar_is_ascii_and_never_longer_than_its_width() -> None:
    assert formats.steps_bar(0, 10, 5) == "[-----]"
    assert formats.steps_bar(5, 10, 5) == "[##---]"
    assert formats.steps_bar(30, 10, 5) == "[#####]"
    assert formats.steps_bar(3, 0, 5) == ""


def test_a_refusal_is_neutral_and_names_the_evidence() -> None:
    assert formats.refusal_text(REFUSAL) == (
        "contribution refused: non-finite-delta (usually a bug), round 2, signed by north, ledger 77, "
        "sha256 abababababababab"
    )
    answer = RefusalView(5, "north", 0, "wrong-signer", "sent-on-connection", "")
    assert formats.refusal_text(answer) == "answer refused: wrong-signer, sent on north's connection, ledger 5"


def test_the_words_of_refusals_accuse_nobody() -> None:
    for code in wording.USUALLY:
        text = wording.refused(code, round_number=1)
        assert not any(word in text for word in ("attack", "malicious", "cheat", "lie", "fraud")), text


def test_perplexity_is_of_the_pool() -> None:
    record = a_round(1, evaluations=(measured(50.0, "east"), measured(40.0)))
    assert formats.pooled(record) == pytest.approx(40.0, rel=1e-4)
    assert formats.pooled(a_round(1, evaluations=())) is None


def test_a_curve_goes_from_the_highest_to_the_lowest_value() -> None:
    lines = formats.curve([100.0, 99.0, 50.0, 49.0, 10.0], width=20, height=4)
    assert lines == ["100.0 |**", "      |  **", "      |", " 10.0 |    *"]


def test_a_long_curve_keeps_its_ends_and_its_width() -> None:
    lines = formats.curve([float(1000 - number) for number in range(500)], width=30, height=5)
    assert max(map(len, lines)) <= 30
    assert lines[0].startswith("1000.0 |*")
    assert lines[-1].startswith(" 501.0 |")
    assert lines[-1].endswith("*")


@pytest.mark.parametrize("values", [[], [3.0], [float("inf"), 3.0], [0.0, 3.0]])
def test_one_value_is_no_curve(values: list[float]) -> None:
    assert formats.curve(values, width=30, height=5) == []


def test_a_flat_curve_is_one_line_of_points() -> None:
    assert formats.curve([5.0, 5.0], width=12, height=2) == ["5.0 |", "5.0 |**"]
