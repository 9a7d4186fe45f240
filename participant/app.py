"""The participant's composition root: the only place that constructs, in the order in which things depend on each other."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from common.blobs.store import FolderBlobStore
from common.clock import Clock, SystemClock
from common.config import load_yaml
from common.errors import NotInitialised
from common.homes import HomeLock
from common.identity.certificates import check_validity
from common.identity.invitation import open_genesis
from common.identity.keys import SigningKey
from common.logs import configure, get_logger
from common.wire.session import Session, TlsFiles
from participant.agent import Agent, AgentPorts
from participant.config import HomeLayout, ParticipantConfig
from participant.follower import Follower, diagnosis
from participant.journal import Journal
from participant.mirror import Mirror
from participant.policy import Policy
from participant.sending import Outbox, OutboxPorts
from participant.status import StatusFile
from participant.workbench import Workbench

log = get_logger(__name__)

ENVIRONMENT_PREFIX = "LLMASOS_PARTICIPANT_"


def load_config(home: Path) -> ParticipantConfig:
    """The configuration of a participant's home folder, environment included.

    Raises:
        NotInitialised: the folder holds none.
        InvalidConfiguration: a field is wrong; the message says which.
    """
    layout = HomeLayout(home)
    if not layout.config.exists():
        raise NotInitialised(
            f"{home} holds no participant.", "Join first: llmasos-participant join --invitation-file FILE --data DIR."
        )
    return load_yaml(layout.config, ParticipantConfig, environment=os.environ, prefix=ENVIRONMENT_PREFIX)


class ParticipantApp:
    """A participant over one home folder. The home's lock is the caller's to hold."""

    def __init__(self, home: Path, config: ParticipantConfig, *, clock: Clock | None = None) -> None:
        self.layout = layout = HomeLayout(home)
        clock = clock or SystemClock()
        check_validity(
            layout.tls_certificate.read_bytes(), now=clock.now(), what=f"certificate of {config.institution}"
        )
        envelope = layout.genesis.read_bytes()
        genesis = open_genesis(envelope)[1]
        self.status = StatusFile(layout.status, clock)
        self.journal = Journal(layout.journal)
        self.mirror = Mirror(self.journal, envelope)
        self.blobs = FolderBlobStore(layout.blobs)
        self.workbench = Workbench(layout, config)
        self.session = Session(config.coordinator.work, genesis, TlsFiles(layout.tls_key, layout.tls_certificate))
        self.follower = Follower(
            self.session,
            self.mirror,
            lambda: diagnosis(config.coordinator.enrolment, genesis, layout.tls_certificate),
            self.status.connection,
        )
        outbox = Outbox(
            OutboxPorts(
                institution=config.institution,
                session=self.session,
                journal=self.journal,
                blobs=self.blobs,
                key=SigningKey.load(layout.signing_key),
                clock=clock,
                algorithm=genesis.blob_digest,
            )
        )
        self.agent = Agent(
            AgentPorts(
                institution=config.institution,
                session=self.session,
                mirror=self.mirror,
                follower=self.follower,
                outbox=outbox,
                workbench=self.workbench,
                blobs=self.blobs,
                policy=lambda: load_yaml(layout.policy, Policy),
                status=self.status,
                clock=clock,
            )
        )

    def run(self, stopping: threading.Event) -> None:
        """Until `stopping` is set, or the agent cannot go on."""
        self.blobs.discard_unfinished_writers()
        self.follower.start()
        self.agent.run(stopping)

    def close(self) -> None:
        """End worker, connection and threads; everything durable stays."""
        self.workbench.close()
        self.session.close()
        self.follower.stop()
        self.blobs.close()
        self.journal.close()
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
        try:
            app.run(stopping)
        finally:
            app.close()
            log.info("participant stopped", extra={"institution": config.institution})
