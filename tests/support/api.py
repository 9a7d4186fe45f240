"""A consortium on loopback for tests: real certificates, real listeners, ports that are fake."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from common.blobs.reference import BlobRef
from common.blobs.store import FolderBlobStore
from common.clock import Clock, SystemClock, rfc3339
from common.health import Health
from common.identity.authority import Authority
from common.identity.certificates import certificate_id, coordinator_dns
from common.identity.keys import SigningKey, TlsKey
from common.statements.kinds import Genesis, Log, Member, Role
from common.wire import convert
from common.wire.bulk.line import Line
from common.wire.bulk.tls import client_context
from common.wire.channel import ServerTls, TlsSource
from common.wire.messages import ActivityReport, Purpose
from common.wire.session import TlsFiles
from coordinator.api.client import OperatorSession
from coordinator.api.server import Addresses, Listeners, ListenerSettings, Ports
from tests.support.fake_ports import FakeArrivals, FakePorts

CONSORTIUM = "hospitals"
ROUND = Purpose(round_opened="ab" * 32)
REPORT = ActivityReport("tiny-000001", 1, "training", steps_done=3, steps_total=10)


@dataclass(slots=True)
class Consortium:
    """Authority, roster and files, under a temporary folder."""

    folder: Path
    clock: Clock = field(default_factory=SystemClock)
    ports: FakePorts = field(default_factory=FakePorts)
    tls_source: TlsSource | None = None
    """Where the server's certificate comes from; None: one for 30 days that does not change."""
    authority: Authority = field(init=False)
    genesis: Genesis = field(init=False)
    store: FolderBlobStore = field(init=False)

    def __post_init__(self) -> None:
        now = SystemClock().now()
        self.authority = Authority.create(CONSORTIUM, now=now)
        key = SigningKey.generate().public
        self.genesis = Genesis(
            consortium=CONSORTIUM,
            created_at=rfc3339(now),
            ca_certificate=self.authority.certificate_pem.decode(),
            coordinator_key=key,
            log=Log(origin="hospitals.example/log", key=key),
        )
        self.store = FolderBlobStore(self.folder / "coordinator-blobs")

    def tls(self, name: str) -> TlsFiles:
        """A certificate of the authority for `name`, on disk, in no roster yet."""
        files = TlsFiles(self.folder / f"{name}.key.pem", self.folder / f"{name}.pem")
        if not files.key.exists():
            key, now = TlsKey.generate(), SystemClock().now()
            key.save(files.key)
            files.certificate.write_bytes(self.authority.issue_institution(key.csr(name), name, now=now, days=30))
        return files

    def enrolled(self, name: str, *roles: Role) -> TlsFiles:
        """The same, and in the roster."""
        files = self.tls(name)
        member = Member(
            name=name,
            signing_key=SigningKey.generate().public,
            roles=roles or ("trainer",),
            certificates=(certificate_id(files.certificate.read_bytes()),),
        )
        self.ports.members.add(member, CONSORTIUM)
        return files

    def server_tls(self) -> ServerTls:
        key = TlsKey.generate()
        certificate = self.authority.issue_coordinator(key.csr("coordinator"), now=SystemClock().now(), days=30)
        return ServerTls(key.private_pem, certificate, self.authority.certificate_pem)

    def listeners(self, settings: ListenerSettings | None = None) -> Listeners:
        fake = self.ports
        ports = Ports(
            ledger=fake.ledger,
            log=fake.log,
            witnesses=fake.witnesses,
            members=fake.members,
            desk=fake.desk,
            board=fake.board,
            access=fake.access,
            views=fake.views,
            inquiries=fake.inquiries,
            refusals=fake.refusals,
            moved=fake.moved,
            store=self.store,
            arrivals=FakeArrivals(),
            recovery=fake.recovery,
            health=Health(ready_checks=[lambda: next(iter(fake.faults), None)]),
        )
        return Listeners(settings or LOOPBACK, self.tls_source or self.server_tls(), ports, self.clock)

    def session(self, addresses: Addresses, name: str) -> OperatorSession:
        """A connection as `name`; what it may do is the roster's to say."""
        return OperatorSession(addresses.work, self.genesis, self.tls(name))

    def line(self, addresses: Addresses, name: str) -> Line:
        """A connection to the bulk listener as `name`, on which nothing was called yet."""
        host, _, port = (addresses.bulk or "").rpartition(":")
        files = self.tls(name)
        context = client_context(
            ca_pem=self.authority.certificate_pem,
            key_pem=files.key.read_bytes(),
            cert_pem=files.certificate.read_bytes(),
        )
        connection = socket.create_connection((host, int(port)))
        return Line(connection, context, server_hostname=coordinator_dns(CONSORTIUM), seconds=30)

    def blob(self, content: bytes, *readers: str) -> BlobRef:
        """A blob in the coordinator's store that `readers` may read."""
        path = self.folder / "content"
        path.write_bytes(content)
        ref = self.store.ingest(path, "blake3", move=False)
        for reader in readers:
            self.ports.access.allow(reader, ref)
        return ref


LOOPBACK = ListenerSettings(work_address="127.0.0.1:0", enrolment_address="127.0.0.1:0")
WITH_BULK = replace(LOOPBACK, bulk_address="127.0.0.1:0")


@contextmanager
def listening(
    consortium: Consortium, settings: ListenerSettings | None = None
) -> Iterator[tuple[Listeners, Addresses]]:
    """The listeners, started, and stopped at the end whatever happens."""
    listeners = consortium.listeners(settings)
    addresses = listeners.start()
    try:
        yield listeners, addresses
    finally:
        listeners.stop(grace=0)
        consortium.store.close()


class Scene:
    """A consortium that listens, with `north` and the operator `ops` in the roster."""

    def __init__(self, consortium: Consortium, listeners: Listeners, addresses: Addresses) -> None:
        self.consortium, self.listeners, self.addresses = consortium, listeners, addresses
        self.ports = consortium.ports
        self.sessions: list[OperatorSession] = []

    def session(self, name: str) -> OperatorSession:
        session = self.consortium.session(self.addresses, name)
        self.sessions.append(session)
        return session


class Held:
    """Uploads that said what they are and then nothing. All share one `end`."""

    def __init__(self, scene: Scene, session: OperatorSession, ref: BlobRef, count: int) -> None:
        store, access = scene.consortium.store, scene.ports.access
        self.end = threading.Event()
        if store.contains(ref):
            leaves = store.leaves(ref)
            store.delete(ref)
            session.stubs().blobs.Begin(convert.begin_request_to_wire(ref, leaves, ROUND))
        before = len(access.writes)
        # grpc cancels a call that nobody refers to.
        self.calls = [session.stubs().blobs.Put.future(self._messages(ref)) for _ in range(count)]
        until(lambda: len(access.writes) == before + count)

    def _messages(self, ref: BlobRef) -> Iterator[Any]:
        yield convert.put_header_to_wire(ref, ROUND)
        self.end.wait(60)


def until(condition: Callable[[], bool]) -> None:
    """Yields to other threads until `condition`, at most 30 seconds."""
    pause = threading.Event()
    for _ in range(15_000):
        if condition():
            return
        pause.wait(0.002)
    raise AssertionError("it did not come to that in 30 seconds")
