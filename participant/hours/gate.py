"""May the worker work now? A pure decision from the policy's hours, a person's pause and the machine's load.

paused          ordered by a person; without `now` the round in progress goes on to its end
outside-hours   no window of the policy is open; work in progress stops at once and goes on in the next window
machine-busy    the load is above the policy's; work in progress goes on, no other begins
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from common.clock import parse_rfc3339
from common.windows import is_open, next_opening
from participant.memory.orders import Order
from participant.policy import Policy

Reason = Literal["paused", "outside-hours", "machine-busy"]


@dataclass(frozen=True, slots=True)
class Closed:
    """Why no work begins, until when as far as that is known (UTC), and whether work in progress stops at once."""

    reason: Reason
    until: datetime | None
    now: bool


def gate(policy: Policy, pause_order: Order | None, load: float | None, now: datetime) -> Closed | None:
    """None: work may begin, and go on.

    Args:
        pause_order: the standing one, `{"until": RFC 3339 or "", "now": bool}`; one whose time is over counts for nothing.
        load: of the machine, for each core (`load_per_core`); None: not known, and no rule.
    """
    windows = policy.timetable
    opens = next_opening(windows, now)
    if pause_order is not None:
        until = parse_rfc3339(pause_order.payload["until"]) if pause_order.payload["until"] else None
        if until is None:
            return Closed("paused", None, bool(pause_order.payload["now"]) or opens is not None)
        if now < until:
            # A pause may end outside hours: then work begins with the window after it.
            back = next_opening(windows, until) or until
            return Closed("paused", back, bool(pause_order.payload["now"]) or opens is not None)
    if not is_open(windows, now):
        return Closed("outside-hours", opens, now=True)
    if policy.max_load is not None and load is not None and load > policy.max_load:
        return Closed("machine-busy", None, now=False)
    return None


def load_per_core() -> float | None:
    """The machine's load of the last minute, for each core, what runs here included; None: this system does not say."""
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except OSError:
        return None
