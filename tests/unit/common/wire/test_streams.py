"""How many streams and how large a window, by round-trip time, inside the memory bound."""

from __future__ import annotations

import pytest

from common.wire.channel import WINDOW_BYTES
from common.wire.streams import (
    MOST_STREAMS,
    MOST_WINDOWS_BYTES,
    PLAIN,
    carriage,
)

MIB = 1024 * 1024


@pytest.mark.parametrize(("milliseconds", "streams"), [(0.2, 1), (4.9, 1), (5, 2), (19, 2), (30, 4), (50, 8), (300, 8)])
def test_a_longer_way_has_more_streams(milliseconds: float, streams: int) -> None:
    assert carriage(1000, milliseconds / 1000).streams == streams


def test_near_by_the_connection_that_is_there_is_used() -> None:
    assert carriage(1000, 0.001) == PLAIN
    assert PLAIN.plain


def test_small_blobs_are_not_divided() -> None:
    assert carriage(3, 0.2) == PLAIN
    assert carriage(5, 0.2).streams == 5


def test_a_wish_counts_and_a_window_fits_the_way() -> None:
    assert carriage(1000, 0.1, streams=1).window_bytes == 7 * MIB
    assert carriage(1000, 0.001, streams=3).streams == 3
    assert carriage(1000, 0.001, streams=3).window_bytes == WINDOW_BYTES
    assert carriage(1000, 10.0, streams=1).window_bytes == 8 * MIB


@pytest.mark.parametrize("streams", range(1, MOST_STREAMS + 1))
def test_windows_together_stay_inside_the_bound(streams: int) -> None:
    how = carriage(1000, 10.0, streams=streams)
    assert how.streams * how.window_bytes <= MOST_WINDOWS_BYTES


def test_a_slow_limit_is_not_cut_into_slower_streams() -> None:
    assert carriage(1000, 0.1, bytes_per_second=62_500).streams == 1
    assert carriage(1000, 0.1, bytes_per_second=1_250_000).streams == 2
    assert carriage(1000, 0.1, bytes_per_second=125e6).streams == 8
