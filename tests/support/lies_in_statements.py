"""Lies about who speaks, where, and in which spelling."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from common import strict_json
from common.identity.keys import SigningKey
from tests.support.lies import OTHER_RUN, RUN, SENT, SIGNED, UNPLACED, Lie, Tell, edited
from tests.support.mallory import METRICS, SALT, Mallory
from tests.support.statements import resealed

PLACED = (RUN, None, "signed-by")
"""Of the run, but of no round of it that there is."""


def payload(**changes: Any) -> Tell:
    """Submits a contribution that is right but for `changes`."""
    return lambda liar: liar.submit(liar.payload(**changes))


def altered(liar: Mallory) -> bytes:
    """A rightly signed envelope whose payload says another weight."""
    envelope = json.loads(resealed(liar.payload(), liar.key))
    content = base64.b64decode(envelope["payload"]).replace(b'"num_tokens":10}', b'"num_tokens":11}')
    return strict_json.dumps(envelope | {"payload": base64.b64encode(content).decode()})


def impersonating(liar: Mallory) -> bytes:
    """The liar's key id over another key's signature."""
    ours = json.loads(resealed(liar.payload(), liar.key))
    other = json.loads(resealed(liar.payload(), SigningKey.generate()))
    other["signatures"][0]["keyid"] = ours["signatures"][0]["keyid"]
    return strict_json.dumps(other)


def signed_twice(liar: Mallory) -> bytes:
    envelope = json.loads(resealed(liar.payload(), liar.key))
    return strict_json.dumps(envelope | {"signatures": 2 * envelope["signatures"]})


def of_clinic(liar: Mallory) -> bytes:
    """A statement of clinic's, as everybody reads it in the ledger."""
    place = liar.round.contributions["clinic"].place
    return liar.federation.entries()[place.index].statement.envelope


def to(kind: str, digest: Callable[[Mallory], str]) -> Tell:
    """A contribution with another parent."""

    def tell(liar: Mallory) -> int:
        return liar.submit(liar.payload() | {"subject": [{"digest": {"sha256": digest(liar)}, "name": kind}]})

    return tell


def opening_of_other(liar: Mallory) -> str:
    record = liar.federation.run(OTHER_RUN)
    assert record is not None
    assert record.current is not None
    return record.current.place.digest


def as_coordinator(kind: str, **predicate: Any) -> Tell:
    """A statement of the coordinator's, signed by the liar."""

    def tell(liar: Mallory) -> int:
        return liar.submit(liar.statement(kind, predicate, "plan", liar.run.place.digest))

    return tell


def plan_digest(liar: Mallory) -> str:
    return liar.run.place.digest


def genesis_digest(liar: Mallory) -> str:
    return liar.federation.state().genesis_place.digest


WHO_AND_WHERE = (
    Lie("altered", lambda m: m.peer.submit(altered(m), METRICS, SALT), "bad-signature", "UNAUTHENTICATED", SENT),
    Lie("signed by a key of nobody", lambda m: m.submit(m.payload(), SigningKey.generate()),
        "bad-signature", "UNAUTHENTICATED", SENT),
    Lie("signed by a key of nobody under our key's id", lambda m: m.peer.submit(impersonating(m)),
        "bad-signature", "UNAUTHENTICATED", SENT),
    Lie("in the name of another", payload(institution="clinic"), "wrong-signer", "PERMISSION_DENIED", SENT),
    Lie("in the name of the operator", payload(institution="operator"), "wrong-signer", "PERMISSION_DENIED", SENT),
    Lie("in the name of nobody", payload(institution="nobody"), "wrong-signer", "PERMISSION_DENIED", SENT),
    Lie("another's very statement on our connection", lambda m: m.peer.submit(of_clinic(m), METRICS, SALT),
        "wrong-signer", "PERMISSION_DENIED", SENT),
    Lie("a refusal in the coordinator's place",
        as_coordinator("refusal", institution="clinic", refused_sha256="00" * 32, code="bad-signature",
                       attribution="signed-by"),
        "wrong-signer", "PERMISSION_DENIED", UNPLACED),
    Lie("a control in the coordinator's place",
        as_coordinator("control", action="pause", issued_at="2026-01-01T00:00:00.000Z", run=RUN, reason="operator"),
        "wrong-signer", "PERMISSION_DENIED", UNPLACED),
    Lie("the leave of another",
        as_coordinator("control", action="leave", issued_at="2026-01-01T00:00:00.000Z", institution="clinic",
                       reason="leaving"),
        "wrong-signer", "PERMISSION_DENIED", UNPLACED),
    Lie("to the plan instead of the round", to("plan", plan_digest), "wrong-parent", "FAILED_PRECONDITION", SIGNED),
    Lie("to the genesis", to("genesis", genesis_digest), "wrong-parent", "FAILED_PRECONDITION", SIGNED),
    Lie("to a statement that is nowhere", to("round-opened", lambda m: "ab" * 32),
        "wrong-parent", "FAILED_PRECONDITION", SIGNED),
    Lie("of this run to a round of another", to("round-opened", opening_of_other),
        "wrong-parent", "FAILED_PRECONDITION", SIGNED),
    Lie("of another run to this round", payload(run=OTHER_RUN),
        "wrong-parent", "FAILED_PRECONDITION", (OTHER_RUN, 1, "signed-by")),
    Lie("to a round that is not there", payload(round=2), "wrong-parent", "FAILED_PRECONDITION", PLACED),
    Lie("to a round before the first", payload(round=0), "malformed-statement", recorded=UNPLACED),
    Lie("to a run that is not there", payload(run="nobody-000001"),
        "wrong-parent", "FAILED_PRECONDITION", (None, None, "signed-by")),
    Lie("a second answer", lambda m: m.answer(accept=False), "slot-taken", "ALREADY_EXISTS", PLACED),
)  # fmt: skip


def spelled(before: bytes, after: bytes) -> Tell:
    return lambda liar: liar.submit(edited(liar.payload(), before, after))


def weight(spelling: bytes) -> Tell:
    return spelled(b'"num_tokens":10}', b'"num_tokens":' + spelling + b"}")


def raw(content: bytes) -> Tell:
    """Signed, whatever it is."""
    return lambda liar: liar.submit(content)


def bare(envelope: bytes) -> Tell:
    """Not even an envelope."""
    return lambda liar: liar.peer.submit(envelope)


def named(field: str, name: str) -> Tell:
    return payload(**{field: name})


def delta(**changes: Any) -> Tell:
    return payload(blobs={"delta": {"algorithm": "blake3", "root": "ab" * 32, "size": 1} | changes})


PATH_TRICKS = {
    "dots and slashes": "../../etc/passwd",
    "a NUL": "clinic\0",
    "a line break": "clinic\n",
    "look-alike letters": "\u0441linic",
    "an escape sequence": "\x1b]0;title\x07",
    "a right-to-left override": "cli\u202ecin",
    "capital letters": "CLINIC",
    "64 letters": "c" * 64,
    "nothing": "",
    "a million letters": "c" * 500_000,
}

SPELLING = tuple(
    Lie(claim, tell, "malformed-statement", recorded=UNPLACED)
    for claim, tell in (
        ("a member name twice", weight(b'10,"num_tokens":10')),
        ("1e400", weight(b"1e400")),
        ("NaN", weight(b"NaN")),
        ("-Infinity", weight(b"-Infinity")),
        ("a fraction", weight(b"10.0")),
        ("2^60", weight(b"1152921504606846976")),
        ("minus zero", weight(b"-0")),
        ("a number of 100,000 digits", weight(b"1" * 100_000)),
        ("num_tokens of 10^12", weight(b"1000000000000")),
        ("num_tokens below zero", weight(b"-10")),
        ("num_tokens as text", weight(b'"10"')),
        ("a lone surrogate", spelled(b'"institution":"mallory"', b'"institution":"\\ud800"')),
        ("no UTF-8", spelled(b'"institution":"mallory"', b'"institution":"\xff"')),
        ("a byte order mark", lambda m: m.submit(b"\xef\xbb\xbf" + strict_json.dumps(m.payload()))),
        ("a space", lambda m: m.submit(strict_json.dumps(m.payload()) + b" ")),
        ("an unknown field", payload(admin=True)),
        ("an unknown kind", as_coordinator("confession", institution="mallory")),
        ("two subjects", lambda m: m.submit(m.payload() | {"subject": 2 * m.payload()["subject"]})),
        ("nested ten thousand deep", raw(b"[" * 10_000 + b"]" * 10_000)),
        ("nested deep inside a text that never ends", raw(b'{"a":"' + b"[" * 100_000)),
        ("a list of 200,000 empty lists", raw(b"[" + b"[]," * 200_000 + b"[]]")),
        ("null", raw(b"null")),
        ("two signatures", lambda m: m.peer.submit(signed_twice(m))),
        ("garbage", bare(b"\x00\xff garbage")),
        *((f"a run named with {what}", named("run", name)) for what, name in PATH_TRICKS.items()),
        *((f"an institution named with {what}", named("institution", name)) for what, name in PATH_TRICKS.items()),
        ("a blob's root that is a path", delta(root="../" * 21 + "a")),
        ("a blob's algorithm that is a path", delta(algorithm="../x")),
        ("a blob of a size below zero", delta(size=-1)),
        ("a deviation that steers a terminal", payload(deviations=["\x1b[2J"])),
        ("seventeen deviations", payload(deviations=[f"code-{number}" for number in range(17)])),
    )
)  # fmt: skip
