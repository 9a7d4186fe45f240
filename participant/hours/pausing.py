"""May the worker work now? Hours, load and a person's order, looked up at the moment of asking."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from common.clock import Clock, parse_rfc3339, rfc3339
from common.errors import InvalidConfiguration, UsageError
from common.logs import get_logger
from participant.hours.gate import Closed, gate, load_per_core
from participant.memory.orders import Order, Orders
from participant.memory.records import Event, Records
from participant.policy.source import PolicySource

log = get_logger(__name__)

_DURATION = re.compile(r"(?:(\d{1,4})d)?(?:(\d{1,4})h)?(?:(\d{1,5})m)?(?:(\d{1,6})s)?")
_TIME_OF_DAY = re.compile(r"(\d{1,2}):(\d{2})")


class Gatekeeper:
    """Asks the gate with the policy, the order and the load of the moment. Any thread."""

    def __init__(
        self,
        policy: PolicySource,
        orders: Orders,
        records: Records,
        clock: Clock,
        load: Callable[[], float | None] = load_per_core,
    ) -> None:
        self._policy = policy
        self._orders = orders
        self._records = records
        self._clock = clock
        self._load = load

    def closed(self) -> Closed | None:
        """Why the worker has to rest; None: it may work.

        Without any policy that can be read nothing begins: nobody knows what the institution allows.
        """
        now = self._clock.now()
        try:
            policy = self._policy.current().policy
        except InvalidConfiguration:
            return Closed("paused", None, now=False)
        load = self._load() if policy.max_load is not None else None
        return gate(policy, self._pause(now), load, now)

    def paused(self) -> Order | None:
        """A person's standing order to pause."""
        return self._pause(self._clock.now())

    def _pause(self, now: datetime) -> Order | None:
        order = self._orders.get("pause")
        until = order.payload.get("until") if order is not None else None
        if order is None or not until or parse_rfc3339(until) > now:
            return order
        if self._orders.clear("pause"):
            log.info("pause is over", extra={"until": until})
            self._records.note(Event(rfc3339(now), "pause is over", {"until": until}))
        return None


def parse_duration(text: str) -> timedelta | None:
    """90s, 30m, 2h, 7d, or several as in 1h30m; None for any other text."""
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def parse_until(text: str, now: datetime) -> datetime:
    """The moment that a person means, UTC: a time of day of this machine's clock, a duration from now, or RFC 3339.

    Raises:
        UsageError: it is none of these, or past.
    """
    moment = _moment(text.strip(), now)
    if moment is None:
        raise UsageError(
            f"--until is {text!r}, expected a time of day (07:00), a duration (2h, 30m) or RFC 3339 with an offset.",
            "Write for example: pause --until 07:00, or pause --until 2026-11-22T07:00:00+01:00.",
        )
    if moment <= now:
        raise UsageError(f"--until {text} is past: it is {rfc3339(now)} now.", "Name a later time.")
    return moment.astimezone(UTC)


def _moment(text: str, now: datetime) -> datetime | None:
    time_of_day = _TIME_OF_DAY.fullmatch(text)
    if time_of_day is not None:
        return _next_time(int(time_of_day[1]), int(time_of_day[2]), now)
    duration = parse_duration(text)
    if duration is not None:
        return now + duration
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def _next_time(hour: int, minute: int, now: datetime) -> datetime | None:
    """The next moment at which this machine's clock shows that time: today's, else tomorrow's."""
    if hour > 23 or minute > 59:
        return None
    today = now.astimezone().replace(hour=hour, minute=minute, second=0, microsecond=0, tzinfo=None)
    for day in (today, today + timedelta(days=1)):
        moment = day.astimezone(UTC)  # a naive time is this machine's
        if moment > now:
            return moment
    return None
