"""What else a coordinator must have to be ready: room on its disk, and a certificate that callers take."""

from __future__ import annotations

from pathlib import Path

from common.clock import Clock
from common.errors import LLMasOSError
from common.health import Check
from common.identity.certificates import check_time, validity
from coordinator.api.intake import RESERVED_BYTES
from coordinator.views import Host


def disk_check(host: Host) -> Check:
    """Whether less is free than what no upload may take."""

    def fault() -> str | None:
        try:
            free = host.disk_free_bytes()
        except LLMasOSError as error:
            return error.message
        return (
            None if free >= RESERVED_BYTES else f"The disk has {free:,} bytes free, {RESERVED_BYTES:,} are kept free."
        )

    return fault


def certificate_check(certificate: Path, clock: Clock) -> Check:
    """Whether the listeners' certificate is out of its time."""

    def fault() -> str | None:
        try:
            found = validity(certificate.read_bytes(), what="The coordinator's certificate")
            check_time(found, now=clock.now(), what="The coordinator's certificate")
        except (LLMasOSError, OSError) as error:
            return str(error)
        return None

    return fault
