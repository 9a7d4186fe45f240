"""How an institution gets into the roster, and every way in which it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography import x509

from common.clock import ManualClock
from common.errors import (
    AlreadyInitialised,
    InvalidInvitation,
    InvalidName,
    InvitationExpired,
    InvitationUsed,
    LLMasOSError,
    MalformedMessage,
)
from common.identity.authority import Authority
from common.identity.certificates import certificate_id, enrol_proof_message
from common.identity.invitation import Invitation, secret_hash
from common.identity.keys import WEAK_KEYS, SigningKey, TlsKey
from tests.support.coordinators import CONSORTIUM, Coordinator
from tests.support.participants import FakeParticipant
from tests.support.statements import sign_genesis


@dataclass
class Guest:
    """West, with an invitation that it has not used."""

    coordinator: Coordinator
    west: FakeParticipant
    invitation: Invitation

    def enrol(self, **changes: Any) -> str:
        return self.coordinator.desk.enrol(self.west.offer(self.invitation, **changes)).certificate_pem


@pytest.fixture
def guest(coordinator: Coordinator) -> Guest:
    return Guest(coordinator, FakeParticipant(coordinator, "west"), coordinator.invite("west"))


def nothing_changed(guest: Guest) -> bool:
    return guest.coordinator.state.member("west") is None and guest.coordinator.state.size == 5


# --- in --------------------------------------------------------------------------------------------------------------


def test_an_invitation_is_worth_a_certificate_and_a_place_in_the_roster(guest: Guest) -> None:
    enrolled = guest.coordinator.desk.enrol(guest.west.offer(guest.invitation))
    member = guest.coordinator.state.member("west")
    assert member is not None
    assert member.signing_key == guest.west.key.public
    assert member.roles == ("trainer", "evaluator")
    assert member.certificates == (certificate_id(enrolled.certificate_pem.encode()),)
    assert enrolled.roster_index == guest.coordinator.state.size - 1
    roster = guest.coordinator.state.roster
    assert roster is not None
    assert roster.version == 5
    assert [each.name for each in roster.members] == ["east", "north", "operator", "south", "west"]


def test_the_certificate_carries_the_invitations_name_whatever_the_request_says(guest: Guest) -> None:
    pem = guest.enrol(csr_der=guest.west.tls.csr("operator"))
    certificate = x509.load_pem_x509_certificate(pem.encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in names] == [f"spiffe://{CONSORTIUM}/institution/west"]
    assert "operator" not in certificate.subject.rfc4514_string()


def test_a_certificate_lasts_as_long_as_the_settings_say(guest: Guest) -> None:
    certificate = x509.load_pem_x509_certificate(guest.enrol().encode())
    days = (certificate.not_valid_after_utc - guest.coordinator.clock.now()).days
    assert days in {364, 365}


def test_the_same_keys_get_the_same_certificate_again_also_after_the_time_and_a_restart(guest: Guest) -> None:
    offer = guest.west.offer(guest.invitation)
    first = guest.coordinator.desk.enrol(offer)
    size = guest.coordinator.state.size
    guest.coordinator.clock.advance(seconds=100 * 3600)
    guest.coordinator.restart()
    assert guest.coordinator.desk.enrol(offer) == first
    assert guest.coordinator.state.size == size


def test_an_encryption_key_goes_into_the_roster(guest: Guest) -> None:
    key, csr = bytes(range(32)), guest.west.tls.csr("west")
    fingerprint = bytes.fromhex(guest.coordinator.state.genesis_place.digest)
    proof = guest.west.key.sign(enrol_proof_message(fingerprint, guest.invitation.invitation_id, csr, key))
    guest.enrol(encryption_key=key, csr_der=csr, proof=proof)
    member = guest.coordinator.state.member("west")
    assert member is not None
    assert member.encryption_key is not None
    assert (member.encryption_key.scheme, member.encryption_key.public) == ("x25519", key.hex())


def test_the_coordinator_keeps_no_secret(guest: Guest) -> None:
    row = guest.coordinator.database.invitation(guest.invitation.invitation_id)
    assert row is not None
    assert row.secret_sha256 == secret_hash(guest.invitation.secret)
    files = [path.read_bytes() for path in guest.coordinator.layout.home.glob("state.sqlite*")]
    assert not any(guest.invitation.secret in content for content in files)


# --- out -------------------------------------------------------------------------------------------------------------


def reused(guest: Guest, **changes: Any) -> str:
    guest.enrol()
    other = FakeParticipant(guest.coordinator, "west")
    return guest.coordinator.desk.enrol(other.offer(guest.invitation, **changes)).certificate_pem


def reused_for_another_tls_key(guest: Guest) -> str:
    guest.enrol()
    return guest.enrol(csr_der=TlsKey.generate().csr("west"))


def expired(guest: Guest) -> str:
    guest.coordinator.clock.advance(seconds=72 * 3600)
    return guest.enrol()


def withdrawn(guest: Guest) -> str:
    guest.coordinator.invite("west")
    return guest.enrol()


def proof_of_another_consortium(guest: Guest) -> str:
    """A proof made for a fingerprint that is not this one's."""
    federation = sign_genesis_elsewhere()
    foreign = Invitation(
        **{name: getattr(guest.invitation, name) for name in Invitation.__slots__ if name != "genesis"},
        genesis=federation,
    )
    return guest.coordinator.desk.enrol(guest.west.offer(foreign)).certificate_pem


def sign_genesis_elsewhere() -> bytes:
    return sign_genesis(Authority.create("banks", now=ManualClock().now()), SigningKey.generate()).envelope


def key_of_north(guest: Guest) -> str:
    guest.west.key = guest.coordinator["north"].key
    return guest.enrol()


REFUSED: list[tuple[str, Callable[[Guest], str], type[LLMasOSError], str]] = [
    ("a wrong secret", lambda g: g.enrol(secret=bytes(32)), InvalidInvitation, "not known here, or its secret is wrong"),
    ("a short secret", lambda g: g.enrol(secret=b""), InvalidInvitation, "not known here, or its secret is wrong"),
    ("an unknown invitation", lambda g: g.enrol(invitation_id="ab" * 16), InvalidInvitation, "not known here"),
    ("a withdrawn invitation", withdrawn, InvalidInvitation, "not known here"),
    ("an expired invitation", expired, InvitationExpired, r"of west expired at 2026-01-04T00:00:00\.000Z\."),
    ("no proof", lambda g: g.enrol(proof=bytes(64)), InvalidInvitation, "The proof of possession does not verify"),
    ("half a proof", lambda g: g.enrol(proof=b"x"), InvalidInvitation, "The proof of possession does not verify"),
    (
        "a key that the asker does not hold",
        lambda g: g.enrol(signing_key=bytes.fromhex(SigningKey.generate().public.public)),
        InvalidInvitation,
        "The proof of possession does not verify",
    ),
    ("a key that is none", lambda g: g.enrol(signing_key=b"short"), InvalidInvitation, "The proof of possession"),
    ("an encryption key that was not proved", lambda g: g.enrol(encryption_key=bytes(32)), InvalidInvitation, "The proof"),
    ("a proof for another consortium", proof_of_another_consortium, InvalidInvitation, "The proof of possession"),
    ("a signing key that a member holds", key_of_north, InvalidInvitation, "Another member holds this signing key already"),
    ("a request that is none", lambda g: g.enrol(csr_der=b"nonsense"), MalformedMessage, "csr_der is not a PKCS #10 request"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("claim", "act", "error", "message"), REFUSED, ids=[row[0].replace(" ", "-") for row in REFUSED]
)
def test_it_does_not_get_in(
    guest: Guest, claim: str, act: Callable[[Guest], str], error: type[LLMasOSError], message: str
) -> None:
    with pytest.raises(error, match=message):
        act(guest)
    assert nothing_changed(guest)


@pytest.mark.parametrize("sign_bit", [0, 0x80])
@pytest.mark.parametrize("key", sorted(WEAK_KEYS), ids=lambda key: key.hex()[:8])
def test_a_signing_key_that_anybody_can_sign_for_does_not_get_in(guest: Guest, key: bytes, sign_bit: int) -> None:
    """With the neutral element as key and as R, and S = 0, every message has a signature."""
    weak, anybody = key[:31] + bytes([key[31] | sign_bit]), b"\x01" + bytes(63)
    with pytest.raises(InvalidInvitation, match=r"The signing key is one that anybody can sign for\."):
        guest.enrol(signing_key=weak, proof=anybody)
    assert nothing_changed(guest)


@pytest.mark.parametrize("reuse", [reused, reused_for_another_tls_key])
def test_an_invitation_is_redeemed_by_one_set_of_keys(guest: Guest, reuse: Callable[[Guest], str]) -> None:
    with pytest.raises(InvitationUsed, match=r"The invitation of west was redeemed with other keys\."):
        reuse(guest)
    member = guest.coordinator.state.member("west")
    assert member is not None
    assert member.signing_key == guest.west.key.public


def test_a_failed_try_does_not_use_an_invitation_up(guest: Guest) -> None:
    with pytest.raises(InvalidInvitation):
        guest.enrol(proof=bytes(64))
    guest.enrol()


# --- invitations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["north", "operator"])
def test_a_member_is_not_invited_again(coordinator: Coordinator, name: str) -> None:
    with pytest.raises(AlreadyInitialised, match=rf"{name} is a member of {CONSORTIUM} already\."):
        coordinator.invite(name)


@pytest.mark.parametrize("name", ["", "North", "../north", "north_1", "a" * 64, "nörth"])
def test_a_name_that_is_none_is_not_invited(coordinator: Coordinator, name: str) -> None:
    with pytest.raises(InvalidName, match="is not a name"):
        coordinator.desk.invite(name, expires_hours=1, roles=("trainer",))
    assert coordinator.database.invitations() == [
        row for row in coordinator.database.invitations() if row.redeemed_by is not None
    ]


def test_an_invitation_says_who_where_and_until_when(guest: Guest) -> None:
    invitation = guest.invitation
    assert invitation.institution == "west"
    assert (invitation.enrolment_address, invitation.work_address) == ("127.0.0.1:7444", "127.0.0.1:7443")
    assert invitation.expires_at == "2026-01-04T00:00:00.000Z"
    assert invitation.genesis == guest.coordinator.genesis
    assert len(invitation.secret) == 32


def test_nobody_is_invited_by_a_name_that_says_anothers_role(coordinator: Coordinator) -> None:
    with pytest.raises(InvalidName, match="'coordinator' is no institution's name here: it says another's role"):
        coordinator.invite("coordinator")
