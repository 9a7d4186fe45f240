"""The coordinator's listeners: two of gRPC's, since it has no optional client certificate, and one for large blobs.

work        ┬ Work, Operations, Log     pool `control`
            ├ Follow, WatchRun, …       pool `waiting`: long polls sleep in threads of their own
            └ Blobs                     pool `blobs`: idle uploads never keep a control call from its thread
enrolment   ─ Enrolment, Log            pool `enrolment`
bulk        ─ Put, Get                  a thread for each connection (coordinator.api.bulk)
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc

from common.blobs.store import FolderBlobStore
from common.clock import Clock
from common.errors import PortInUse
from common.health import Health
from common.wire.channel import (
    WINDOW_BYTES,
    TlsSource,
    enrolment_server_credentials,
    server_options,
    split_address,
    work_server_credentials,
)
from common.wire.framing import add_blobs_to_server
from common.wire.v1 import enrolment_pb2_grpc, log_pb2_grpc, operations_pb2_grpc, work_pb2_grpc
from coordinator.api.blobs import BlobPorts, BlobsServicer
from coordinator.api.bulk import BulkListener
from coordinator.api.call_log import CallLog
from coordinator.api.calls import IDLE_SECONDS, OpenCalls
from coordinator.api.doors import EnrolmentDoor, WorkDoor
from coordinator.api.enrolment import EnrolmentServicer
from coordinator.api.health import HealthServicer, add_health_to_server
from coordinator.api.intake import MAX_UNFINISHED_BYTES, Intake
from coordinator.api.interceptor import Interceptor
from coordinator.api.limits import AddressLimiter, CallLimiter, EnrolmentLimits, WorkLimits
from coordinator.api.log import LogServicer
from coordinator.api.operations import OperationsServicer
from coordinator.api.work import WorkPorts, WorkServicer
from coordinator.ports import (
    Access,
    Arrivals,
    Board,
    BytesMoved,
    Desk,
    Inquiries,
    LedgerReader,
    LogHeads,
    Members,
    RecoveryDesk,
    Refusals,
    Views,
    WitnessDesk,
)

CONTROL_THREADS = 64
WAITING_THREADS = 256
BLOB_THREADS = 32
ENROLMENT_THREADS = 32
ENROLMENT_IDLE_SECONDS = 5.0
"""A stranger who opens calls and sends nothing holds fewer threads than there are, at the rate that one address has."""
SWEEP_SECONDS = 0.5
"""Whoever is revoked gets no byte a second later."""
_MOST_CALLS = 4096


@dataclass(frozen=True, slots=True)
class Ports:
    """All that the servicers ask."""

    ledger: LedgerReader
    log: LogHeads
    witnesses: WitnessDesk
    members: Members
    desk: Desk
    board: Board
    access: Access
    views: Views
    inquiries: Inquiries
    refusals: Refusals
    moved: BytesMoved
    store: FolderBlobStore
    arrivals: Arrivals
    recovery: RecoveryDesk
    health: Health = field(default_factory=Health)


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """Where to listen, and how much a caller may ask. Port 0 is any free one."""

    work_address: str
    enrolment_address: str
    bulk_address: str | None = None
    """None: large blobs go over the work listener, too."""
    public_bulk_port: int | None = None
    """What callers are told, where it is not the port that is listened at."""
    work_limits: WorkLimits = field(default_factory=WorkLimits)
    enrolment_limits: EnrolmentLimits = field(default_factory=EnrolmentLimits)
    max_unfinished_bytes: int = MAX_UNFINISHED_BYTES
    idle_seconds: float = IDLE_SECONDS
    window_bytes: int = WINDOW_BYTES
    """Of what institutions send, for each connection to the work listener."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the listeners are, with the ports that they got."""

    work: str
    enrolment: str
    bulk: str | None = None


class Listeners:
    """The servers and the sweep over their calls."""

    def __init__(self, settings: ListenerSettings, tls: TlsSource, ports: Ports, clock: Clock) -> None:
        self._settings, self._tls, self._ports, self._clock = settings, tls, ports, clock
        self._open_calls = OpenCalls(settings.idle_seconds)
        self._strangers = OpenCalls(min(settings.idle_seconds, ENROLMENT_IDLE_SECONDS))
        self._call_log = CallLog(clock)
        self._stopping = threading.Event()
        self._pools: list[ThreadPoolExecutor] = []
        self._servers: list[Any] = []
        self._bulk: BulkListener | None = None
        self._bulk_port = 0
        self._sweeper = threading.Thread(target=self._sweep, name="api-sweep", daemon=True)

    def start(self) -> Addresses:
        """Binds and serves all of them.

        Raises:
            PortInUse: an address is taken or not this machine's; nothing listens then.
            UsageError: an address is not host:port.
        """
        settings = self._settings
        work, enrolment = self._work_server(), self._enrolment_server()
        self._servers = [work, enrolment]
        mutual = work_server_credentials(self._tls)
        open_door = enrolment_server_credentials(self._tls)
        try:
            addresses = Addresses(
                work=_bind(work, settings.work_address, mutual, "work"),
                enrolment=_bind(enrolment, settings.enrolment_address, open_door, "enrolment"),
                bulk=self._bulk.start() if self._bulk is not None else None,
            )
        except PortInUse:
            self.stop(grace=0)
            raise
        if addresses.bulk is not None:
            self._bulk_port = settings.public_bulk_port or split_address(addresses.bulk)[1]
        for server in self._servers:
            server.start()
        self._sweeper.start()
        return addresses

    def stop(self, grace: float) -> None:
        """Takes no more calls, gives those in progress `grace` seconds, then cancels them; returns when all have ended."""
        self._stopping.set()
        stopping = [server.stop(grace) for server in self._servers]
        if self._bulk is not None:
            self._bulk.stop(grace)
        for stopped in stopping:
            stopped.wait()
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)
        if self._sweeper.is_alive():
            self._sweeper.join()

    @property
    def open_calls(self) -> int:
        """Calls in progress on all listeners."""
        return len(self._open_calls) + len(self._strangers)

    def sweep(self) -> int:
        """Ends calls of revoked members and idle streams now; how many. Otherwise it happens each SWEEP_SECONDS."""
        return self._open_calls.sweep() + self._strangers.sweep()

    def _sweep(self) -> None:
        while not self._stopping.wait(SWEEP_SECONDS):
            self.sweep()

    def _work_server(self) -> Any:
        ports, settings = self._ports, self._settings
        blobs, waiting = self._pool("api-blobs", BLOB_THREADS), self._pool("api-waiting", WAITING_THREADS)
        pools = {
            "/llmasos.v1.Blobs/": blobs,
            "/llmasos.v1.Work/Follow": waiting,
            "/llmasos.v1.Operations/WatchRun": waiting,
            "/llmasos.v1.Operations/RunLogs": waiting,
            "/llmasos.v1.Operations/Inquire": waiting,
        }
        door = WorkDoor(ports.members, CallLimiter(settings.work_limits, self._clock), self._clock, ports.recovery)
        interceptor = Interceptor(door, self._open_calls, pools, ports.refusals, self._call_log)
        server = self._server(interceptor, self._pool("api-control", CONTROL_THREADS), settings.window_bytes)
        intake = Intake(ports.store, max_unfinished_bytes=settings.max_unfinished_bytes)
        asked = WorkPorts(
            ports.ledger, ports.log, ports.witnesses, ports.desk, ports.board, ports.inquiries, ports.recovery
        )
        work_pb2_grpc.add_WorkServicer_to_server(WorkServicer(asked), server)
        log_pb2_grpc.add_LogServicer_to_server(LogServicer(ports.log, cosigned=True), server)
        add_health_to_server(HealthServicer(ports.health), server)
        servicer = BlobsServicer(
            BlobPorts(ports.store, ports.access, ports.moved, ports.arrivals), intake, lambda: self._bulk_port
        )
        add_blobs_to_server(servicer, server)
        if settings.bulk_address is not None:
            self._bulk = BulkListener(settings.bulk_address, self._tls, interceptor, servicer)
        operations_pb2_grpc.add_OperationsServicer_to_server(
            OperationsServicer(ports.desk, ports.views, ports.inquiries), server
        )
        return server

    def _enrolment_server(self) -> Any:
        door = EnrolmentDoor(AddressLimiter(self._settings.enrolment_limits, self._clock), self._clock)
        interceptor = Interceptor(door, self._strangers, {}, self._ports.refusals, self._call_log)
        server = self._server(interceptor, self._pool("api-enrolment", ENROLMENT_THREADS), WINDOW_BYTES)
        servicer = EnrolmentServicer(self._ports.desk, self._ports.members, self._clock)
        enrolment_pb2_grpc.add_EnrolmentServicer_to_server(servicer, server)
        log_pb2_grpc.add_LogServicer_to_server(LogServicer(self._ports.log, cosigned=False), server)
        add_health_to_server(HealthServicer(self._ports.health), server)
        return server

    def _server(self, interceptor: Interceptor, pool: ThreadPoolExecutor, window_bytes: int) -> Any:
        return grpc.server(
            pool,
            interceptors=[interceptor],
            options=server_options(window_bytes),
            maximum_concurrent_rpcs=_MOST_CALLS,
        )

    def _pool(self, name: str, threads: int) -> ThreadPoolExecutor:
        pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=name)
        self._pools.append(pool)
        return pool


def _bind(server: Any, address: str, credentials: grpc.ServerCredentials, listener: str) -> str:
    """The address with the port that it got."""
    split_address(address)
    try:
        port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise PortInUse(
            f"The {listener} listener cannot have {address}: it is taken, or not this machine's."
        ) from error
    if port == 0:
        raise PortInUse(f"The {listener} listener cannot have {address}: it is taken, or not this machine's.")
    return f"{address.rpartition(':')[0]}:{port}"
