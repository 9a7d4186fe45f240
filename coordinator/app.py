"""The coordinator's composition root: the only place that constructs, in the order in which things depend on each other."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from common.blobs.store import FolderBlobStore
from common.clock import Clock, SystemClock
from common.config import load_yaml
from common.errors import MissingExtra, NotInitialised
from common.health import Health, Heartbeat
from common.homes import HomeLock, atomic_write
from common.identity.authority import Authority
from common.identity.keys import SigningKey
from common.identity.passphrase import read_passphrase
from common.identity.tls_pair import TlsPair
from common.ledger.heads import log_key
from common.logs import configure, get_logger
from common.reduce.loops import are_compiled
from common.reduce.selftest import run_self_test
from common.service_manager import ServiceManager
from common.wire.messages import Wanted
from coordinator.access import BlobAccess
from coordinator.aggregation import Aggregation
from coordinator.api.limits import EnrolmentLimits, WorkLimits
from coordinator.api.server import Addresses, Listeners, ListenerSettings, Ports
from coordinator.config import CoordinatorConfig, HomeLayout
from coordinator.cosignatures import Cosignatures
from coordinator.desk import CommandDesk, DeskPorts
from coordinator.inspections import Inspections
from coordinator.ledger import Ledger
from coordinator.log import HeadFile, Log
from coordinator.members.enrolment import EnrolmentDesk, EnrolmentPorts, EnrolmentSettings
from coordinator.members.membership import MembershipDesk, MembershipPorts
from coordinator.members.proposals import ProposalPorts, Proposals
from coordinator.members.server_certificate import ServerCertificate, ServerCertificatePorts
from coordinator.recovery.recovering import Recovery, RecoveryPorts
from coordinator.refusals import RefusalBook
from coordinator.rounds.engine import Engine, EnginePorts
from coordinator.rounds.ports import NoSteps, Steps
from coordinator.run_desk import InitialBlobs
from coordinator.store.database import Database, file_url
from coordinator.views import Host, OperatorViews
from coordinator.views.host import installed_version
from coordinator.watching.board import Board
from coordinator.watching.fitness import certificate_check, disk_check
from coordinator.watching.inquiries import InquiryDesk
from coordinator.watching.metrics import StoredMeasurements
from coordinator.watching.notices import Sources
from coordinator.watching.observers import Observed, Observers
from coordinator.watching.telemetry import CountedBytes
from coordinator.witnesses import Witnesses, WitnessPorts

if TYPE_CHECKING:
    from coordinator.flower.strategy import FlowerCombiner

log = get_logger(__name__)

ENVIRONMENT_PREFIX = "LLMASOS_COORDINATOR_"
MIB = 1024 * 1024
STOP_GRACE_SECONDS = 2.0


def load_config(home: Path) -> CoordinatorConfig:
    """The configuration of a coordinator's home folder, environment included.

    Raises:
        NotInitialised: the folder holds none.
        InvalidConfiguration: a field is wrong; the message says which.
    """
    layout = HomeLayout(home)
    if not layout.config.exists():
        raise NotInitialised(f"{home} holds no coordinator.", "Make one: llmasos-coordinator init --consortium NAME.")
    return load_yaml(layout.config, CoordinatorConfig, environment=os.environ, prefix=ENVIRONMENT_PREFIX)


@dataclass(frozen=True, slots=True)
class Keys:
    """The private keys of a home."""

    statement: SigningKey
    log: SigningKey
    authority: Authority
    tls: TlsPair

    @classmethod
    def load(cls, layout: HomeLayout, config: CoordinatorConfig) -> Keys:
        """
        Raises:
            NotInitialised, StorageFailure, WrongPassphrase: one cannot be read.
        """
        passphrase = read_passphrase(config.identity.passphrase_file)
        return cls(
            statement=SigningKey.load(layout.statement_key, passphrase),
            log=SigningKey.load(layout.log_key, passphrase),
            authority=Authority.load(layout.identity, passphrase),
            tls=TlsPair(layout.tls_key, layout.tls_certificate, passphrase),
        )


def foreign_of(config: CoordinatorConfig, layout: HomeLayout) -> FlowerCombiner | None:
    """What the configuration names to combine rounds in place of a plan's rule.

    Raises:
        MissingExtra: flwr is not installed.
        InvalidConfiguration: Flower has no such strategy, or it does not take these arguments.
    """
    if config.aggregation.flower is None:
        return None
    if find_spec("flwr") is None:
        raise MissingExtra(
            "aggregation.flower in coordinator.yaml needs flwr, which cannot be found.",
            "Install it: pip install 'llmasos[flower]'.",
        )
    from coordinator.flower.strategy import FlowerCombiner

    return FlowerCombiner(config.aggregation.flower, layout.flower)


class CoordinatorApp:
    """A coordinator over one home folder: `start`, then `stop`. The home's lock is the caller's to hold."""

    def __init__(
        self, home: Path, config: CoordinatorConfig, *, clock: Clock | None = None, steps: Steps | None = None
    ) -> None:
        self.layout, self.config = HomeLayout(home), config
        self._clock = clock or SystemClock()
        keys = Keys.load(self.layout, config)
        self._open_stores(keys)
        self._heartbeat = Heartbeat(self._clock, what="The engine")
        self._measurements = StoredMeasurements(self.ledger, self.database)
        self._proposals = Proposals(
            ProposalPorts(self.ledger, self.database, InitialBlobs(self.ledger, self.blobs), self._clock)
        )
        aggregation = Aggregation(
            self.blobs, self._proposals.awaited_blobs, foreign_of(config, self.layout), self._heartbeat.beat
        )
        membership = self._membership(keys, aggregation)
        self.engine = self._engine(aggregation, membership, steps or NoSteps())
        self.witnesses = Witnesses(
            WitnessPorts(self.ledger, self.log, self._cosignatures, self.database, post=self.engine.post)
        )
        self._addresses = Addresses(work=config.listen.work, enrolment=config.listen.enrolment)
        self._open_doors(keys, self._desk(keys, membership))
        self._thread = threading.Thread(target=self.engine.run, name="engine", daemon=True)
        self._ends = False

    def _open_stores(self, keys: Keys) -> None:
        """What is durable: ledger, log, blobs; and who was heard, which is not."""
        self._genesis, self._cosignatures = self.layout.genesis.read_bytes(), Cosignatures()
        self.database = Database(file_url(self.layout.state))
        self.ledger = Ledger(self.database, keys.statement, self._clock, self._genesis)
        self.blobs = FolderBlobStore(self.layout.blobs)
        head = HeadFile(self.layout.log_head)
        self.recovery = self._recovery(head)  # before the log, which signs nothing while it is pending
        self.log = Log(self.ledger, keys.log, head, self._cosignatures)
        self._inspections = Inspections(self.ledger, self.blobs)
        self.board = Board(self.ledger, self._clock, self.config.lease_seconds)

    def _recovery(self, head: HeadFile) -> Recovery:
        state = self.ledger.state
        return Recovery(
            RecoveryPorts(
                home=self.layout.home,
                ledger=self.ledger,
                database=self.database,
                blobs=self.blobs,
                clock=self._clock,
                lease_seconds=self.config.lease_seconds,
                head=head.beyond(state.size, log_key(state.genesis)),
                call=self._on_engine,
                resumed=self._resumed,
            )
        )

    def _on_engine(self, work: Callable[[], Wanted]) -> Wanted:
        return self.engine.call(work)  # which is made after what it asks

    def _resumed(self) -> None:
        """What institutions saw is here, and is signed on."""
        self.witnesses.recall()
        self.ledger.wake()

    def _membership(self, keys: Keys, aggregation: Aggregation) -> MembershipDesk:
        return MembershipDesk(
            MembershipPorts(
                self.ledger,
                self.database,
                keys.authority,
                aggregation,
                self._proposals,
                self._clock,
                self.config.certificate_days,
            )
        )

    def _engine(self, aggregation: Aggregation, membership: MembershipDesk, steps: Steps) -> Engine:
        return Engine(
            EnginePorts(
                chronicle=self.ledger,
                aggregator=aggregation,
                leases=self.board,
                measurements=self._measurements,
                steps=steps,
                clock=self._clock,
                departures=membership,
                beat=self._heartbeat.beat,
                holds=self.recovery.holds,
            )
        )

    def _desk(self, keys: Keys, membership: MembershipDesk) -> CommandDesk:
        enrolment = EnrolmentDesk(
            EnrolmentPorts(self.ledger, self.database, keys.authority, self._proposals, self._clock),
            self._enrolment_settings(),
        )
        return CommandDesk(
            DeskPorts(
                ledger=self.ledger,
                engine=self.engine,
                enrolment=enrolment,
                membership=membership,
                blobs=self.blobs,
                inspections=self._inspections,
                clock=self._clock,
                genesis=self._genesis,
                measurements=self._measurements,
                proposals=self._proposals,
            )
        )

    def _open_doors(self, keys: Keys, desk: CommandDesk) -> None:
        """What operators see, and the listeners."""
        clock = self._clock
        host = Host(
            layout=self.layout,
            blobs=self.blobs,
            started_at=clock.now(),
            open_calls=lambda: self._listeners.open_calls,
            version=installed_version(),
            recovering=self.recovery.waits_for,
        )
        views = OperatorViews(self.ledger, self.engine, self.board, self.database, clock, host=host)
        self._moved = CountedBytes(self.board)
        sources = Sources(self.ledger, self.board, views, self.database)
        self.health = Health(
            (self._engine_fault, self._heartbeat.fault),
            (
                self._stopping_fault,
                self.recovery.fault,
                disk_check(host),
                certificate_check(self.layout.tls_certificate, clock),
            ),
        )
        self._observers = Observers(self.config, Observed(sources, views, self._moved, clock, self.health))
        certificate = ServerCertificate(
            ServerCertificatePorts(keys.tls, keys.authority, clock, self.config.certificate_days)
        )
        self._listeners = Listeners(self._listener_settings(), certificate, self._ports(desk, views), clock)

    def start(self) -> Addresses:
        """Check the arithmetic, start the engine, listen.

        Raises:
            ReducerSelfTestFailed: this machine must not aggregate.
            PortInUse: an address is taken, that of the metrics included.
        """
        run_self_test()
        self.blobs.discard_unfinished_writers()
        self._addresses = self._listeners.start()
        self._thread.start()
        self._observers.start()
        bound = asdict(self._addresses)
        atomic_write(self.layout.addresses, json.dumps(bound | {"pid": os.getpid()}).encode())
        log.info("coordinator ready", extra=bound | {"reducer": "compiled" if are_compiled() else "numpy"})
        return self._addresses

    def stop(self) -> None:
        """No longer ready; end calls, then the engine after its current step; everything durable stays."""
        self._ends = True
        self.layout.addresses.unlink(missing_ok=True)
        self._observers.stop()
        self._listeners.stop(STOP_GRACE_SECONDS)
        if self._thread.is_alive():
            self.engine.stop()
            self._thread.join()
        self.blobs.close()
        self.database.close()
        log.info("coordinator stopped")

    @property
    def engine_alive(self) -> bool:
        """Whether the engine's thread runs: without it nothing moves, and the process must end."""
        return self._thread.is_alive()

    def _engine_fault(self) -> str | None:
        return None if self._thread.is_alive() else "The engine does not run."

    def _stopping_fault(self) -> str | None:
        return "The coordinator ends." if self._ends else None

    def _enrolment_settings(self) -> EnrolmentSettings:
        listen = self.config.listen
        return EnrolmentSettings(
            certificate_days=self.config.certificate_days,
            invitation_hours=self.config.invitation_hours,
            enrolment_address=lambda: listen.public_enrolment or self._addresses.enrolment,
            work_address=lambda: listen.public_work or self._addresses.work,
        )

    def _listener_settings(self) -> ListenerSettings:
        limits = self.config.limits
        return ListenerSettings(
            work_address=self.config.listen.work,
            enrolment_address=self.config.listen.enrolment,
            bulk_address=self.config.listen.bulk_address,
            public_bulk_port=self.config.listen.public_bulk_port,
            work_limits=WorkLimits(
                control_calls=limits.control_calls,
                blob_streams=limits.blob_streams,
                calls_per_second=limits.requests_per_second,
                calls_at_once=int(2 * limits.requests_per_second) + 1,
            ),
            enrolment_limits=EnrolmentLimits(
                calls_per_second=limits.enrolments_per_second,
                calls_at_once=int(10 * limits.enrolments_per_second) + 1,
            ),
            window_bytes=limits.window_mib * MIB,
        )

    def _ports(self, desk: CommandDesk, views: OperatorViews) -> Ports:
        return Ports(
            ledger=self.ledger,
            log=self.log,
            witnesses=self.witnesses,
            members=self.ledger,
            desk=desk,
            board=self.board,
            access=BlobAccess(
                self.ledger,
                max_plan_blob_bytes=self.config.limits.max_model_bytes,
                recovery=self.recovery.check_upload,
            ),
            views=views,
            inquiries=InquiryDesk(self.ledger, self._clock),
            refusals=RefusalBook(self.ledger, self.engine),
            moved=self._moved,
            store=self.blobs,
            arrivals=self._inspections,
            recovery=self.recovery,
            health=self.health,
        )


def serve(home: Path, stopping: threading.Event) -> None:
    """Run a coordinator until `stopping` is set.

    Raises:
        HomeLocked: another process runs on this home.
    """
    config = load_config(home)
    configure(format=config.logging.format, level=config.logging.level)
    with HomeLock(home):
        app = CoordinatorApp(home, config)
        manager = ServiceManager(app.health)
        try:
            app.start()
            manager.ready()
            while not stopping.wait(0.5):
                if not app.engine_alive:
                    raise RuntimeError("the engine ended by itself; its traceback is above")
        finally:
            manager.stopping()
            app.stop()
