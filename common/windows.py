"""Hours in which work may be done: days, a span of the wall clock, and the time zone whose clock is meant.

    mon-fri 18:00-07:00 Europe/Berlin       opens on those days at six in the evening, closes at seven next morning
    sat,sun 00:00-24:00 Asia/Shanghai       the whole days
    daily 22:00-06:00 UTC

A window that ends before it begins goes over midnight and belongs to the day on which it opens. It opens when its zone's
clock first shows the beginning or later, and closes when that clock first shows the end or later. So each change to or from
summer time is met without a gap: a time that the clock skips is the moment of the jump, and of a time that it shows twice the
first counts. Several windows are one timetable: it is open when any of them is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
EXAMPLE = "mon-fri 18:00-07:00 Europe/Berlin"
HORIZON = timedelta(days=16)
"""How far openings and closings are looked for: two weeks hold every one of a weekly timetable, skipped days included."""

_MINUTES = 24 * 60
_FORM = re.compile(r"(?P<days>\S+) (?P<start>\d\d:\d\d)-(?P<end>\d\d:\d\d) (?P<zone>\S+)")
_Interval = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class Window:
    """One weekly span.

    Args:
        days: those on which it opens, ascending, 0 is Monday.
        start: minutes after midnight, below 1440.
        end: minutes after midnight, at most 1440; before `start` it is the next day's.
        time_zone: an IANA name.
    """

    days: tuple[int, ...]
    start: int
    end: int
    time_zone: str

    @classmethod
    def parse(cls, text: str) -> Window:
        """The window that a text says; `str` gives it back in its shortest form.

        Raises:
            ValueError: what was expected, and what came.
        """
        match = _FORM.fullmatch(" ".join(text.split()))
        if match is None:
            raise ValueError(f"expected days, times and a time zone, such as {EXAMPLE!r}, got {text!r}")
        days, zone = _parse_days(match["days"]), match["zone"]
        start, end = _parse_time(match["start"]), _parse_time(match["end"])
        if start in (_MINUTES, end):
            raise ValueError(
                f"expected a beginning before 24:00 and another end, got {match['start']}-{match['end']}; "
                "a whole day is 00:00-24:00"
            )
        _zone(zone)
        return cls(days, start, end, zone)

    def __str__(self) -> str:
        return f"{_days_text(self.days)} {_time_text(self.start)}-{_time_text(self.end)} {self.time_zone}"

    def intervals(self, first: datetime, last: datetime) -> Iterator[_Interval]:
        """When it opens and closes (UTC), for every opening that touches first … last, in order."""
        zone = _zone(self.time_zone)
        day = first.astimezone(zone).date() - timedelta(days=2)
        final = last.astimezone(zone).date()
        while day <= final:
            if day.weekday() in self.days:
                until = day + timedelta(days=1) if self.end <= self.start else day
                opens, closes = _first_shown(zone, day, self.start), _first_shown(zone, until, self.end)
                if opens < closes and closes > first and opens <= last:
                    yield opens, closes
            day += timedelta(days=1)


def is_open(windows: Sequence[Window], now: datetime) -> bool:
    """Whether work may be done at that moment; without windows it always may."""
    return not windows or _open_until(windows, now) is not None


def next_opening(windows: Sequence[Window], now: datetime) -> datetime | None:
    """When the timetable opens next, UTC; None: it is open."""
    if is_open(windows, now):
        return None
    return min(opens for window in windows for opens, _ in window.intervals(now, now + HORIZON))


def next_closing(windows: Sequence[Window], now: datetime) -> datetime | None:
    """When the timetable closes next, UTC; None: it is closed, or open for all of HORIZON. Windows that adjoin are one."""
    if not windows or (until := _open_until(windows, now)) is None:
        return None
    while (further := _open_until(windows, until)) is not None:
        until = further
        if until > now + HORIZON:
            return None
    return until


def _open_until(windows: Sequence[Window], now: datetime) -> datetime | None:
    """The latest end of those windows that are open at that moment."""
    ends = (closes for window in windows for opens, closes in window.intervals(now, now) if opens <= now < closes)
    return max(ends, default=None)


def _first_shown(zone: ZoneInfo, day: date, minutes: int) -> datetime:
    """The first moment (UTC) at which the zone's clock shows that time of that day, or later."""
    wall = datetime(day.year, day.month, day.day) + timedelta(minutes=minutes)
    moment = wall.replace(tzinfo=zone).astimezone(UTC)  # fold=0: of two moments the first
    if moment.astimezone(zone).replace(tzinfo=None) == wall:
        return moment
    # The clock skips that time. By the offset after the jump it lies before the jump, by the one before it after.
    early, late = wall.replace(tzinfo=zone, fold=1).astimezone(UTC), moment
    while late - early > timedelta(seconds=1):
        middle = early + timedelta(seconds=(late - early) // timedelta(seconds=2))
        if middle.astimezone(zone).replace(tzinfo=None) < wall:
            early = middle
        else:
            late = middle
    return late


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as err:  # OSError: the name of a folder, such as Europe
        raise ValueError(f"expected a time zone such as Europe/Berlin or UTC, got {name!r}") from err


def _parse_days(text: str) -> tuple[int, ...]:
    if text == "daily":
        return tuple(range(7))
    days: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        last = last if dash else first
        if first not in DAYS or last not in DAYS:
            raise ValueError(f"expected daily, or days such as mon-fri or sat,sun, got {text!r}")
        day, final = DAYS.index(first), DAYS.index(last)
        days.update((day + step) % 7 for step in range((final - day) % 7 + 1))
    return tuple(sorted(days))


def _days_text(days: tuple[int, ...]) -> str:
    if len(days) == 7:
        return "daily"
    spans: list[list[int]] = []
    for day in days:
        if spans and spans[-1][-1] == day - 1:
            spans[-1].append(day)
        else:
            spans.append([day])
    return ",".join(
        f"{DAYS[span[0]]}-{DAYS[span[-1]]}" if len(span) > 2 else ",".join(DAYS[day] for day in span) for span in spans
    )


def _parse_time(text: str) -> int:
    hours, minutes = int(text[:2]), int(text[3:])
    if minutes > 59 or hours * 60 + minutes > _MINUTES:
        raise ValueError(f"expected a time from 00:00 to 24:00, got {text}")
    return hours * 60 + minutes


def _time_text(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"
