"""How much one caller may ask at once and a second: pure counting, with the clock as an argument.

work listener        per institution: a token bucket for calls, slots for control calls, slots for blob streams
enrolment listener   per peer address: a token bucket, slots for calls; and one bucket for all of them together
"""

from __future__ import annotations

import ipaddress
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from common.clock import Clock
from common.errors import TooManyRequests

CallKind = Literal["control", "blob"]

BUSY_STREAMS = 2
"""Blob streams of one institution while most places are taken: a few who drip must not shut the others out."""
_MOST_ADDRESSES = 4096
_IPV6_SITE_BITS = 64


@dataclass(frozen=True, slots=True)
class WorkLimits:
    """What one institution may hold and ask on the work listener."""

    control_calls: int = 8
    blob_streams: int = 8
    blob_streams_together: int = 32
    calls_per_second: float = 200.0
    calls_at_once: int = 400


@dataclass(frozen=True, slots=True)
class EnrolmentLimits:
    """What strangers may ask on the enrolment listener."""

    calls_per_second_per_address: float = 2.0
    calls_at_once_per_address: int = 40
    calls_held_per_address: int = 8
    calls_per_second: float = 20.0
    calls_at_once: int = 200


class TokenBucket:
    """`at_once` calls at any time, refilled at `per_second`. Not thread-safe: its owner locks."""

    def __init__(self, *, per_second: float, at_once: int, clock: Clock) -> None:
        self._per_second, self._at_once, self._clock = per_second, float(at_once), clock
        self._tokens, self._counted_at = float(at_once), clock.monotonic()

    def take(self) -> bool:
        """Takes one token if there is one."""
        now = self._clock.monotonic()
        self._tokens = min(self._at_once, self._tokens + (now - self._counted_at) * self._per_second)
        self._counted_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class CallLimiter:
    """The work listener's limits; any thread."""

    def __init__(self, limits: WorkLimits, clock: Clock) -> None:
        self._limits, self._clock = limits, clock
        self._lock = threading.Lock()
        self._held: Counter[tuple[str, CallKind]] = Counter()
        self._streams = 0
        self._buckets: dict[str, TokenBucket] = {}

    def enter(self, institution: str, kind: CallKind) -> Callable[[], None]:
        """Counts a call in; the result counts it out again, once however often it is called.

        Raises:
            TooManyRequests: a limit of this institution is reached; nothing was counted in.
        """
        with self._lock:
            most = self._most(kind)
            if not self._bucket(institution).take():
                raise TooManyRequests(
                    f"Institution {institution}: expected at most {self._limits.calls_per_second:g} calls a second, got more."
                )
            if self._held[institution, kind] >= most:
                what = "blob streams" if kind == "blob" else "control calls"
                raise TooManyRequests(
                    f"Institution {institution}: expected at most {most} {what} at once, got one more."
                )
            self._held[institution, kind] += 1
            self._streams += kind == "blob"
        return self._leave(institution, kind)

    def _most(self, kind: CallKind) -> int:
        """How many calls of that kind one institution may hold now."""
        limits = self._limits
        if kind == "control":
            return limits.control_calls
        busy = 4 * self._streams >= 3 * limits.blob_streams_together
        return min(limits.blob_streams, BUSY_STREAMS) if busy else limits.blob_streams

    def _leave(self, institution: str, kind: CallKind) -> Callable[[], None]:
        left = False

        def leave() -> None:
            nonlocal left
            with self._lock:
                if not left:
                    left = True
                    self._held[institution, kind] -= 1
                    self._streams -= kind == "blob"

        return leave

    def _bucket(self, institution: str) -> TokenBucket:
        if institution not in self._buckets:  # bounded by the roster: callers are members
            limits = self._limits
            self._buckets[institution] = TokenBucket(
                per_second=limits.calls_per_second, at_once=limits.calls_at_once, clock=self._clock
            )
        return self._buckets[institution]


class AddressLimiter:
    """The enrolment listener's limits; any thread. Remembers the 4096 addresses that called last."""

    def __init__(self, limits: EnrolmentLimits, clock: Clock) -> None:
        self._limits, self._clock = limits, clock
        self._lock = threading.Lock()
        self._all = TokenBucket(per_second=limits.calls_per_second, at_once=limits.calls_at_once, clock=clock)
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()
        self._held: Counter[str] = Counter()

    def admit(self, address: str) -> Callable[[], None]:
        """Counts a call in; the result counts it out again, once however often it is called.

        Raises:
            TooManyRequests: this address, or all together, called too often, or this address holds too many calls.
        """
        with self._lock:
            if not self._bucket(address).take():
                most = self._limits.calls_per_second_per_address
                raise TooManyRequests(f"Address {address}: expected at most {most:g} calls a second, got more.")
            if not self._all.take():
                raise TooManyRequests(
                    "The enrolment listener is busy: more calls a second than it takes from everybody."
                )
            held = self._limits.calls_held_per_address
            if self._held[address] >= held:
                raise TooManyRequests(f"Address {address}: expected at most {held} calls at once, got one more.")
            self._held[address] += 1
        return self._leave(address)

    def _leave(self, address: str) -> Callable[[], None]:
        left = False

        def leave() -> None:
            nonlocal left
            with self._lock:
                if not left:
                    left = True
                    self._held[address] -= 1
                    if not self._held[address]:
                        del self._held[address]  # only who calls now is remembered

        return leave

    def _bucket(self, address: str) -> TokenBucket:
        if address not in self._buckets:
            limits = self._limits
            self._buckets[address] = TokenBucket(
                per_second=limits.calls_per_second_per_address,
                at_once=limits.calls_at_once_per_address,
                clock=self._clock,
            )
        self._buckets.move_to_end(address)
        while len(self._buckets) > _MOST_ADDRESSES:
            self._buckets.popitem(last=False)
        return self._buckets[address]


def peer_address(peer: str) -> str:
    """Whom a limit counts: the host of grpc's peer text (`ipv4:10.0.0.1:5000`), of IPv6 the /64 that one site holds."""
    host = peer.split(":", 1)[-1].rpartition(":")[0].strip("[]").replace("%5B", "").replace("%5D", "")
    try:
        address = ipaddress.ip_address(host.split("%")[0])
    except ValueError:
        return peer[:100]
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, _IPV6_SITE_BITS), strict=False))
    return str(address)
