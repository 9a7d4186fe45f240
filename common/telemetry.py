"""Prometheus metrics over HTTP, what a collector reads at each scrape, and beside them whether the daemon lives and is ready.

    server = MetricsServer("127.0.0.1:9464", collector, health)
    address = server.start()                           # GET http://127.0.0.1:9464/metrics, /healthz, /readyz
    server.stop()

Nothing counts along while the daemons work: a collector reads ledger, board and journal when it is asked, so that a metric
cannot drift from what it stands for. Values are names, counts, bytes and seconds, never anything of the data.
"""

from __future__ import annotations

import http.server
import socket
import socketserver
import threading
from collections.abc import Iterable
from typing import Any, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from common.errors import PortInUse
from common.health import Health
from common.logs import get_logger
from common.wire.channel import is_loopback, split_address

log = get_logger(__name__)

PATH = "/metrics"
ALIVE_PATH, READY_PATH = "/healthz", "/readyz"
SCRAPES_AT_ONCE = 4
SOCKET_SECONDS = 5.0


class Collector(Protocol):
    """What prometheus_client's registry asks."""

    def collect(self) -> Iterable[Metric]:
        """Every metric with its values now."""
        ...


def gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    """A gauge without labels."""
    return GaugeMetricFamily(name, text, value=value)


def gauges(name: str, text: str, label: str, values: Iterable[tuple[str, float]]) -> GaugeMetricFamily:
    """A gauge for each value of one label."""
    family = GaugeMetricFamily(name, text, labels=[label])
    for label_value, value in values:
        family.add_metric([label_value], value)
    return family


def counters(name: str, text: str, label: str, values: Iterable[tuple[str, float]]) -> CounterMetricFamily:
    """A counter for each value of one label; `_total` is put behind the name."""
    family = CounterMetricFamily(name, text, labels=[label])
    for label_value, value in values:
        family.add_metric([label_value], value)
    return family


class MetricsServer:
    """One address, three paths, a thread for each of a few scrapes. `start`, then `stop`."""

    def __init__(self, address: str, collector: Collector, health: Health) -> None:
        self._host, self._port = split_address(address)
        self._health = health
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(collector)
        self._server: _Server | None = None

    def start(self) -> str:
        """Listen; the address with its real port.

        Raises:
            PortInUse: the address is taken or not this machine's.
        """
        host = self._host
        shown = f"[{host}]" if ":" in host else host
        try:
            self._server = _Server((host, self._port), self._registry, self._health)
        except OSError as err:
            raise PortInUse(
                f"Metrics cannot listen on {shown}:{self._port}: {(err.strerror or str(err)).lower()}.",
                "Stop the other process, or choose another metrics.listen in the configuration.",
            ) from err
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()
        port = int(self._server.server_address[1])
        if not is_loopback(host):
            log.warning("metrics beyond this machine", extra={"host": host, "port": port})
        return f"{shown}:{port}"

    def stop(self) -> None:
        """Answer nothing more."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """At most SCRAPES_AT_ONCE connections: a further one is closed, and no slow reader holds a thread for long."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], registry: CollectorRegistry, health: Health) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.registry, self.health = registry, health
        self._places = threading.BoundedSemaphore(SCRAPES_AT_ONCE)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own asks the resolver for this machine's name, which may take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper that went away, or a collector that failed: the next scrape asks again."""
        log.warning("scrape failed", exc_info=True)


class _Handler(http.server.BaseHTTPRequestHandler):
    timeout = SOCKET_SECONDS
    server_version, sys_version = "llmasos", ""
    server: _Server

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case path if path == PATH:
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(self.server.registry))
            case path if path == ALIVE_PATH:
                self._tell(self.server.health.alive())
            case path if path == READY_PATH:
                self._tell(self.server.health.ready())
            case _:
                self.send_error(404, f"Metrics are at {PATH}, health at {ALIVE_PATH} and {READY_PATH}")

    def _tell(self, faults: tuple[str, ...]) -> None:
        text = "\n".join(faults) or "ok"
        self._answer(503 if faults else 200, "text/plain; charset=utf-8", f"{text}\n".encode())

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """A scrape is no event."""
