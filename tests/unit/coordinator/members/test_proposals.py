"""Drafts at the coordinator: what waits, who is told what, what happens when the last approval comes or the roster moves on."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from common.errors import (
    ApprovalPending,
    BadSignature,
    InvalidInvitation,
    InvitationExpired,
    MalformedStatement,
    RoleMissing,
    StorageFailure,
    TooManyRequests,
    UnknownCertificate,
    UnknownObject,
)
from common.identity.certificates import certificate_id, spiffe_id
from common.identity.keys import SigningKey, TlsKey, key_id
from common.ledger.rules import admit, start
from common.statements.approvals import approval_signature
from common.statements.envelope import UnverifiedStatement, parse, parse_payload
from common.statements.kinds import Roster
from coordinator.members import changes, drafts, operators
from coordinator.members import proposals as module
from coordinator.members.operators import join_operator
from coordinator.store.database import Transaction
from coordinator.store.proposals import ApprovalRow
from tests.support.coordinators import CONSORTIUM, Coordinator
from tests.support.enrolling import Desk
from tests.support.participants import RUN, FakeParticipant
from tests.unit.coordinator.members.test_membership import a_leave, an_offer


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    """East, north and south are members; two have to approve a roster, two a plan."""
    made = Coordinator(tmp_path / "coordinator", approvals={"roster": 2, "plan": 2})
    yield made
    made.close()


def open_ids(coordinator: Coordinator) -> list[str]:
    return [hashlib.sha256(each.payload).hexdigest() for each in coordinator.desk.proposals()]


def the_one(coordinator: Coordinator) -> str:
    (found,) = open_ids(coordinator)
    return found


def west(coordinator: Coordinator) -> tuple[FakeParticipant, Any]:
    """An institution with an invitation, whose admission is drafted."""
    participant, invitation = FakeParticipant(coordinator, "west"), coordinator.invite("west")
    with pytest.raises(
        ApprovalPending, match=r"The admission of west awaits approval: 0 of 2 institutions have approved\."
    ):
        participant.join(invitation)
    return participant, invitation


def replayed(coordinator: Coordinator) -> Any:
    """What somebody else makes of the ledger."""
    first, *others = coordinator.envelopes()
    state = start(first).state
    for envelope in others:
        state = admit(state, envelope).state
    return state


# --- joining ---------------------------------------------------------------------------------------------------------


def test_the_fourth_joins_after_two_have_approved_and_gets_the_certificate_of_its_draft(
    coordinator: Coordinator,
) -> None:
    participant, invitation = west(coordinator)
    size = coordinator.state.size
    (proposal,) = coordinator.desk.proposals()
    assert (proposal.approvals_needed, proposal.approved_by) == (2, ())
    drafted = parse_payload(proposal.payload).predicate
    assert isinstance(drafted, Roster)
    waiting = drafted.member("west")
    assert waiting is not None
    approved = coordinator["south"].approve(the_one(coordinator))
    assert (approved.index, approved.approvals_needed, approved.approvals_given) == (None, 2, 1)
    with pytest.raises(ApprovalPending, match=r"1 of 2 institutions have approved \(south\)\.") as caught:
        participant.join(invitation)
    assert caught.value.exit_code == 3
    assert f"llmasos-participant proposal approve {the_one(coordinator)[:8]}" in caught.value.fix
    with pytest.raises(UnknownCertificate):  # issued, but in no roster
        coordinator.ledger.by_certificate(
            waiting.certificates[0].serial, waiting.certificates[0].spki_sha256, spiffe_id(CONSORTIUM, "west")
        )
    approved = coordinator["north"].approve(the_one(coordinator))
    assert (approved.index, approved.approvals_given) == (size, 2)
    assert coordinator.state.member("west") == waiting
    enrolled = participant.join(invitation)
    assert certificate_id(enrolled.certificate_pem.encode()) == waiting.certificates[0]
    assert (enrolled.roster_index, coordinator.state.size) == (size, size + 1)
    assert participant.join(invitation) == enrolled
    assert coordinator.desk.proposals() == ()
    assert coordinator.database.certificates()[waiting.certificates[0].serial].roster_index == size


def test_the_statement_that_is_appended_bears_author_and_approvals_and_everybody_reads_it(
    coordinator: Coordinator,
) -> None:
    west(coordinator)
    digest = the_one(coordinator)
    for name in ("south", "east"):
        coordinator[name].approve(digest)
    statement = parse(coordinator.envelopes()[-1])
    assert statement.digest == digest
    assert {each.keyid for each in statement.approvals} == {
        key_id(coordinator[name].key.public) for name in ("east", "south")
    }
    assert replayed(coordinator).roster == coordinator.state.roster
    assert coordinator["north"].follow().roster == coordinator.state.roster


def test_asking_again_makes_no_second_draft_and_other_keys_take_the_first_ones_place(coordinator: Coordinator) -> None:
    participant, invitation = west(coordinator)
    first = the_one(coordinator)
    coordinator["north"].approve(first)
    with pytest.raises(ApprovalPending, match="1 of 2"):
        participant.join(invitation)
    assert the_one(coordinator) == first
    participant.key = SigningKey.generate()
    with pytest.raises(ApprovalPending, match="0 of 2"):
        participant.join(invitation)
    assert the_one(coordinator) != first
    with pytest.raises(UnknownObject, match=rf"No proposal {first[:8]}… is open"):
        coordinator["south"].approve(first)


def test_a_draft_outlives_the_process_with_its_approvals(coordinator: Coordinator) -> None:
    participant, invitation = west(coordinator)
    coordinator["north"].approve(the_one(coordinator))
    coordinator.restart()
    assert coordinator.desk.open_proposals == 1
    with pytest.raises(ApprovalPending, match=r"1 of 2 institutions have approved \(north\)"):
        participant.join(invitation)
    assert coordinator["east"].approve(the_one(coordinator)).index is not None
    coordinator.restart()
    assert participant.join(invitation).roster_index == coordinator.state.size - 1
    assert coordinator.desk.open_proposals == 0


def test_who_waits_for_approvals_outlives_its_invitations_time(coordinator: Coordinator) -> None:
    participant, invitation = west(coordinator)
    coordinator.clock.advance(seconds=30 * 86_400)
    with pytest.raises(ApprovalPending, match="0 of 2"):
        participant.join(invitation)
    participant.key = SigningKey.generate()
    with pytest.raises(InvitationExpired):
        participant.join(invitation)
    coordinator.approve_all()
    assert coordinator.state.member("west") is not None


@pytest.mark.parametrize("how", ["revoked", "invited anew"])
def test_a_withdrawn_invitation_takes_its_draft_with_it(coordinator: Coordinator, how: str) -> None:
    participant, invitation = west(coordinator)
    digest = the_one(coordinator)
    if how == "revoked":
        coordinator.desk.revoke("west", "operator")
    else:
        coordinator.invite("west")
    assert (coordinator.desk.proposals(), coordinator.desk.open_proposals) == ((), 0)
    with pytest.raises(UnknownObject, match="it was withdrawn, or drafted again over a newer roster"):
        coordinator["north"].approve(digest)
    with pytest.raises(InvalidInvitation, match="not known here"):
        participant.join(invitation)


def test_nobody_waits_in_a_consortium_that_asks_for_no_approvals(tmp_path: Path) -> None:
    made = Coordinator(tmp_path / "free")
    made.enrol("west")
    made.desk.renew(an_offer(made, new_key=SigningKey.generate()))
    made.desk.revoke("south", "operator")
    made.start_run()
    assert made.desk.proposals() == ()
    assert all(parse(envelope).approvals == () for envelope in made.envelopes())
    made.close()


def test_an_operator_of_another_host_waits_too_and_goes_on(
    coordinator: Coordinator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operators, "enrol", Desk(coordinator).enrol)
    invitation, home = coordinator.invite("ops", roles=("operator",)), tmp_path / "ops"
    with pytest.raises(ApprovalPending, match="The admission of ops awaits approval: 0 of 2"):
        join_operator(home, invitation, coordinator.clock)
    coordinator.clock.advance(seconds=30 * 86_400)
    coordinator.approve_all()
    assert join_operator(home, invitation, coordinator.clock).name == "ops"
    late = coordinator.invite("late", roles=("viewer",))
    coordinator.clock.advance(seconds=30 * 86_400)
    with pytest.raises(InvitationExpired, match="of late expired at"):
        join_operator(tmp_path / "late", late, coordinator.clock)


# --- approving -------------------------------------------------------------------------------------------------------


def test_the_same_approval_again_gives_the_same_answer_before_and_after_the_last(coordinator: Coordinator) -> None:
    west(coordinator)
    digest = the_one(coordinator)
    payload = coordinator.desk.proposals()[0].payload
    once = coordinator["north"].approve(digest)
    assert coordinator["north"].approve(digest) == once
    last = coordinator["south"].approve(digest)
    for name in ("north", "south", "east"):
        signature = approval_signature(payload, coordinator[name].key).signature
        assert coordinator.desk.approve(coordinator[name].member, digest, signature) == last


@pytest.mark.parametrize("by", ["another key", "another payload", "nothing"])
def test_what_is_no_signature_under_this_draft_is_refused_and_not_kept(coordinator: Coordinator, by: str) -> None:
    west(coordinator)
    digest, payload = the_one(coordinator), coordinator.desk.proposals()[0].payload
    north = coordinator["north"]
    signature = {
        "another key": approval_signature(payload, SigningKey.generate()).signature,
        "another payload": approval_signature(payload + b" ", north.key).signature,
        "nothing": bytes(64),
    }[by]
    with pytest.raises(
        BadSignature, match=r"The approval by north is not a signature under this statement by its key\."
    ):
        coordinator.desk.approve(north.member, digest, signature)
    assert coordinator.desk.proposals()[0].approved_by == ()


def test_only_institutions_approve(coordinator: Coordinator) -> None:
    west(coordinator)
    digest = the_one(coordinator)
    with pytest.raises(RoleMissing, match="operator has the roles operator; only an active institution approves"):
        coordinator.desk.approve(coordinator.operator, digest, bytes(64))
    for name, role in (("watcher", "viewer"), ("east-it", "operator")):
        person = coordinator.enrol(name, roles=(role,))  # type: ignore[arg-type]
        with pytest.raises(RoleMissing, match=rf"{name} has the roles {role}"):
            person.approve("ab" * 32)


def test_who_leaves_takes_its_approval_along(coordinator: Coordinator) -> None:
    west(coordinator)
    coordinator["north"].approve(the_one(coordinator))
    coordinator["north"].submit(a_leave(coordinator))
    (proposal,) = coordinator.desk.proposals()
    assert (proposal.approvals_needed, proposal.approved_by) == (2, ())
    with pytest.raises(RoleMissing, match="only an active institution approves"):
        coordinator["north"].approve(the_one(coordinator))


def test_an_unknown_proposal_is_said_to_be_unknown(coordinator: Coordinator) -> None:
    for name in ("answer", "nothing"):
        digest = coordinator.state.genesis_place.digest if name == "answer" else "ab" * 32
        with pytest.raises(UnknownObject, match=rf"No proposal {digest[:8]}… is open"):
            coordinator["north"].approve(digest)
    with pytest.raises(UnknownObject, match="No proposal abababab… is open"):
        coordinator.desk.withdraw_proposal("ab" * 32)


def test_a_withdrawn_draft_is_gone_and_may_be_asked_for_again(coordinator: Coordinator) -> None:
    participant, invitation = west(coordinator)
    coordinator["north"].approve(the_one(coordinator))
    coordinator.desk.withdraw_proposal(the_one(coordinator))
    assert coordinator.desk.open_proposals == 0
    with pytest.raises(ApprovalPending, match="0 of 2"):
        participant.join(invitation)


# --- over another roster ---------------------------------------------------------------------------------------------


def test_a_draft_is_made_again_over_a_newer_roster_and_its_approvals_are_void(coordinator: Coordinator) -> None:
    participant, invitation = west(coordinator)
    first = the_one(coordinator)
    coordinator["north"].approve(first)
    coordinator.desk.renew(an_offer(coordinator, "east"))  # needs no approval, and changes the roster
    second = the_one(coordinator)
    (proposal,) = coordinator.desk.proposals()
    assert second != first
    assert proposal.approved_by == ()
    drafted = parse_payload(proposal.payload)
    assert coordinator.state.roster_place is not None
    assert drafted.parent.digest == coordinator.state.roster_place.digest
    with pytest.raises(UnknownObject, match="drafted again over a newer roster"):
        coordinator["south"].approve(first)
    with pytest.raises(ApprovalPending, match="0 of 2"):
        participant.join(invitation)
    coordinator.approve_all()
    enrolled = participant.join(invitation)
    assert certificate_id(enrolled.certificate_pem.encode()) in participant.member.certificates


def test_two_drafts_follow_the_same_roster_and_the_second_is_made_again_after_the_first(
    coordinator: Coordinator,
) -> None:
    west(coordinator)
    other, invitation = FakeParticipant(coordinator, "zoo"), coordinator.invite("zoo")
    with pytest.raises(ApprovalPending):
        other.join(invitation)
    before = set(open_ids(coordinator))
    assert len(before) == 2
    first = open_ids(coordinator)[0]
    for name in ("north", "south"):
        coordinator[name].approve(first)
    assert the_one(coordinator) not in before
    coordinator.approve_all()
    assert {"west", "zoo"} <= coordinator.state.active_names
    assert replayed(coordinator).roster == coordinator.state.roster


def test_the_engine_makes_drafts_again_without_being_asked(coordinator: Coordinator) -> None:
    west(coordinator)
    first = the_one(coordinator)
    coordinator["south"].submit(a_leave(coordinator, "south"))
    coordinator.advance()  # the roster says `left`
    (row,) = coordinator.database.proposals()
    assert row.payload_sha256 != first
    assert parse(row.envelope).parent.digest == coordinator.state.roster_place.digest  # type: ignore[union-attr]


def test_when_nobody_is_left_who_could_approve_a_draft_stands(coordinator: Coordinator) -> None:
    participant, invitation = west(coordinator)
    for name in ("east", "north", "south"):
        coordinator[name].submit(a_leave(coordinator, name))
    coordinator.advance()
    assert coordinator.state.member("west") is not None
    assert participant.join(invitation).roster_index > 0


# --- keys, revocations -----------------------------------------------------------------------------------------------


def test_a_renewed_certificate_comes_at_once(coordinator: Coordinator) -> None:
    assert coordinator.desk.renew(an_offer(coordinator)).roster_index == coordinator.state.size - 1


def test_a_new_signing_key_waits_and_the_present_one_counts_until_then(coordinator: Coordinator) -> None:
    old, new, tls = coordinator["north"].key, SigningKey.generate(), TlsKey.generate()
    replaces = coordinator["north"].member.certificates[-1].serial
    for _ in range(2):  # another request each time: ECDSA
        with pytest.raises(ApprovalPending, match=r"The new signing key of north awaits approval: 0 of 2"):
            coordinator.desk.renew(an_offer(coordinator, new_key=new, tls=tls))
    digest = the_one(coordinator)
    assert coordinator["north"].approve(digest).approvals_given == 1  # under the key in use
    assert coordinator["north"].member.signing_key == old.public
    assert coordinator["south"].approve(digest).index == coordinator.state.size - 1
    assert coordinator["north"].member.signing_key == new.public
    offer = an_offer(coordinator, key=old, new_key=new, tls=tls, replaces_serial=replaces)
    size, enrolled = coordinator.state.size, coordinator.desk.renew(offer)
    assert certificate_id(enrolled.certificate_pem.encode()) == coordinator["north"].member.certificates[-1]
    assert coordinator.state.size == size
    assert replayed(coordinator).roster == coordinator.state.roster


def test_a_renewal_beside_a_waiting_key_voids_its_draft(coordinator: Coordinator) -> None:
    with pytest.raises(ApprovalPending):
        coordinator.desk.renew(an_offer(coordinator, new_key=SigningKey.generate()))
    coordinator.desk.renew(an_offer(coordinator))
    assert coordinator.desk.proposals() == ()


def test_a_key_that_another_member_got_meanwhile_is_not_drafted_again(coordinator: Coordinator) -> None:
    shared = SigningKey.generate()
    for name in ("north", "south"):
        with pytest.raises(ApprovalPending):
            coordinator.desk.renew(an_offer(coordinator, name, new_key=shared))
    first = open_ids(coordinator)[0]
    for name in ("east", "north"):
        coordinator[name].approve(first)
    assert coordinator.desk.proposals() == ()


def test_a_revocation_waits_too(coordinator: Coordinator) -> None:
    for _ in range(2):
        with pytest.raises(ApprovalPending, match=r"The revocation of south awaits approval: 0 of 2"):
            coordinator.desk.revoke("south", "lost-keys")
    assert coordinator.state.is_active("south")
    for name in ("east", "north"):
        coordinator[name].approve(the_one(coordinator))
    assert not coordinator.state.is_active("south")
    assert coordinator.desk.revoke("south", "lost-keys") == coordinator.state.size - 1
    with pytest.raises(RoleMissing):
        coordinator["south"].approve("ab" * 32)


def test_a_revocation_of_one_who_left_meanwhile_is_dropped(coordinator: Coordinator) -> None:
    with pytest.raises(ApprovalPending):
        coordinator.desk.revoke("south", "operator")
    coordinator["south"].submit(a_leave(coordinator, "south"))
    coordinator.advance()
    assert coordinator.desk.proposals() == ()


# --- plans -----------------------------------------------------------------------------------------------------------


def test_a_plan_waits_and_the_same_request_starts_the_run(coordinator: Coordinator) -> None:
    for count in range(2):
        with pytest.raises(ApprovalPending, match=rf"The plan of run {RUN} awaits approval: {count} of 2"):
            coordinator.start_run()
        coordinator[("east", "north")[count]].approve(the_one(coordinator))
    assert coordinator.start_run() == RUN
    assert coordinator.run.statement == coordinator.draft()
    coordinator.play()
    assert replayed(coordinator).runs[RUN].ended is not None


def test_another_plan_for_the_same_run_takes_the_first_ones_place(coordinator: Coordinator) -> None:
    with pytest.raises(ApprovalPending):
        coordinator.start_run()
    first = the_one(coordinator)
    with pytest.raises(ApprovalPending):
        coordinator.start_run(rounds=7)
    assert the_one(coordinator) != first


def test_what_a_waiting_plan_starts_from_is_kept(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ApprovalPending):
        coordinator.start_run()
    refs = [ref for ref, _ in coordinator.blobs.list()]
    later = time.time() + 10 * 3600
    monkeypatch.setattr(time, "time", lambda: later)
    coordinator.aggregation.expire(coordinator.state)
    assert [ref for ref, _ in coordinator.blobs.list()] == refs
    coordinator.desk.withdraw_proposal(the_one(coordinator))
    coordinator.aggregation.expire(coordinator.state)
    assert list(coordinator.blobs.list()) == []


def test_a_plan_whose_model_is_gone_is_not_started_and_goes_on_once_it_is_back(
    coordinator: Coordinator, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ApprovalPending):
        coordinator.start_run()
    model = coordinator.draft().initial.model
    content = coordinator.blobs.path(model).read_bytes()
    coordinator.blobs.delete(model)
    for name in ("east", "north"):
        approved = coordinator[name].approve(the_one(coordinator))
    assert (approved.index, approved.approvals_given) == (None, 2)
    assert [record.message for record in caplog.records].count("proposal stalled") >= 1
    assert RUN not in coordinator.state.runs
    assert content
    assert coordinator.start_run() == RUN  # its upload brings the model back
    assert coordinator.desk.proposals() == ()


# --- a table that a hand wrote into ----------------------------------------------------------------------------------


def test_an_approval_that_a_hand_changed_counts_for_nothing_and_is_given_again(coordinator: Coordinator) -> None:
    west(coordinator)
    digest, size = the_one(coordinator), coordinator.state.size
    coordinator["north"].approve(digest)
    with coordinator.database.transaction() as tx:
        tx.keep_approval(replace(coordinator.database.approvals(digest)[0], signature=bytes(64)))
    assert coordinator["south"].approve(digest).index is None
    assert coordinator.state.size == size
    assert coordinator["north"].approve(digest).index == size


def test_an_approval_that_a_hand_added_counts_for_nothing(coordinator: Coordinator) -> None:
    west(coordinator)
    digest, size = the_one(coordinator), coordinator.state.size
    forged = approval_signature(coordinator.desk.proposals()[0].payload, SigningKey.generate())
    with coordinator.database.transaction() as tx:
        for name in ("stranger", "east"):
            tx.keep_approval(ApprovalRow(digest, name, forged.keyid, forged.signature, "2026-01-01T00:00:00.000Z"))
    assert coordinator["south"].approve(digest).approvals_given == 1
    assert coordinator.state.size == size


# --- limits ----------------------------------------------------------------------------------------------------------


def test_a_draft_that_a_hand_changed_does_not_end_the_engine(
    coordinator: Coordinator, caplog: pytest.LogCaptureFixture
) -> None:
    west(coordinator)
    coordinator.restart()
    with closing(sqlite3.connect(coordinator.layout.state)) as other:
        other.execute("UPDATE proposals SET subject = 'zulu'")
        other.commit()
    coordinator["south"].submit(a_leave(coordinator, "south"))
    coordinator.advance()
    (record,) = [each for each in caplog.records if each.message == "departure stalled"][:1]
    assert "The draft for enrol zulu does not name its subject: a hand changed it." in str(record.__dict__)


def test_so_many_drafts_and_no_more(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PROPOSALS", 2)
    west(coordinator)
    with pytest.raises(ApprovalPending):
        coordinator.desk.revoke("south", "operator")
    with pytest.raises(TooManyRequests, match=r"2 proposals await approval, and no more are kept\."):
        coordinator.start_run()
    with pytest.raises(ApprovalPending):
        coordinator.desk.revoke("south", "operator")  # is one of them
    assert coordinator.desk.open_proposals == module.MOST_PROPOSALS


def test_a_list_is_as_long_as_a_message_holds(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    west(coordinator)
    with pytest.raises(ApprovalPending):
        coordinator.desk.revoke("south", "operator")
    assert len(coordinator.desk.proposals()) == 2
    monkeypatch.setattr(module, "MAX_LISTED_BYTES", 1)
    coordinator["east"].approve(open_ids(coordinator)[0])
    assert len(coordinator.desk.proposals()) == 1


def test_who_asks_again_and_again_has_no_draft_parsed_again(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large roster takes a tenth of a second, on the one thread that also makes the rounds."""
    west(coordinator)
    digest, parsed = the_one(coordinator), list[int]()

    def counted(envelope: bytes) -> UnverifiedStatement:
        parsed.append(len(envelope))
        return parse(envelope)

    coordinator["east"].approve(digest)
    for where in (drafts, module, changes):
        monkeypatch.setattr(where, "parse", counted)
    for _ in range(20):
        coordinator.desk.proposals()
        coordinator["east"].approve(digest)
    assert parsed == [], f"parsed {len(parsed)} times for 40 questions that change nothing"
    assert coordinator.desk.proposals()[0].approved_by == ("east",)


def test_what_is_listed_follows_every_change(coordinator: Coordinator) -> None:
    west(coordinator)
    (first,) = coordinator.desk.proposals()
    coordinator["east"].approve(the_one(coordinator))
    assert coordinator.desk.proposals()[0].approved_by == ("east",)
    coordinator.desk.renew(an_offer(coordinator, "east"))  # needs no approval, and changes the roster
    (again,) = coordinator.desk.proposals()
    assert (again.approved_by, again.payload == first.payload) == ((), False), "drafted again over the newer roster"
    coordinator.desk.withdraw_proposal(the_one(coordinator))
    assert coordinator.desk.proposals() == ()


def test_a_statement_that_has_no_room_for_its_approvals_is_not_drafted(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ENVELOPE_BYTES", 2000)
    with pytest.raises(MalformedStatement, match=r"With 2 approvals this statement has .* at most 2,000 allowed"):
        coordinator.start_run()
    assert coordinator.desk.proposals() == ()


def test_a_disk_that_says_no_at_the_last_approval_loses_nothing(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    participant, invitation = west(coordinator)
    coordinator["north"].approve(the_one(coordinator))
    size = coordinator.state.size
    with monkeypatch.context() as patch:
        patch.setattr(Transaction, "redeem", _full)
        with pytest.raises(StorageFailure, match="refused a change: OperationalError"):
            coordinator["south"].approve(the_one(coordinator))
    assert (coordinator.state.size, coordinator.desk.proposals()[0].approved_by) == (size, ("north", "south"))
    assert coordinator["south"].approve(the_one(coordinator)).index == size
    assert participant.join(invitation).roster_index == size


def _full(*_: object, **__: object) -> None:
    raise OperationalError("INSERT", {}, OSError("disk full"))
