"""The connection that a command makes beside the daemon's, under the same certificate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.clock import SystemClock
from common.identity.passphrase import read_passphrase
from common.identity.tls_pair import TlsPair
from participant.config import HomeLayout, ParticipantConfig
from participant.speed import pacing_of

if TYPE_CHECKING:
    from common.statements.kinds import Genesis
    from common.wire.session import Session


def member_session(layout: HomeLayout, config: ParticipantConfig, genesis: Genesis) -> Session:
    """A session of this institution; nothing is sent before its first call.

    Raises:
        InvalidConfiguration: the file of the passphrase cannot be read.
    """
    from common.wire.session import Session, TlsFiles  # lazily: it imports grpc, which takes a third of a second

    passphrase = read_passphrase(config.identity.passphrase_file)
    pair = TlsPair(layout.tls_key, layout.tls_certificate, passphrase)
    return Session(
        config.coordinator.work,
        genesis,
        TlsFiles(pair.key, pair.certificate, passphrase),
        streams=config.transfer.streams,
        bulk=config.transfer.bulk,
        pacing=pacing_of(config.transfer, SystemClock()),
    )
