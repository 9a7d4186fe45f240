"""Over which connections a blob goes, by how long the way is and what there is on it."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.errors import CoordinatorUnreachable, LLMasOSError, TooManyRequests, UnknownCertificate
from common.wire import ways
from common.wire.bulk.line import PIECE_BYTES
from common.wire.channel import MESSAGE_BYTES, MOST_PIECE_BYTES
from common.wire.lanes import OwnLane, SharedLane
from common.wire.pacing import Pacer
from common.wire.streams import SMALL_CHUNKS, Streams
from common.wire.transfer import TransferOptions
from common.wire.ways import Link, Ways
from tests.support.networks import FakeProxy, Server, unused_port

NEAR, FAR = 0.001, 0.1
UNPACED = Pacer()
OURS = object()
"""The stub of the session's channel."""


def blob(chunks: int = 100) -> BlobRef:
    return BlobRef(algorithm="blake3", size=chunks * CHUNK_BYTES, root="00" * 32)


class Closable:
    """A channel, or a stub of bulk connections."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Bulk:
    """A BulkWay that gives what a test sets."""

    def __init__(self) -> None:
        self.stub = Closable()
        self.there = True
        self.failure: LLMasOSError | None = None
        self.asked = 0

    def blobs(self, stub: Any) -> Closable | None:
        assert stub is OURS
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        return self.stub if self.there else None


class Place:
    """Ways over a link whose length a test sets."""

    def __init__(self, streams: Streams = "auto", address: str = "127.0.0.1:7443") -> None:
        self.bulk, self.windows, self.asked = Bulk(), list[int](), 0
        link = Link(OURS, self._channel, self._ask)
        self.ways = Ways(address, link, self.bulk, streams)  # type: ignore[arg-type]

    def _channel(self, window_bytes: int) -> Closable:
        self.windows.append(window_bytes)
        return Closable()

    def _ask(self) -> None:
        self.asked += 1


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float | LLMasOSError]:
    """What opening a connection takes, one after the other; the last again and again."""
    taken: list[float | LLMasOSError] = [FAR]

    def handshake(host: str, port: int) -> float:
        found = taken.pop(0) if len(taken) > 1 else taken[0]
        if isinstance(found, LLMasOSError):
            raise found
        return found

    monkeypatch.setattr(ways, "_timed_handshake", handshake)
    return taken


@pytest.mark.parametrize(("seconds_there", "chunks"), [(NEAR, 100), (FAR, SMALL_CHUNKS - 1)])
def test_near_by_and_for_small_blobs_it_is_the_sessions_own_connection(
    seconds: list[float | LLMasOSError], seconds_there: float, chunks: int
) -> None:
    seconds[:] = [seconds_there]
    place = Place()
    with place.ways.opened(blob(chunks), UNPACED, None) as (lanes, options):
        assert [lane.stub for lane in lanes] == [OURS]
        assert options.most_piece_bytes == MOST_PIECE_BYTES
    assert place.bulk.asked == 0, "no bulk listener is looked for"


def test_near_by_a_limited_transfer_has_small_pieces(seconds: list[float | LLMasOSError]) -> None:
    seconds[:] = [NEAR]
    pacer = Pacer(lambda: 1e6)
    with Place().ways.opened(blob(), pacer, None) as (_, options):
        assert (options.most_piece_bytes, options.pacer) == (MESSAGE_BYTES, pacer)


@pytest.mark.usefixtures("seconds")
def test_a_long_way_goes_over_bulk_connections_that_end_with_the_transfer() -> None:
    place = Place()
    with place.ways.opened(blob(), UNPACED, TransferOptions(durable=False)) as (lanes, options):
        assert [lane.stub for lane in lanes] == [place.bulk.stub] * 8
        assert (options.most_piece_bytes, options.durable) == (PIECE_BYTES, False)
        assert not place.bulk.stub.closed
    assert place.bulk.stub.closed
    assert place.windows == []


def test_streams_that_were_asked_for_go_over_bulk_connections_near_by_too(
    seconds: list[float | LLMasOSError],
) -> None:
    seconds[:] = [NEAR]
    place = Place(streams=3)
    with place.ways.opened(blob(), UNPACED, None) as (lanes, _):
        assert [lane.stub for lane in lanes] == [place.bulk.stub] * 3


@pytest.mark.usefixtures("seconds")
@pytest.mark.parametrize("failure", [None, CoordinatorUnreachable("gone"), TooManyRequests("busy")])
def test_a_long_way_without_a_bulk_listener_takes_channels_with_the_window_that_it_asks_for(
    failure: LLMasOSError | None,
) -> None:
    place = Place()
    place.bulk.there, place.bulk.failure = False, failure
    with place.ways.opened(blob(), UNPACED, None) as (lanes, options):
        assert len(lanes) == 8
        assert all(isinstance(lane, OwnLane) for lane in lanes)
        assert options.most_piece_bytes == MESSAGE_BYTES
    assert place.windows == [], "channels are made at their first calls"


@pytest.mark.usefixtures("seconds")
def test_a_refusal_of_the_bulk_listeners_port_is_no_reason_to_go_another_way() -> None:
    place = Place()
    place.bulk.failure = UnknownCertificate("No active member holds certificate 7.")
    with pytest.raises(UnknownCertificate, match="holds certificate 7"), place.ways.opened(blob(), UNPACED, None):
        pass


@pytest.mark.parametrize("failure", [CoordinatorUnreachable("gone"), TooManyRequests("busy")])
def test_a_way_that_cannot_be_measured_is_taken_as_it_is(
    seconds: list[float | LLMasOSError], failure: LLMasOSError
) -> None:
    """The transfer itself says what is wrong."""
    seconds[:] = [failure]
    with Place(streams=8).ways.opened(blob(), UNPACED, None) as (lanes, _):
        assert isinstance(lanes[0], SharedLane)
        assert [lane.stub for lane in lanes] == [OURS]


@pytest.mark.usefixtures("seconds")
def test_closing_ends_what_is_open_and_nothing_else() -> None:
    place = Place()
    with place.ways.opened(blob(), UNPACED, None):
        place.ways.close()
        assert place.bulk.stub.closed
        place.bulk.stub.closed = False
    place.bulk.stub.closed = False
    place.ways.close()
    assert not place.bulk.stub.closed


@pytest.mark.usefixtures("seconds")
def test_connections_end_also_where_the_transfer_fails() -> None:
    place = Place()
    with pytest.raises(KeyError), place.ways.opened(blob(), UNPACED, None):
        raise KeyError("a bug")
    assert place.bulk.stub.closed


# --- how long the way is --------------------------------------------------------------------------------------------------


def test_the_shortest_of_some_tries_counts_and_is_remembered(
    seconds: list[float | LLMasOSError], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds[:] = [0.3, 0.02, 0.1, 0.5]
    place = Place()
    assert [place.ways.round_trip_seconds() for _ in range(2)] == [0.02, 0.02]
    monkeypatch.setattr(ways, "ROUND_TRIP_SECONDS", -1.0)
    assert place.ways.round_trip_seconds() == 0.5


def test_opening_a_connection_is_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("https_proxy", raising=False)
    with Server() as server:
        place = Place(address=server.address)
        assert 0 < place.ways.round_trip_seconds() < 1
    assert place.asked == 0


def test_through_a_proxy_calls_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeProxy() as proxy:
        monkeypatch.setenv("https_proxy", proxy.url())
        place = Place(address="coordinator.example:7443")
        assert 0 <= place.ways.round_trip_seconds() < 1
    assert (place.asked, proxy.asked) == (1 + ways.ROUND_TRIP_TRIES, [])


def test_where_nobody_answers_the_address_is_named() -> None:
    with unused_port() as port:
        place = Place(address=f"127.0.0.1:{port}")
        with pytest.raises(
            CoordinatorUnreachable, match=rf"No connection to 127\.0\.0\.1:{port}: Connection refused\."
        ):
            place.ways.round_trip_seconds()


def test_where_a_name_is_not_found_the_name_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    place = Place(address="nowhere.invalid:7443")
    with pytest.raises(
        CoordinatorUnreachable, match=r"No connection to nowhere\.invalid:7443: Name or service not known"
    ):
        place.ways.round_trip_seconds()
