"""Invitations: as text that somebody pasted, and as contents under a right checksum. 1 byte chooses which."""

from __future__ import annotations

import base64
import hashlib

from common.identity.invitation import BEGIN, END, Invitation, parse_invitation
from tests.fuzz.harness import Target

GIVEN = Invitation(
    institution="north",
    invitation_id="inv-1",
    secret=b"\xab" * 32,
    enrolment_address="coordinator.example:7000",
    work_address="coordinator.example:7001",
    expires_at="2026-11-22T06:00:00.000Z",
    genesis=b"{}",
)


def entry(data: bytes) -> None:
    text = armoured(data[1:]) if data[:1] == b"c" else data[1:].decode("utf-8", "replace")
    found = parse_invitation(text)
    assert parse_invitation(found.armoured()) == found


def armoured(body: bytes) -> str:
    """Any contents, spelled and closed as an invitation's are."""
    checksum = hashlib.sha256(body).hexdigest()[: len(_closing(GIVEN.armoured())) - 1]
    return "\n".join([BEGIN, base64.b64encode(body).decode(), f"={checksum}", END, ""])


def _closing(text: str) -> str:
    return text.rstrip("\n").split("\n")[-2]


def seeds() -> list[bytes]:
    text = GIVEN.armoured()
    lines = text.rstrip("\n").split("\n")[1:-2]
    return [b"t" + text.encode(), b"c" + base64.b64decode("".join(lines))]


TARGET = Target(entry, seeds(), max_bytes=8_192, is_json=True)
