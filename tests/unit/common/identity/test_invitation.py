from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from common.errors import BadSignature, InvalidInvitation, MalformedStatement, WrongParent
from common.identity.authority import Authority
from common.identity.invitation import Invitation, open_genesis, parse_invitation, secret_hash
from common.identity.keys import EncryptionKey, SigningKey
from common.statements.envelope import Parent, Statement, sign
from common.strict_json import StrictJsonError
from tests.fuzz.harness import stored
from tests.fuzz.targets.invitations import armoured
from tests.support.statements import NOW, a_federation, a_genesis, sign_genesis


@functools.cache
def genesis() -> Statement:
    return a_federation().genesis


def an_invitation(**changes: Any) -> Invitation:
    valid = Invitation(
        institution="north",
        invitation_id="Zx9-_q",
        secret=bytes(range(32)),
        enrolment_address="coordinator.example:7444",
        work_address="[::1]:7443",
        expires_at="2026-01-04T00:00:00.000Z",
        genesis=genesis().envelope,
    )
    return dataclasses.replace(valid, **changes)


def test_an_invitation_comes_back_from_its_text() -> None:
    text = an_invitation().armoured()
    assert text.startswith("-----BEGIN LLMASOS INVITATION-----\n")
    assert text.endswith("\n-----END LLMASOS INVITATION-----\n")
    assert max(map(len, text.splitlines())) <= 64
    assert parse_invitation(text) == an_invitation()


@pytest.mark.parametrize(
    "carried",
    [
        lambda text: "Dear colleague,\n\n" + text + "\nBest wishes",
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "".join(f"> {line}\n" for line in text.splitlines()),
        lambda text: "".join(f"   {line}  \n" for line in text.splitlines()),
        lambda text: text.replace("\n", "\n\n"),
    ],
)
def test_an_invitation_survives_mail(carried: Callable[[str], str]) -> None:
    assert parse_invitation(carried(an_invitation().armoured())) == an_invitation()


def without_line(text: str, index: int) -> str:
    lines = text.splitlines()
    del lines[index]
    return "\n".join(lines)


SPOILED: dict[str, tuple[Callable[[str], str], str]] = {
    "nothing": (lambda text: "", "0 characters hold no line '-----BEGIN LLMASOS INVITATION-----'"),
    "something else": (lambda text: "ssh-ed25519 AAAA", "16 characters hold no line"),
    "no first line": (lambda text: without_line(text, 0), "hold no line"),
    "no last line": (lambda text: without_line(text, -1), "cut off: its last line '-----END"),
    "half of it": (lambda text: text[: len(text) // 2], "cut off"),
    "a line is missing": (lambda text: without_line(text, 3), "its checksum does not match"),
    "no checksum": (lambda text: without_line(text, -2), "changed"),
    "a changed letter": (lambda text: text[:100] + ("A" if text[100] != "A" else "B") + text[101:], "changed"),
    "a foreign letter": (lambda text: text[:100] + "*" + text[101:], "its lines are not base64"),
    "another alphabet": (lambda text: text[:100] + "é" + text[101:], "its lines are not base64"),
    "empty": (lambda text: "-----BEGIN LLMASOS INVITATION----------END LLMASOS INVITATION-----", "checksum"),
    "a second invitation's end": (
        lambda text: text[:-100] + an_invitation(invitation_id="other1").armoured()[-100:],
        "checksum does not match",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), SPOILED.values(), ids=SPOILED.keys())
def test_a_spoiled_invitation_is_refused(spoil: Callable[[str], str], message: str) -> None:
    text = an_invitation().armoured()
    with pytest.raises(InvalidInvitation) as caught:
        parse_invitation(spoil(text))
    assert message in caught.value.message


def test_contents_that_are_no_base64_under_a_right_checksum_are_refused() -> None:
    (found,) = stored("found", "invitations")
    with pytest.raises(InvalidInvitation, match=r"whole but not one that this release reads: .* only ASCII"):
        parse_invitation(armoured(found[1:]))


def test_every_single_changed_character_is_noticed() -> None:
    text = an_invitation(genesis=b"short").armoured()
    begin, end = text.index("\n") + 1, text.rindex("\n-----END")
    for index in range(begin, end):
        other = "A" if text[index] != "A" else "B"
        if text[index] == "\n":
            continue
        with pytest.raises(InvalidInvitation):
            parse_invitation(text[:index] + other + text[index + 1 :])


@pytest.mark.parametrize(
    "change",
    [
        {"institution": "../x"},
        {"invitation_id": "a b"},
        {"secret": b"short"},
        {"work_address": "nowhere"},
        {"enrolment_address": "a b:1"},
        {"expires_at": "tomorrow"},
    ],
)
def test_an_invitation_with_a_wrong_field_is_never_written(change: dict[str, Any]) -> None:
    with pytest.raises(StrictJsonError, match=next(iter(change))):
        an_invitation(**change).armoured()


def test_the_secret_is_not_shown() -> None:
    shown = repr(an_invitation())
    assert "secret" not in shown
    assert "north" in shown
    assert secret_hash(bytes(32)) == hashlib.sha256(bytes(32)).hexdigest()


def test_a_genesis_opens_under_its_own_key() -> None:
    statement, content = open_genesis(genesis().envelope)
    assert statement == genesis()
    assert content.consortium == "hospitals"


AUTHORITY = Authority.create("hospitals", now=NOW)
COORDINATOR = SigningKey.generate()

BAD_GENESES: dict[str, tuple[Callable[[], Statement], type[Exception], str]] = {
    "another kind": (
        lambda: a_federation().answer("north"),
        MalformedStatement,
        "This answer statement stands where a genesis was expected",
    ),
    "signed by another key": (
        lambda: sign_genesis(AUTHORITY, COORDINATOR, coordinator_key=SigningKey.generate().public),
        BadSignature,
        "This genesis statement is signed by key",
    ),
    "a key that cannot sign": (
        lambda: sign_genesis(AUTHORITY, COORDINATOR, coordinator_key=EncryptionKey.generate().public),
        MalformedStatement,
        "names a key that cannot sign",
    ),
    "another certificate as parent": (
        lambda: sign(a_genesis(AUTHORITY, COORDINATOR), parent=Parent("ca-certificate", "0" * 64), key=COORDINATOR),
        WrongParent,
        "names another CA certificate as its parent",
    ),
    "two CA certificates": (
        lambda: sign_genesis(AUTHORITY, COORDINATOR, ca_certificate=AUTHORITY.certificate_pem.decode() * 2),
        MalformedStatement,
        "is not exactly one certificate",
    ),
    "another consortium's CA": (
        lambda: sign_genesis(AUTHORITY, COORDINATOR, consortium="banks"),
        MalformedStatement,
        "names another consortium",
    ),
}


@pytest.mark.parametrize(("make", "error", "message"), BAD_GENESES.values(), ids=BAD_GENESES.keys())
def test_a_genesis_is_refused_with(make: Callable[[], Statement], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        open_genesis(make().envelope)
