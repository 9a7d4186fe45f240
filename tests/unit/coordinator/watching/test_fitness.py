"""What a coordinator must have to be ready."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from common.clock import ManualClock, SystemClock
from common.identity.authority import Authority
from common.identity.keys import TlsKey
from coordinator.api.intake import RESERVED_BYTES
from coordinator.watching.fitness import certificate_check, disk_check


class Disk:
    """A host with so much room."""

    def __init__(self, free: int) -> None:
        self.free = free

    def disk_free_bytes(self) -> int:
        return self.free


@pytest.mark.parametrize(("free", "fit"), [(RESERVED_BYTES, True), (RESERVED_BYTES - 1, False)])
def test_a_disk_that_takes_no_upload_is_a_fault(free: int, fit: bool) -> None:
    fault = disk_check(Disk(free))()  # type: ignore[arg-type]
    assert (fault is None) is fit
    if fault is not None:
        assert fault == f"The disk has {free:,} bytes free, {RESERVED_BYTES:,} are kept free."


def test_a_certificate_out_of_its_time_is_a_fault(tmp_path: Path) -> None:
    now, path = SystemClock().now(), tmp_path / "tls.pem"
    authority, key = Authority.create("hospitals", now=now), TlsKey.generate()
    path.write_bytes(authority.issue_coordinator(key.csr("coordinator"), now=now, days=30))
    assert certificate_check(path, ManualClock(now))() is None
    later = certificate_check(path, ManualClock(now + timedelta(days=31)))()
    assert later is not None
    assert "The coordinator's certificate" in later
    path.unlink()
    assert certificate_check(path, ManualClock(now))() is not None
