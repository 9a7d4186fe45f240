"""Metrics over HTTP: one path, one address, and a scraper that misbehaves harms nobody."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator

import pytest
from prometheus_client.core import Metric

from common.errors import PortInUse, UsageError
from common.health import Health
from common.telemetry import SCRAPES_AT_ONCE, MetricsServer, counters, gauge, gauges

HEALTH = Health()


class Three:
    """A collector."""

    def __init__(self) -> None:
        self.fails = False

    def collect(self) -> Iterable[Metric]:
        if self.fails:
            raise RuntimeError("no values")
        yield gauge("llmasos_a", "A number.", 1.5)
        yield gauges("llmasos_b", "By name.", "name", [("x", 2)])
        yield counters("llmasos_c", "Counted.", "name", [("x", 3)])


@pytest.fixture
def collector() -> Three:
    return Three()


@pytest.fixture
def address(collector: Three) -> Iterator[str]:
    server = MetricsServer("127.0.0.1:0", collector, HEALTH)
    yield server.start()
    server.stop()


def get(address: str, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as reply:
        assert reply.headers["Content-Type"].startswith("text/plain")
        return str(reply.read().decode())


def test_a_scrape_gives_every_value_with_its_help(address: str) -> None:
    text = get(address)
    assert "# HELP llmasos_a A number.\n# TYPE llmasos_a gauge\nllmasos_a 1.5\n" in text
    assert 'llmasos_b{name="x"} 2.0\n' in text
    assert 'llmasos_c_total{name="x"} 3.0\n' in text


def test_other_paths_hold_nothing(address: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match=r"404"):
        get(address, "/")


def test_probes_hear_what_is_wrong(collector: Three) -> None:
    faults: dict[str, str | None] = {"alive": None, "ready": "The disk is full."}
    health = Health([lambda: faults["alive"]], [lambda: faults["ready"]])
    server = MetricsServer("127.0.0.1:0", collector, health)
    address = server.start()
    try:
        assert get(address, "/healthz") == "ok\n"
        with pytest.raises(urllib.error.HTTPError, match="503") as refused:
            get(address, "/readyz")
        assert refused.value.read() == b"The disk is full.\n"
        faults.update(alive="It hangs.", ready=None)
        for path in ("/healthz", "/readyz"):
            with pytest.raises(urllib.error.HTTPError, match="503") as refused:
                get(address, path)
            assert refused.value.read() == b"It hangs.\n"
    finally:
        server.stop()


def test_a_collector_that_fails_ends_one_scrape(
    address: str, collector: Three, caplog: pytest.LogCaptureFixture
) -> None:
    collector.fails = True
    with pytest.raises(OSError, match=r".*"):
        get(address)
    collector.fails = False
    assert "llmasos_a 1.5" in get(address)
    assert "scrape failed" in caplog.messages


def test_idle_connections_beyond_the_bound_are_closed(address: str) -> None:
    host, port = address.split(":")
    held = [socket.create_connection((host, int(port)), timeout=30) for _ in range(SCRAPES_AT_ONCE + 1)]
    try:
        assert held[-1].recv(1) == b""
    finally:
        for each in held:
            each.close()


def test_an_address_that_is_taken_is_named(address: str, collector: Three) -> None:
    with pytest.raises(PortInUse, match=rf"Metrics cannot listen on {address}: address already in use\."):
        MetricsServer(address, collector, HEALTH).start()


def test_an_address_that_is_none_is_refused(collector: Three) -> None:
    with pytest.raises(UsageError, match=r"expected host:port"):
        MetricsServer("9464", collector, HEALTH)


def test_an_address_beyond_this_machine_is_said(collector: Three, caplog: pytest.LogCaptureFixture) -> None:
    server = MetricsServer("0.0.0.0:0", collector, HEALTH)
    server.start()
    server.stop()
    assert "metrics beyond this machine" in caplog.messages
