"""Transfers between two hosts with a long, lossy way between them, beside plain TCP with as many streams."""

from __future__ import annotations

import pytest

from benchmarks.wan import compare
from tests.support.longlink import LongLink, Way, why_not

LACKING = why_not()
pytestmark = [
    pytest.mark.skipif(LACKING is not None, reason=str(LACKING)),
    pytest.mark.slow,
    pytest.mark.long_link,
]


def test_a_long_lossy_way_is_filled_as_well_as_by_plain_tcp() -> None:
    # 60 Mbit/s, so that the way is what limits both, and not this machine; `make bench-wan` has none of that.
    with LongLink(Way(delay_seconds=0.05, loss=0.01, rate_mbit=60)) as link:
        row = compare(link, 4, 0, seconds=5.0, iperf3=None)
    assert min(row[way]["ratio"] for way in ("up", "down")) >= 0.8, row
