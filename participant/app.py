"""The participant's composition root: the only place that constructs, in the order in which things depend on each other."""

from __future__ import annotations

import threading
from pathlib import Path

from common.blobs.store import FolderBlobStore
from common.clock import Clock, SystemClock
from common.errors import CertificateExpired, IdentityError, LLMasOSError
from common.health import Health, Heartbeat
from common.homes import HomeLock
from common.identity.invitation import open_genesis
from common.identity.passphrase import read_passphrase
from common.identity.tls_pair import TlsPair
from common.logs import configure, get_logger
from common.service_manager import ServiceManager
from common.telemetry import MetricsServer
from common.wire.renewal import Renewer
from common.wire.session import Session, TlsFiles
from participant.agent import Agent
from participant.bench.workbench import Workbench
from participant.config import HomeLayout, ParticipantConfig, load_config
from participant.datasets import data_sets
from participant.encoding import DeltaEncoder
from participant.follower import Follower, FollowerPorts, diagnosis
from participant.handing_back import HandingBack, HandingBackPorts
from participant.hours.pausing import Gatekeeper
from participant.identity.keys import SigningKeys
from participant.identity.membership import Membership, MembershipPorts
from participant.identity.renewal import Renewal, RenewalPorts
from participant.memory.journal import Journal
from participant.memory.mirror import Mirror
from participant.memory.orders import Orders
from participant.memory.records import Records
from participant.memory.restoration import Restoration, RestorationPorts
from participant.plans.inquiring import Inquiring
from participant.policy import UsageCounter
from participant.policy.source import PatientPolicy
from participant.ports import AgentPorts
from participant.residuals import Residuals
from participant.sending import Outbox, OutboxPorts
from participant.speed import pacing_of
from participant.status import GATHER_SECONDS, StatusFile
from participant.telemetry import Observed, ParticipantCollector
from participant.witnessing import Witnessing, WitnessingPorts

log = get_logger(__name__)

ONE_ROUNDS_SPARES = 3
"""Files that an institution keeps to be written over: a delta, a control and a model."""


class ParticipantApp:
    """A participant over one home folder. The home's lock is the caller's to hold."""

    def __init__(self, home: Path, config: ParticipantConfig, *, clock: Clock | None = None) -> None:
        self.layout = layout = HomeLayout(home)
        self._config = config
        clock = clock or SystemClock()
        passphrase = read_passphrase(config.identity.passphrase_file)
        envelope = layout.genesis.read_bytes()
        trust_root, genesis = open_genesis(envelope)
        self._genesis = genesis
        self.status = StatusFile(layout.status, clock, GATHER_SECONDS)
        self.journal = Journal(layout.journal)
        self.journal.check()
        self.orders, self.records = Orders(layout.journal), Records(layout.journal)
        self.mirror = Mirror(self.journal, envelope)
        self.blobs = FolderBlobStore(layout.blobs, most_spares=ONE_ROUNDS_SPARES)
        self.residuals = Residuals(layout.residuals)
        self.workbench = Workbench(layout, config)
        tls = TlsPair(layout.tls_key, layout.tls_certificate, passphrase)
        self.session = Session(
            config.coordinator.work,
            genesis,
            TlsFiles(tls.key, tls.certificate, passphrase),
            streams=config.transfer.streams,
            bulk=config.transfer.bulk,
            pacing=pacing_of(config.transfer, clock),
        )
        keys = SigningKeys(layout.signing_key, passphrase, config.institution, lambda: self.mirror.state)
        fingerprint = bytes.fromhex(trust_root.digest)
        renewer = Renewer(config.coordinator.enrolment, genesis, fingerprint, config.institution, tls)
        self.renewal = Renewal(RenewalPorts(renewer, keys, self.session, self.mirror, self.orders, self.records, clock))
        self.renewal.at_start()
        self.restoration = Restoration(
            RestorationPorts(home, config.institution, self.mirror, self.journal, clock, self.status.tell)
        )
        self.witnessing = Witnessing(
            WitnessingPorts(
                config.institution, self.mirror, self.journal, keys.to_sign, clock, lambda: self.restoration.pending
            )
        )
        outbox = self._outbox(keys, clock)
        policy = PatientPolicy(layout.policy, self.records, clock)
        beating = Heartbeat(clock, what="The follower of the ledger")
        self.health = Health((beating.fault,), (self.status.connection_fault,))
        self.metrics = self._metrics(policy, clock)
        self.handing_back = self._handing_back(beating, clock)
        self.follower = self._follower(beating, Inquiring(self.session, self.mirror, outbox, policy, self.records))
        self.agent = Agent(self._agent_ports(outbox, policy, self._membership(keys, clock), clock))

    def _outbox(self, keys: SigningKeys, clock: Clock) -> Outbox:
        return Outbox(
            OutboxPorts(
                institution=self._config.institution,
                session=self.session,
                journal=self.journal,
                blobs=self.blobs,
                encoder=DeltaEncoder(self._config.institution, self.blobs, self.residuals, self._genesis.blob_digest),
                key=keys.to_sign,
                clock=clock,
                checkpoint=self.witnessing.checkpoint_for,
            )
        )

    def _handing_back(self, beating: Heartbeat, clock: Clock) -> HandingBack:
        return HandingBack(
            HandingBackPorts(
                institution=self._config.institution,
                session=self.session,
                mirror=self.mirror,
                journal=self.journal,
                witnessing=self.witnessing,
                blobs=self.blobs,
                clock=clock,
                beat=beating.beat,
            )
        )

    def _follower(self, beating: Heartbeat, inquiring: Inquiring) -> Follower:
        return Follower(
            FollowerPorts(
                session=self.session,
                mirror=self.mirror,
                witnessing=self.witnessing,
                explain=self._explain,
                tell=self.status.connection,
                inquire=inquiring,
                proposals=lambda count: self.status.tell(open_proposals=count),
                caught_up=self.restoration.caught_up,
                beat=beating.beat,
                hand_back=self.handing_back.once,
                learn_lineage=self.handing_back.learn_lineage,
            )
        )

    def _metrics(self, policy: PatientPolicy, clock: Clock) -> MetricsServer | None:
        """The listener for Prometheus, where one is wanted."""
        observed = Observed(
            layout=self.layout,
            journal=self.journal,
            records=self.records,
            ledger_size=lambda: self.mirror.state.size,
            policy_problem=lambda: policy.problem,
            clock=clock,
        )
        listen = self._config.metrics.listen
        return MetricsServer(listen, ParticipantCollector(observed), self.health) if listen else None

    def _membership(self, keys: SigningKeys, clock: Clock) -> Membership:
        return Membership(
            MembershipPorts(
                institution=self._config.institution,
                layout=self.layout,
                renewal=self.renewal,
                keys=keys,
                session=self.session,
                journal=self.journal,
                mirror=self.mirror,
                follower=self.follower,
                clock=clock,
            )
        )

    def _agent_ports(self, outbox: Outbox, policy: PatientPolicy, membership: Membership, clock: Clock) -> AgentPorts:
        return AgentPorts(
            institution=self._config.institution,
            session=self.session,
            mirror=self.mirror,
            follower=self.follower,
            witnesses=self.witnessing,
            outbox=outbox,
            workbench=self.workbench,
            blobs=self.blobs,
            residuals=self.residuals,
            policy=policy,
            usage=UsageCounter(self.records, self.journal).of,
            gatekeeper=Gatekeeper(policy, self.orders, self.records, clock),
            orders=self.orders,
            records=self.records,
            data=lambda: data_sets(self.layout),
            membership=membership,
            status=self.status,
            clock=clock,
            catching_up=lambda: self.restoration.pending,
        )

    def run(self, stopping: threading.Event) -> None:
        """Until `stopping` is set, or the agent cannot go on.

        Raises:
            PortInUse: the metrics' address is taken.
            TwoHistories: two were shown to this institution before, and no person has seen to it yet.
        """
        self.witnessing.expect_one_history()
        if self.metrics is not None:
            log.info("metrics ready", extra={"address": self.metrics.start()})
        self.blobs.discard_unfinished_writers()
        self.follower.start()
        self.agent.run(stopping)

    def _explain(self) -> LLMasOSError | None:
        """Why the coordinator refuses this certificate, or what stands in the way; None where that is being seen to."""
        addresses = self._config.coordinator
        found = diagnosis(addresses.enrolment, self._genesis, self.layout.tls_certificate, addresses.work)
        if isinstance(found, CertificateExpired):
            self.renewal.demand()
            return None
        if isinstance(found, IdentityError) and self._config.institution in self.mirror.state.departures:
            return None  # who left may still follow, up to the word that its deltas are deleted
        return found

    def close(self) -> None:
        """End worker, connection and threads; everything durable stays."""
        if self.metrics is not None:
            self.metrics.stop()
        self.workbench.close()
        self.handing_back.stop()
        self.session.close()
        self.follower.stop()
        self.blobs.close()
        for part in (self.orders, self.records, self.journal):
            part.close()
        self.status.stopped()


def serve(home: Path, stopping: threading.Event) -> None:
    """Run a participant until `stopping` is set.

    Raises:
        HomeLocked: another process runs on this home.
    """
    config = load_config(home)
    configure(format=config.logging.format, level=config.logging.level)
    with HomeLock(home):
        app = ParticipantApp(home, config)
        log.info("participant ready", extra={"institution": config.institution, "coordinator": config.coordinator.work})
        manager = ServiceManager(app.health)
        manager.ready()
        try:
            app.run(stopping)
        finally:
            manager.stopping()
            app.close()
            log.info("participant stopped", extra={"institution": config.institution})
