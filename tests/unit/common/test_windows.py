"""Windows: what a text means, when a timetable opens and closes, and that no change of the clock leaves a gap."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.windows import HORIZON, Window, is_open, next_closing, next_opening

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Shanghai", "Australia/Lord_Howe", "Pacific/Apia")
MONDAY = datetime(2026, 11, 23, tzinfo=UTC)

moments = st.datetimes(datetime(2024, 1, 1), datetime(2032, 1, 1), timezones=st.just(UTC))


@st.composite
def windows(draw: st.DrawFn) -> Window:
    days = tuple(sorted(draw(st.sets(st.integers(0, 6), min_size=1))))
    start = draw(st.integers(0, 1439))
    end = draw(st.integers(0, 1440).filter(lambda minutes: minutes != start))
    return Window(days, start, end, draw(st.sampled_from(ZONES)))


timetables = st.lists(windows(), max_size=4)


def at(text: str, zone: str = "UTC") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mon-fri 18:00-07:00 Europe/Berlin", None),
        ("daily 22:00-06:00 UTC", None),
        ("sat,sun 00:00-24:00 Asia/Shanghai", None),
        ("  mon  09:00-17:00   UTC ", "mon 09:00-17:00 UTC"),
        ("mon-sun 00:00-24:00 UTC", "daily 00:00-24:00 UTC"),
        ("fri-mon 08:00-09:00 UTC", "mon,fri-sun 08:00-09:00 UTC"),
        ("wed,mon,tue,tue 08:00-09:00 UTC", "mon-wed 08:00-09:00 UTC"),
    ],
)
def test_a_window_is_written_in_its_shortest_form(text: str, shown: str | None) -> None:
    assert str(Window.parse(text)) == (shown or text)


@given(windows())
def test_what_is_written_is_read_back(window: Window) -> None:
    assert Window.parse(str(window)) == window


BROKEN = {
    "18:00-07:00 UTC": "expected days, times and a time zone, such as 'mon-fri 18:00-07:00 Europe/Berlin', got '18:00",
    "mon 18:00-07:00": "expected days, times and a time zone",
    "mon 6pm-7am UTC": "expected days, times and a time zone",
    "monday 18:00-07:00 UTC": "expected daily, or days such as mon-fri or sat,sun, got 'monday'",
    "mon- 18:00-07:00 UTC": "got 'mon-'",
    "mon,,tue 18:00-07:00 UTC": "got 'mon,,tue'",
    "mon 18:60-07:00 UTC": "expected a time from 00:00 to 24:00, got 18:60",
    "mon 18:00-24:01 UTC": "got 24:01",
    "mon 24:00-07:00 UTC": "expected a beginning before 24:00 and another end, got 24:00-07:00",
    "mon 07:00-07:00 UTC": "a whole day is 00:00-24:00",
    "mon 07:00-09:00 CEST2": "expected a time zone such as Europe/Berlin or UTC, got 'CEST2'",
    "mon 07:00-09:00 Europe": "expected a time zone",
    "mon 07:00-09:00 ../../etc/passwd": "expected a time zone",
    "mon 07:00-09:00 +02:00": "expected a time zone",
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_text_that_is_no_window_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        Window.parse(text)
    assert BROKEN[text] in str(caught.value)


def test_without_windows_it_is_always_open() -> None:
    assert is_open([], MONDAY)
    assert next_opening([], MONDAY) is None
    assert next_closing([], MONDAY) is None


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_opens() -> None:
    nights = [Window.parse("mon-fri 18:00-07:00 UTC")]
    assert not is_open(nights, at("2026-11-23 06:59"))  # the night from Sunday to Monday is no window
    assert is_open(nights, at("2026-11-23 18:00"))
    assert is_open(nights, at("2026-11-28 06:59"))  # Friday's lasts into Saturday
    assert not is_open(nights, at("2026-11-28 07:00"))
    assert next_opening(nights, at("2026-11-28 07:00")) == at("2026-11-30 18:00")
    assert next_closing(nights, at("2026-11-23 18:00")) == at("2026-11-24 07:00")


def test_windows_that_adjoin_close_as_one() -> None:
    timetable = [Window.parse("mon 18:00-24:00 UTC"), Window.parse("tue 00:00-06:00 UTC")]
    assert next_closing(timetable, at("2026-11-23 20:00")) == at("2026-11-24 06:00")


def test_a_timetable_without_a_gap_never_closes() -> None:
    assert next_closing([Window.parse("daily 00:00-24:00 Europe/Berlin")], MONDAY) is None
    assert next_closing([Window.parse("daily 06:00-18:00 UTC"), Window.parse("daily 18:00-06:00 UTC")], MONDAY) is None


def test_closed_has_no_closing_and_open_no_opening() -> None:
    mornings = [Window.parse("daily 08:00-12:00 UTC")]
    assert next_closing(mornings, at("2026-11-23 13:00")) is None
    assert next_opening(mornings, at("2026-11-23 09:00")) is None
    assert next_opening(mornings, at("2026-11-23 13:00")) == at("2026-11-24 08:00")


def test_hours_are_those_of_the_windows_time_zone() -> None:
    shanghai = [Window.parse("mon 00:00-24:00 Asia/Shanghai")]
    assert is_open(shanghai, at("2026-11-22 16:00"))  # Monday has begun there
    assert not is_open(shanghai, at("2026-11-23 16:00"))


# --- summer time: Berlin jumps from 02:00 to 03:00 on 2026-03-29, and from 03:00 back to 02:00 on 2026-10-25 ---------------


def test_a_night_is_an_hour_shorter_in_spring_and_longer_in_autumn() -> None:
    night = [Window.parse("daily 22:00-06:00 Europe/Berlin")]
    for day, hours in (("2026-03-28", 7), ("2026-10-24", 9), ("2026-11-24", 8)):
        opens = at(f"{day} 22:00", "Europe/Berlin")
        closes = next_closing(night, opens)
        assert closes is not None
        assert closes - opens == timedelta(hours=hours)


def test_a_beginning_that_the_clock_skips_is_the_moment_of_the_jump() -> None:
    window = [Window.parse("sun 02:30-05:00 Europe/Berlin")]
    assert next_opening(window, at("2026-03-28 12:00")) == at("2026-03-29 01:00")  # 03:00 there


def test_an_end_that_the_clock_skips_is_the_moment_of_the_jump() -> None:
    window = [Window.parse("sun 00:00-02:30 Europe/Berlin")]
    assert next_closing(window, at("2026-03-29 00:30")) == at("2026-03-29 01:00")


def test_a_window_that_the_clock_skips_does_not_open() -> None:
    window = [Window.parse("sun 02:10-02:50 Europe/Berlin")]
    assert next_opening(window, at("2026-03-28 12:00")) == at("2026-04-05 02:10", "Europe/Berlin")


def test_of_a_time_that_comes_twice_the_first_counts() -> None:
    early, late = [Window.parse("sun 00:00-02:30 Europe/Berlin")], [Window.parse("sun 02:30-05:00 Europe/Berlin")]
    first = at("2026-10-25 00:30")  # 02:30 there, for the first time
    assert next_closing(early, first - timedelta(hours=1)) == first
    assert not is_open(early, first + timedelta(minutes=45))  # 02:15, for the second time
    assert next_opening(late, first - timedelta(hours=1)) == first
    assert is_open(late, first + timedelta(minutes=45))


# --- what holds for every timetable ----------------------------------------------------------------------------------


@given(timetables, moments)
@example([Window.parse("fri 00:00-24:00 Pacific/Apia")], datetime(2011, 12, 27, tzinfo=UTC))  # a Friday that never was
def test_an_opening_is_a_change_from_closed_to_open(timetable: list[Window], now: datetime) -> None:
    opens = next_opening(timetable, now)
    assert (opens is None) == is_open(timetable, now)
    if opens is not None:
        assert now < opens <= now + HORIZON
        assert is_open(timetable, opens)
        assert not is_open(timetable, opens - timedelta(seconds=1))


@given(timetables, moments)
def test_a_closing_is_a_change_from_open_to_closed(timetable: list[Window], now: datetime) -> None:
    closes = next_closing(timetable, now)
    if closes is not None:
        assert is_open(timetable, now)
        assert now < closes
        assert not is_open(timetable, closes)
        assert is_open(timetable, closes - timedelta(seconds=1))


@given(windows(), moments)
def test_intervals_are_in_order_and_apart(window: Window, now: datetime) -> None:
    found = list(window.intervals(now, now + timedelta(days=14)))
    assert all(opens < closes for opens, closes in found)
    assert all(before[1] <= after[0] for before, after in pairwise(found))
