from __future__ import annotations

import pytest

from common.clock import ManualClock
from common.errors import TooManyRequests
from coordinator.api.limits import (
    BUSY_STREAMS,
    AddressLimiter,
    CallLimiter,
    EnrolmentLimits,
    TokenBucket,
    WorkLimits,
    peer_address,
)


def test_a_bucket_gives_its_tokens_and_refills_with_time() -> None:
    clock = ManualClock()
    bucket = TokenBucket(per_second=2, at_once=3, clock=clock)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    clock.advance(seconds=1)
    assert [bucket.take() for _ in range(3)] == [True, True, False]
    clock.advance(seconds=3600)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]


def test_an_institutions_streams_and_calls_are_counted_apart() -> None:
    limiter = CallLimiter(WorkLimits(control_calls=1, blob_streams=2), ManualClock())
    leave = limiter.enter("north", "blob")
    limiter.enter("north", "blob")
    limiter.enter("north", "control")
    with pytest.raises(
        TooManyRequests, match=r"Institution north: expected at most 2 blob streams at once, got one more\."
    ):
        limiter.enter("north", "blob")
    with pytest.raises(TooManyRequests, match=r"Institution north: expected at most 1 control calls at once"):
        limiter.enter("north", "control")
    limiter.enter("south", "blob")
    leave()
    leave()
    limiter.enter("north", "blob")
    with pytest.raises(TooManyRequests):
        limiter.enter("north", "blob")


def test_an_institutions_rate_is_its_own() -> None:
    clock = ManualClock()
    limiter = CallLimiter(WorkLimits(calls_per_second=1, calls_at_once=2), clock)
    for _ in range(2):
        limiter.enter("north", "control")()
    with pytest.raises(TooManyRequests, match=r"Institution north: expected at most 1 calls a second, got more\."):
        limiter.enter("north", "control")
    limiter.enter("south", "control")()
    clock.advance(seconds=1)
    limiter.enter("north", "control")()


def test_where_most_places_are_taken_one_institution_gets_few() -> None:
    limiter = CallLimiter(WorkLimits(blob_streams=6, blob_streams_together=8), ManualClock())
    leave = [limiter.enter("north", "blob") for _ in range(6)]
    for _ in range(BUSY_STREAMS):
        limiter.enter("south", "blob")
    with pytest.raises(
        TooManyRequests, match=r"Institution south: expected at most 2 blob streams at once, got one more\."
    ):
        limiter.enter("south", "blob")
    limiter.enter("east", "blob")
    for each in leave:
        each()
    limiter.enter("south", "blob")


def test_an_address_holds_few_calls_at_once() -> None:
    limiter = AddressLimiter(EnrolmentLimits(calls_held_per_address=2), ManualClock())
    leave = limiter.admit("10.0.0.1")
    limiter.admit("10.0.0.1")
    with pytest.raises(TooManyRequests, match=r"Address 10\.0\.0\.1: expected at most 2 calls at once, got one more\."):
        limiter.admit("10.0.0.1")
    limiter.admit("10.0.0.2")()
    leave()
    leave()
    limiter.admit("10.0.0.1")
    assert set(limiter._held) == {"10.0.0.1"}


def test_strangers_are_limited_by_address_and_together() -> None:
    clock = ManualClock()
    limits = EnrolmentLimits(
        calls_per_second_per_address=1, calls_at_once_per_address=2, calls_per_second=1, calls_at_once=3
    )
    limiter = AddressLimiter(limits, clock)
    limiter.admit("10.0.0.1")
    limiter.admit("10.0.0.1")
    with pytest.raises(TooManyRequests, match=r"Address 10\.0\.0\.1: expected at most 1 calls a second, got more\."):
        limiter.admit("10.0.0.1")
    limiter.admit("10.0.0.2")
    with pytest.raises(TooManyRequests, match="The enrolment listener is busy"):
        limiter.admit("10.0.0.3")
    clock.advance(seconds=1)
    limiter.admit("10.0.0.1")


def test_what_an_address_limiter_remembers_is_bounded() -> None:
    limits = EnrolmentLimits(calls_at_once_per_address=1, calls_at_once=100_000)
    limiter = AddressLimiter(limits, ManualClock())
    for number in range(5000):
        limiter.admit(f"10.{number // 256}.{number % 256}.1")
    assert len(limiter._buckets) == 4096


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.1:5000", "10.0.0.1"),
        ("ipv6:[2001:db8:1:2:3::4]:5000", "2001:db8:1:2::/64"),
        ("ipv6:%5B2001:db8:1:2:3::4%5D:5000", "2001:db8:1:2::/64"),
        ("ipv6:[fe80::1%25eth0]:5000", "fe80::/64"),
        ("unix:/tmp/socket", "unix:/tmp/socket"),
    ],
)
def test_a_limit_counts_hosts_not_ports(peer: str, address: str) -> None:
    assert peer_address(peer) == address
