"""What the coordinator's own process and machine tell: certificates, disk, calls in progress."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from common.blobs.store import FolderBlobStore
from common.homes import storage_failure
from common.identity.certificates import load_certificate
from common.statements.kinds import Genesis, Roster
from coordinator.config import HomeLayout
from coordinator.store.database import Database


def installed_version() -> str:
    """This release, or `unknown` where the source runs without being installed."""
    try:
        return version("llmasos")
    except PackageNotFoundError:
        return "unknown"


@dataclass(frozen=True, slots=True)
class Host:
    """One coordinator's place on its machine."""

    layout: HomeLayout
    blobs: FolderBlobStore
    started_at: datetime
    open_calls: Callable[[], int]
    version: str = "unknown"
    recovering: Callable[[], str] = lambda: ""
    """What a recovering coordinator waits for."""

    def blob_bytes(self) -> int:
        """Bytes of all whole blobs."""
        return sum(ref.size for ref, _ in self.blobs.list())

    def disk_free_bytes(self) -> int:
        """Bytes that may still be written where the blobs are.

        Raises:
            StorageFailure: the folder is gone.
        """
        try:
            return shutil.disk_usage(self.layout.blobs).free
        except OSError as error:
            raise storage_failure(self.layout.blobs, error) from error


class CertificateEnds:
    """Until when certificates are valid. The roster names them by serial; the files and rows that hold them say the time."""

    def __init__(self, database: Database, host: Host) -> None:
        self._database = database
        self._layout = host.layout

    def of(self, roster: Roster | None) -> Mapping[str, datetime]:
        """The latest end of each member's certificates that are on record here."""
        ends = dict(map(_serial_and_end, self._known()))
        return {
            member.name: max(ends[each.serial] for each in member.certificates if each.serial in ends)
            for member in (roster.members if roster else ())
            if any(each.serial in ends for each in member.certificates)
        }

    def own(self) -> datetime:
        """The end of the listeners' certificate, which may have been renewed since the start.

        Raises:
            StorageFailure: it cannot be read.
        """
        return _serial_and_end(_read(self._layout.tls_certificate))[1]

    def authority(self, genesis: Genesis) -> datetime:
        """The end of the certificate under which all others are issued."""
        return _serial_and_end(genesis.ca_certificate.encode())[1]

    def _known(self) -> list[bytes]:
        operator = self._layout.operator / "tls.pem"
        issued = [row.pem for row in self._database.certificates().values()]
        return [*issued, _read(operator)] if operator.exists() else issued


@lru_cache(maxsize=4096)
def _serial_and_end(pem: bytes) -> tuple[str, datetime]:
    certificate = load_certificate(pem)
    return f"{certificate.serial_number:x}", certificate.not_valid_after_utc


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise storage_failure(path, error) from error
