"""Renewal, rotation, revocation and leaving at the coordinator: what is decided, what is durable, what a crash leaves to do."""

from __future__ import annotations

from typing import Any

import pytest

from common.clock import rfc3339
from common.errors import (
    BadSignature,
    InvalidInvitation,
    LLMasOSError,
    MalformedMessage,
    UnknownCertificate,
    UnknownObject,
    UsageError,
    WrongSigner,
)
from common.identity.certificates import certificate_id, load_certificate, renew_proof_message, spiffe_id
from common.identity.keys import WEAK_KEYS, SigningKey, TlsKey
from common.ledger.state import LedgerState
from common.statements.envelope import Parent, Statement, sign
from common.statements.kinds import Control, Member
from coordinator.ports import Enrolled, RenewalOffer
from coordinator.rounds.engine import Engine
from tests.support.coordinators import CONSORTIUM, Coordinator, EngineThread


def an_offer(
    coordinator: Coordinator,
    name: str = "north",
    *,
    key: SigningKey | None = None,
    new_key: SigningKey | None = None,
    tls: TlsKey | None = None,
    **changes: Any,
) -> RenewalOffer:
    """A right one by default; `changes` spoil it after it was signed, `replaces_serial` before."""
    known = coordinator.state.member(name)
    replaces = changes.pop("replaces_serial", known.certificates[-1].serial if known else "ab")
    csr = changes.pop("csr_der", None) or (tls or TlsKey.generate()).csr(name)
    public = bytes.fromhex(new_key.public.public) if new_key else None
    fingerprint = bytes.fromhex(coordinator.state.genesis_place.digest)
    message = renew_proof_message(fingerprint, name, replaces, csr, public or b"")
    signing = key or (coordinator[name].key if name in coordinator.participants else SigningKey.generate())
    fields: dict[str, Any] = {
        "institution": name,
        "replaces_serial": replaces,
        "csr_der": csr,
        "proof": signing.sign(message),
        "new_signing_key": public,
        "new_proof": new_key.sign(message) if new_key else None,
    }
    return RenewalOffer(**fields | changes)


def found(coordinator: Coordinator, certificate: Any) -> Member:
    identity = spiffe_id(CONSORTIUM, "north")
    return coordinator.ledger.by_certificate(certificate.serial, certificate.spki_sha256, identity)


def issued(enrolled: Enrolled) -> Any:
    return certificate_id(enrolled.certificate_pem.encode())


def a_leave(coordinator: Coordinator, name: str = "north", **changes: Any) -> Statement:
    state = coordinator.state
    assert state.roster_place is not None
    now = rfc3339(coordinator.clock.now())
    fields = {"action": "leave", "issued_at": now, "reason": "institution-leaves", "institution": name}
    parent = Parent(state.roster_place.kind.value, state.roster_place.digest)
    return sign(Control(**fields | changes), parent=parent, key=coordinator[name].key)


# --- renewal ---------------------------------------------------------------------------------------------------------


def test_a_renewed_certificate_gets_in_and_so_does_the_one_before(coordinator: Coordinator) -> None:
    before = coordinator["north"].member.certificates[-1]
    tls = TlsKey.generate()
    enrolled = coordinator.desk.renew(an_offer(coordinator, tls=tls))
    new = issued(enrolled)
    assert new.spki_sha256 == tls.spki_sha256
    assert enrolled.roster_index == coordinator.state.size - 1
    assert coordinator["north"].member.certificates == (before, new)
    assert found(coordinator, before).name == found(coordinator, new).name == "north"
    subject = load_certificate(enrolled.certificate_pem.encode()).subject.rfc4514_string()
    assert subject == "CN=north"
    assert coordinator["north"].follow().roster == coordinator.state.roster


def test_of_many_certificates_the_two_newest_get_in(coordinator: Coordinator) -> None:
    first = coordinator["north"].member.certificates[-1]
    renewed = [issued(coordinator.desk.renew(an_offer(coordinator))) for _ in range(3)]
    assert coordinator["north"].member.certificates == tuple(renewed[-2:])
    for gone in (first, renewed[0]):
        with pytest.raises(UnknownCertificate, match="not in the newest roster"):
            found(coordinator, gone)


def test_names_in_the_request_are_not_taken(coordinator: Coordinator) -> None:
    offer = an_offer(coordinator, csr_der=TlsKey.generate().csr("operator"))
    pem = coordinator.desk.renew(offer).certificate_pem.encode()
    assert load_certificate(pem).subject.rfc4514_string() == "CN=north"


def test_the_same_offer_again_gives_the_same_certificate_also_after_a_restart(coordinator: Coordinator) -> None:
    offer, tls = an_offer(coordinator), TlsKey.generate()
    first, size = coordinator.desk.renew(offer), coordinator.state.size
    assert coordinator.desk.renew(offer) == first
    coordinator.restart()
    assert coordinator.desk.renew(offer) == first
    again = an_offer(coordinator, tls=tls, replaces_serial=issued(first).serial)
    second = coordinator.desk.renew(again)
    other_csr = an_offer(coordinator, tls=tls, replaces_serial=issued(first).serial)
    assert other_csr.csr_der != again.csr_der  # ECDSA: each request has another signature
    assert coordinator.desk.renew(other_csr) == second
    assert coordinator.state.size == size + 1


def test_the_same_tls_key_may_be_certified_anew(coordinator: Coordinator) -> None:
    tls = TlsKey.generate()
    first = issued(coordinator.desk.renew(an_offer(coordinator, tls=tls)))
    second = issued(coordinator.desk.renew(an_offer(coordinator, tls=tls)))
    assert (first.spki_sha256, first.serial == second.serial) == (second.spki_sha256, False)


def test_an_expired_certificate_is_renewed(coordinator: Coordinator) -> None:
    coordinator.clock.advance(seconds=400 * 86_400)
    pem = coordinator.desk.renew(an_offer(coordinator)).certificate_pem.encode()
    assert load_certificate(pem).not_valid_after_utc > coordinator.clock.now()


def test_what_was_issued_is_kept_beside_the_ledger(coordinator: Coordinator) -> None:
    new = issued(coordinator.desk.renew(an_offer(coordinator)))
    rows = coordinator.database.certificates()
    members = coordinator.state.roster.members if coordinator.state.roster else ()
    assert {each.serial for member in members for each in member.certificates} == set(rows)
    assert rows[new.serial].institution == "north"
    assert rows[new.serial].replaces == coordinator["north"].member.certificates[0].serial


# --- rotation --------------------------------------------------------------------------------------------------------


def test_a_new_signing_key_takes_over_with_its_roster(coordinator: Coordinator) -> None:
    coordinator.start_run()
    old, new = coordinator["north"].key, SigningKey.generate()
    signed_before = coordinator["north"].an_answer()
    coordinator.desk.renew(an_offer(coordinator, new_key=new))
    assert coordinator["north"].member.signing_key == new.public
    with pytest.raises(BadSignature, match="expected key"):
        coordinator["north"].submit(signed_before)
    coordinator["north"].key = new
    index = coordinator["north"].answer()
    assert index == coordinator["north"].answer()
    assert old.public != new.public


def test_a_rotation_asked_for_again_is_the_same_one(coordinator: Coordinator) -> None:
    new = SigningKey.generate()
    offer = an_offer(coordinator, new_key=new)
    first, size = coordinator.desk.renew(offer), coordinator.state.size
    assert coordinator.desk.renew(offer) == first
    assert coordinator.state.size == size


def test_what_was_taken_before_a_rotation_is_still_known_after_it(coordinator: Coordinator) -> None:
    coordinator.start_run()
    answer = coordinator["north"].an_answer()
    index = coordinator["north"].submit(answer)
    coordinator.desk.renew(an_offer(coordinator, new_key=SigningKey.generate()))
    assert coordinator["north"].submit(answer) == index


@pytest.mark.parametrize("raw", sorted(WEAK_KEYS), ids=bytes.hex)
def test_a_weak_signing_key_never_takes_over(coordinator: Coordinator, raw: bytes) -> None:
    fingerprint = bytes.fromhex(coordinator.state.genesis_place.digest)
    replaces, csr = coordinator["north"].member.certificates[-1].serial, TlsKey.generate().csr("north")
    proof = coordinator["north"].key.sign(renew_proof_message(fingerprint, "north", replaces, csr, raw))
    offer = an_offer(coordinator, csr_der=csr, proof=proof, new_signing_key=raw, new_proof=bytes(64))
    with pytest.raises(InvalidInvitation, match="The signing key is one that anybody can sign for"):
        coordinator.desk.renew(offer)
    assert coordinator["north"].member.signing_key == coordinator["north"].key.public


def test_another_members_key_never_takes_over(coordinator: Coordinator) -> None:
    with pytest.raises(InvalidInvitation, match="Another member holds this signing key already"):
        coordinator.desk.renew(an_offer(coordinator, new_key=coordinator["south"].key))


def test_a_new_key_must_sign_itself(coordinator: Coordinator) -> None:
    for new_proof in (None, bytes(64)):
        offer = an_offer(coordinator, new_key=SigningKey.generate(), new_proof=new_proof)
        with pytest.raises(InvalidInvitation, match=r"The new signing key did not sign the request\."):
            coordinator.desk.renew(offer)


# --- what is refused -------------------------------------------------------------------------------------------------


def test_an_outsider_cannot_tell_a_member_from_a_name_that_nobody_has(coordinator: Coordinator) -> None:
    said = []
    for name in ("north", "nobody", "operator"):
        with pytest.raises(BadSignature) as caught:
            coordinator.desk.renew(an_offer(coordinator, name, key=SigningKey.generate()))
        said.append((str(caught.value).replace(name, "NAME"), type(caught.value)))
    assert len(set(said)) == 1


SPOILED: dict[str, tuple[dict[str, Any], type[LLMasOSError], str]] = {
    "another request than was signed": (
        {"csr_der": TlsKey.generate().csr("north"), "proof": bytes(64)},
        BadSignature,
        "is not signed by a member called 'north'",
    ),
    "a certificate that is not the newest": (
        {"replaces_serial": "ab12"},
        UnknownCertificate,
        r"replaces certificate ab12 of north, expected its newest, [0-9a-f]+\.",
    ),
    "no request": ({"csr_der": b"none"}, MalformedMessage, r"csr_der is not a PKCS #10 request"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_offer_is_refused_and_changes_nothing(coordinator: Coordinator, name: str) -> None:
    changes, kind, message = SPOILED[name]
    before = coordinator.state
    with pytest.raises(kind, match=message):
        coordinator.desk.renew(an_offer(coordinator, **changes))
    assert coordinator.state is before


@pytest.mark.parametrize("status", ["revoked", "left"])
def test_who_is_no_member_any_more_renews_nothing(coordinator: Coordinator, status: str) -> None:
    if status == "revoked":
        coordinator.desk.revoke("north", "operator")
    else:
        coordinator["north"].submit(a_leave(coordinator))
        coordinator.advance()
    with pytest.raises(UnknownCertificate, match=rf"north is no active member of hospitals: {status}\."):
        coordinator.desk.renew(an_offer(coordinator))


# --- revocation ------------------------------------------------------------------------------------------------------


def test_a_revoked_member_is_out_and_its_certificates_stay_listed(coordinator: Coordinator) -> None:
    certificates = coordinator["north"].member.certificates
    index = coordinator.desk.revoke("north", "key-lost")
    assert index == coordinator.state.size - 1
    assert (coordinator["north"].member.status, coordinator["north"].member.certificates) == ("revoked", certificates)
    for ask in (coordinator.ledger.by_certificate, coordinator.ledger.follower_by_certificate):
        with pytest.raises(UnknownCertificate, match=r"north is no active member of hospitals any more: revoked\."):
            ask(certificates[0].serial, certificates[0].spki_sha256, spiffe_id(CONSORTIUM, "north"))
    assert coordinator.desk.revoke("north", "again") == index


def test_an_open_round_goes_on_without_a_revoked_member(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=1, quorum=2)
    coordinator["east"].contribute()
    coordinator["south"].contribute()
    coordinator.advance()
    assert coordinator.run.open_round is not None
    coordinator.desk.revoke("north", "operator")
    coordinator.advance()
    (first,) = coordinator.run.committed()
    assert first.closed is not None
    assert first.closed.reason == "all-contributed"
    assert coordinator.run.open_round is not None
    assert coordinator.run.open_round.opened.cohort == ("east", "south")


def test_a_round_that_cannot_have_its_quorum_any_more_is_abandoned_at_once(coordinator: Coordinator) -> None:
    coordinator.open_round(quorum=3)
    coordinator["east"].contribute()
    coordinator["south"].contribute()
    coordinator.desk.revoke("north", "operator")
    coordinator.advance()
    first = coordinator.run.rounds[0].closed
    assert first is not None
    assert (first.outcome, first.reason) == ("abandoned", "no-quorum")


def test_what_a_revoked_member_contributed_before_is_used(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=1, quorum=3)
    for name in ("east", "north"):
        coordinator[name].contribute()
    coordinator.desk.revoke("north", "operator")
    coordinator["south"].contribute()
    coordinator.advance()
    closed = coordinator.run.rounds[0].closed
    assert closed is not None
    assert [entry.institution for entry in closed.inputs if entry.status == "used"] == ["east", "north", "south"]


def test_an_invitation_that_nobody_accepted_is_withdrawn(coordinator: Coordinator) -> None:
    invitation = coordinator.invite("west")
    coordinator.desk.revoke("west", "operator")
    with pytest.raises(InvalidInvitation, match="not known here"):
        coordinator.enrolment.enrol(coordinator["north"].offer(invitation))
    with pytest.raises(UnknownObject, match=r"west is neither a member nor invited\."):
        coordinator.desk.revoke("west", "operator")


def test_the_last_operator_is_never_revoked(coordinator: Coordinator) -> None:
    with pytest.raises(UsageError, match=r"operator is the last active operator") as caught:
        coordinator.desk.revoke("operator", "operator")
    assert "operator invite NAME --role operator" in caught.value.fix
    coordinator.enrol("deputy", ("operator",))
    coordinator.desk.revoke("operator", "operator")
    with pytest.raises(UsageError, match=r"deputy is the last active operator"):
        coordinator.desk.revoke("deputy", "operator")
    with pytest.raises(UsageError, match=r"deputy is the last active operator"):
        coordinator["deputy"].submit(a_leave(coordinator, "deputy"))


# --- leaving ---------------------------------------------------------------------------------------------------------


def departed(state: LedgerState, name: str = "north") -> tuple[str, bool]:
    """Status in the roster, and whether the deltas are said to be deleted."""
    member = state.member(name)
    assert member is not None
    return member.status, state.departures[name].erased is not None


def has_delta(coordinator: Coordinator, name: str, number: int = 1) -> bool:
    ref = coordinator.run.rounds[number - 1].contributions[name].contribution.blobs["delta"]
    return coordinator.blobs.contains(ref)


def closed_round(coordinator: Coordinator) -> None:
    """One committed round of three; the second is open."""
    coordinator.open_round(rounds=3, retention={"delta_rounds": None})
    for name in ("east", "north", "south"):
        coordinator[name].contribute()
    coordinator.advance()


def test_who_leaves_is_let_go_and_its_deltas_are_deleted(coordinator: Coordinator) -> None:
    closed_round(coordinator)
    assert has_delta(coordinator, "north")
    index = coordinator["north"].submit(a_leave(coordinator))
    coordinator.advance()
    assert departed(coordinator.state) == ("left", True)
    assert not has_delta(coordinator, "north")
    assert has_delta(coordinator, "south")
    departure = coordinator.state.departures["north"]
    assert departure.place.index == index
    assert departure.erased is not None
    assert coordinator["south"].follow().departures == coordinator.state.departures


def test_nobody_waits_for_who_left_in_the_open_round(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=1, quorum=2)
    coordinator["east"].contribute()
    coordinator["south"].contribute()
    coordinator["north"].submit(a_leave(coordinator))
    coordinator.advance()
    assert len(coordinator.run.committed()) == 1
    assert coordinator.play().ended is not None


def test_a_delta_that_an_open_round_needs_is_deleted_at_its_close(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=1, quorum=3)
    coordinator["north"].contribute()
    coordinator["north"].submit(a_leave(coordinator))
    coordinator.advance()
    assert departed(coordinator.state) == ("left", False)
    assert has_delta(coordinator, "north")
    coordinator["east"].contribute()
    coordinator["south"].contribute()
    coordinator.advance()
    assert len(coordinator.run.committed()) == 1
    assert departed(coordinator.state) == ("left", True)
    assert not has_delta(coordinator, "north")


def test_a_delta_that_another_named_as_its_own_stays(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=3, retention={"delta_rounds": None})
    delta = coordinator["north"].delta()
    for name in ("east", "north", "south"):
        coordinator[name].contribute(delta)
    coordinator.advance()
    coordinator["north"].submit(a_leave(coordinator))
    coordinator.advance()
    assert departed(coordinator.state) == ("left", True)
    assert has_delta(coordinator, "south")


def test_unfinished_uploads_of_who_left_are_gone(coordinator: Coordinator) -> None:
    from tests.support.blobs import leaves_and_ref

    coordinator.open_round()
    leaves, ref = leaves_and_ref(coordinator["north"].delta())
    coordinator.blobs.begin(ref, leaves, owner="north")
    assert coordinator.blobs.usage("north") > 0
    coordinator["north"].submit(a_leave(coordinator))
    coordinator.advance()
    assert coordinator.blobs.usage("north") == 0


@pytest.mark.parametrize("after", ["leave", "roster", "deletion"])
def test_a_crash_at_any_point_is_completed_at_the_next_start(
    coordinator: Coordinator, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed_round(coordinator)

    class Killed(BaseException):
        """kill -9."""

    def kill(*_: object) -> bool:
        raise Killed

    coordinator["north"].submit(a_leave(coordinator))
    if after != "leave":
        real = coordinator.aggregation.erase

        def erase(state: LedgerState, institution: str) -> bool:
            if after == "deletion":
                real(state, institution)
            return kill()

        monkeypatch.setattr(coordinator.aggregation, "erase", erase)
        with pytest.raises(Killed):
            coordinator.advance()
        assert departed(coordinator.state) == ("left", False)
    coordinator.restart(engine=Engine)
    with EngineThread(coordinator.engine):
        assert coordinator.engine.call(lambda: departed(coordinator.state)) == ("left", True)
    assert not has_delta(coordinator, "north")
    size = coordinator.state.size
    coordinator.restart()
    coordinator.advance()
    assert coordinator.state.size == size


def test_a_failing_disk_is_tried_again_and_said(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    from common.errors import StorageFailure

    closed_round(coordinator)

    def fail(*_: object) -> bool:
        raise StorageFailure("read-only")

    coordinator["north"].submit(a_leave(coordinator))
    with monkeypatch.context() as patch:
        patch.setattr(coordinator.aggregation, "erase", fail)
        coordinator.advance()
    assert departed(coordinator.state) == ("left", False)
    coordinator.advance()
    assert departed(coordinator.state) == ("left", True)


def test_a_leave_sent_again_has_the_same_index(coordinator: Coordinator) -> None:
    leave = a_leave(coordinator)
    index = coordinator["north"].submit(leave)
    coordinator.advance()
    assert coordinator["north"].submit(leave) == index


def test_a_leave_is_nobody_elses_to_send(coordinator: Coordinator) -> None:
    leave = a_leave(coordinator)
    with pytest.raises(WrongSigner, match=r"A statement of north came on the connection of south\."):
        coordinator["south"].submit(leave)
    assert coordinator.state.departures == {}
    for action in ("pause", "erased"):
        control = Control(action=action, issued_at=rfc3339(coordinator.clock.now()), reason="x", institution="north")
        assert coordinator.state.roster_place is not None
        parent = Parent("roster", coordinator.state.roster_place.digest)
        with pytest.raises(WrongSigner, match=r"A control is not for an institution to send\."):
            coordinator["north"].submit(sign(control, parent=parent, key=coordinator["north"].key))


def test_who_left_follows_up_to_the_word_that_its_deltas_are_deleted(coordinator: Coordinator) -> None:
    certificate = coordinator["north"].member.certificates[0]
    identity = spiffe_id(CONSORTIUM, "north")
    coordinator["north"].submit(a_leave(coordinator))
    assert coordinator.ledger.readable_until("north") is None
    coordinator.advance()
    erased = coordinator.state.departures["north"].erased
    assert erased is not None
    found = coordinator.ledger.follower_by_certificate(certificate.serial, certificate.spki_sha256, identity)
    assert (found.name, found.status) == ("north", "left")
    with pytest.raises(UnknownCertificate, match=r"any more: left\."):
        coordinator.ledger.by_certificate(certificate.serial, certificate.spki_sha256, identity)
    assert coordinator.ledger.readable_until("north") == erased.index
    assert coordinator.ledger.readable_until("south") is None
    assert (
        coordinator.ledger.follower_by_certificate(
            *(getattr(coordinator["south"].member.certificates[0], field) for field in ("serial", "spki_sha256")),
            spiffe_id(CONSORTIUM, "south"),
        ).name
        == "south"
    )


def test_a_run_whose_last_round_just_closed_lets_go_too(coordinator: Coordinator) -> None:
    """No run is active any more afterwards, and nothing would wake the engine."""
    coordinator.open_round(rounds=1, quorum=3)
    for name in ("east", "north", "south"):
        coordinator[name].contribute()
    coordinator["north"].submit(a_leave(coordinator))
    coordinator.play()
    assert coordinator.run.ended is not None
    assert departed(coordinator.state) == ("left", True)
