"""Approvals in an envelope: one canonical spelling, checked by the keys that are given and by no others."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib import dsse
from securesystemslib.exceptions import VerificationError

from common import strict_json
from common.errors import BadSignature, MalformedStatement, NotEnoughApprovals
from common.identity.keys import SigningKey, key_id, verifying_key
from common.statements.approvals import (
    APPROVAL_BYTES,
    approval_signature,
    verify_approvals,
    with_approvals,
)
from common.statements.envelope import (
    APPROVED_KINDS,
    MAX_ENVELOPE_BYTES,
    Approval,
    Parent,
    Statement,
    parse,
    parse_payload,
    sign,
    signed_payload,
    signed_under,
    verify,
)
from common.statements.kinds import Kind, PublicKey, Refusal
from tests.support.plans import a_plan
from tests.support.statements import Federation, a_federation, a_plan_statement, an_answer

GOLDEN_SHA256 = "6b4c99e923272bfbe98b002d99883509f1e52f19da027fb7600b1da63a597101"
"""Of the envelope of an answer with one signature, as the first release wrote it."""


@functools.cache
def federation() -> Federation:
    return a_federation()


def members() -> dict[str, PublicKey]:
    return {name: key.public for name, key in federation().institutions.items()}


@functools.cache
def approved(*names: str) -> bytes:
    """The roster with these institutions' approvals."""
    roster = federation().roster
    keys = [federation().institutions[name] for name in names]
    return with_approvals(roster.envelope, [approval_signature(roster.payload, key) for key in keys])


def signatures(envelope: bytes) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(envelope)["signatures"]
    return found


def edited(envelope: bytes, edit: Callable[[list[dict[str, str]]], object]) -> bytes:
    value: dict[str, Any] = json.loads(envelope)
    edit(value["signatures"])
    return strict_json.dumps(value)


# --- one spelling ----------------------------------------------------------------------------------------------------


def test_an_envelope_with_one_signature_has_the_bytes_that_it_always_had() -> None:
    key = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
    statement = sign(an_answer("north", nonce="ab" * 32), parent=Parent("plan", "cd" * 32), key=key)
    assert hashlib.sha256(statement.envelope).hexdigest() == GOLDEN_SHA256
    assert statement.approvals == ()


def test_approvals_follow_the_author_in_the_order_of_key_ids_whatever_the_order_they_came_in() -> None:
    envelope = approved("south", "east", "north")
    assert envelope == approved("north", "south", "east") == approved("east", "north", "south")
    author, *others = signatures(envelope)
    assert author["keyid"] == key_id(federation().coordinator.public)
    assert [each["keyid"] for each in others] == sorted(key_id(key) for key in members().values())
    assert len(approved("north")) == len(federation().roster.envelope) + APPROVAL_BYTES


def test_approvals_change_neither_digest_nor_author() -> None:
    again = verify(parse(approved("north", "south")), federation().coordinator.public)
    assert (again.digest, again.payload) == (federation().roster.digest, federation().roster.payload)
    assert len(again.approvals) == 2
    assert again != federation().roster


def test_approvals_that_are_put_in_again_take_the_place_of_those_before() -> None:
    roster = federation().roster
    assert with_approvals(approved("north", "south"), []) == roster.envelope
    south = approval_signature(roster.payload, federation().institutions["south"])
    assert with_approvals(approved("north"), [south]) == approved("south")


SPOILED: dict[str, tuple[Callable[[], bytes], str]] = {
    "approvals in another order": (
        lambda: edited(approved("east", "north"), lambda s: s.append(s.pop(1))),
        "do not ascend by key id",
    ),
    "the same approval twice": (
        lambda: edited(approved("north"), lambda s: s.append(dict(s[1]))),
        "one key signs twice",
    ),
    "another signature by the same key": (
        lambda: edited(approved("north"), lambda s: s.append({**s[1], "sig": s[0]["sig"]})),
        "one key signs twice",
    ),
    "the author as its own approver": (
        lambda: edited(approved("north"), lambda s: s.append(dict(s[0]))),
        "one key signs twice",
    ),
    "no signature at all": (lambda: edited(approved("north"), lambda s: s.clear()), "should have at least 1 item"),
    "a cut-off approval": (
        lambda: edited(approved("north"), lambda s: s[1].update(sig=s[1]["sig"][:-4])),
        "signatures.1.sig: String should have at least 88",
    ),
    "unused base64 bits": (
        lambda: edited(approved("north"), lambda s: s[1].update(sig=s[1]["sig"][:-3] + _next(s[1]["sig"][-3]) + "==")),
        "differs from its canonical re-encoding",
    ),
    "a name beside an approval": (
        lambda: edited(approved("north"), lambda s: s[1].update(name="north")),
        "signatures.1.name: Extra inputs are not permitted",
    ),
    "1,001 approvals": (
        lambda: edited(
            federation().roster.envelope,
            lambda s: s.extend({"keyid": f"{n:064x}", "sig": base64.b64encode(bytes(64)).decode()} for n in range(1001)),
        ),
        "should have at most 1001 items",
    ),
}  # fmt: skip


def _next(character: str) -> str:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return alphabet[alphabet.index(character) ^ 1]


@pytest.mark.parametrize(("spoil", "message"), SPOILED.values(), ids=SPOILED)
def test_an_envelope_is_refused_for(spoil: Callable[[], bytes], message: str) -> None:
    with pytest.raises(MalformedStatement) as caught:
        parse(spoil())
    assert message in caught.value.message


def every_other_kind() -> list[Statement]:
    f = federation()
    refusal = Refusal(institution="north", refused_sha256="0" * 64, code="bad-signature", attribution="signed-by")
    others = [
        f.genesis,
        f.answer("north"),
        f.opened,
        f.contribution("north"),
        f.sign(refusal, parent=f.opened),
        f.closed(),
    ]
    assert APPROVED_KINDS.isdisjoint(each.kind for each in others)
    return others


@pytest.mark.parametrize("statement", every_other_kind(), ids=lambda each: each.kind)
def test_what_is_never_approved_has_one_signature(statement: Statement) -> None:
    approval = approval_signature(statement.payload, federation().institutions["south"])
    added = {"keyid": approval.keyid, "sig": base64.b64encode(approval.signature).decode()}
    message = (
        rf"This {statement.kind} statement has 2 signatures, expected its author's alone: only plan, release, roster"
    )
    with pytest.raises(MalformedStatement, match=message):
        parse(edited(statement.envelope, lambda s: s.append(added)))
    with pytest.raises(MalformedStatement, match=message):
        with_approvals(statement.envelope, [approval])


def test_more_than_an_envelope_holds_is_not_written() -> None:
    f = federation()
    statement = f.sign(a_plan_statement(plan=a_plan().model_copy(update={"description": "x" * 200})), parent=f.roster)
    many = [Approval(f"{n:064x}", bytes(64)) for n in range(1001)]
    with pytest.raises(MalformedStatement, match="at most 1001 items"):
        with_approvals(statement.envelope, many)
    assert len(with_approvals(statement.envelope, many[:1000])) < MAX_ENVELOPE_BYTES


# --- who signed ------------------------------------------------------------------------------------------------------


def test_it_is_said_who_approved() -> None:
    assert verify_approvals(parse(approved("south", "north")), members()) == ("north", "south")
    assert verify_approvals(parse(approved()), members()) == ()
    assert approved() == federation().roster.envelope


def test_the_author_is_checked_under_its_own_key_and_no_approver_stands_for_it() -> None:
    statement = parse(approved("north"))
    with pytest.raises(BadSignature, match=r"This roster statement is signed by key .* expected key"):
        verify(statement, members()["north"])
    north = federation().institutions["north"]
    forged = with_approvals(
        signed_payload(federation().roster.payload, north),
        [approval_signature(federation().roster.payload, federation().coordinator)],
    )
    with pytest.raises(BadSignature, match=r"expected key"):
        verify(parse(forged), federation().coordinator.public)


def test_a_strangers_approval_is_refused() -> None:
    stranger = approval_signature(federation().roster.payload, SigningKey.generate())
    envelope = with_approvals(federation().roster.envelope, [stranger])
    with pytest.raises(
        NotEnoughApprovals, match=rf"approval by key {stranger.keyid[:16]}…, which is none of those of the 3"
    ):
        verify_approvals(parse(envelope), members())


def test_an_approval_of_another_statement_is_refused() -> None:
    f = federation()
    other = approval_signature(f.plan.payload, f.institutions["north"])
    envelope = with_approvals(f.roster.envelope, [other])
    with pytest.raises(
        BadSignature, match=r"The approval by north is not a signature under this statement by its key\."
    ):
        verify_approvals(parse(envelope), members())


def test_an_approval_under_another_members_key_id_is_refused() -> None:
    payload, north = federation().roster.payload, federation().institutions["north"]
    relabelled = Approval(key_id(members()["south"]), approval_signature(payload, north).signature)
    envelope = with_approvals(federation().roster.envelope, [relabelled])
    with pytest.raises(BadSignature, match="The approval by south"):
        verify_approvals(parse(envelope), members())


def test_a_proof_of_possession_is_no_approval() -> None:
    """What a key signs elsewhere begins with its own context; an approval is over DSSE's encoding alone."""
    payload, north = federation().roster.payload, federation().institutions["north"]
    bare = Approval(key_id(north.public), north.sign(payload))
    with pytest.raises(BadSignature, match="The approval by north"):
        verify_approvals(parse(with_approvals(federation().roster.envelope, [bare])), members())


def refused(envelope: bytes) -> bool:
    try:
        statement = verify(parse(envelope), federation().coordinator.public)
        return verify_approvals(statement, members()) != ("east", "north", "south")
    except (MalformedStatement, BadSignature, NotEnoughApprovals):
        return True


@settings(deadline=None, max_examples=500)
@given(st.data())
def test_any_flipped_bit_of_an_approved_statement_is_refused(data: st.DataObject) -> None:
    changed = bytearray(approved("east", "north", "south"))
    bit = data.draw(st.integers(0, 8 * len(changed) - 1))
    assert not refused(bytes(changed))
    changed[bit // 8] ^= 1 << bit % 8
    assert refused(bytes(changed))


def test_every_flipped_bit_of_the_signatures_is_refused() -> None:
    envelope = approved("east", "north", "south")
    first = envelope.index(b'"signatures"')
    passed = []
    for bit in range(8 * first, 8 * len(envelope)):
        changed = bytearray(envelope)
        changed[bit // 8] ^= 1 << bit % 8
        if not refused(bytes(changed)):
            passed.append(bit)
    assert passed == []


# --- beside ----------------------------------------------------------------------------------------------------------


def test_any_dsse_library_checks_a_threshold_of_approvals() -> None:
    envelope = dsse.Envelope.from_dict(json.loads(approved("north", "south")))
    everybody = [verifying_key(key) for key in members().values()]
    assert set(envelope.verify(everybody, threshold=2)) == {key_id(members()[name]) for name in ("north", "south")}
    with pytest.raises(VerificationError, match="Found: 2, Expected 3"):
        envelope.verify(everybody, threshold=3)
    author = [verifying_key(federation().coordinator.public)]
    assert len(envelope.verify(author, threshold=1)) == 1


def test_a_statement_under_a_new_key_of_its_author_has_no_approvals() -> None:
    new = SigningKey.generate()
    assert signed_under(approved("north"), federation().coordinator) == approved("north")
    assert parse(signed_under(approved("north"), new)).approvals == ()
    again = signed_under(approved("north"), federation().institutions["north"])
    assert again == signed_payload(federation().roster.payload, federation().institutions["north"])


def test_a_payload_alone_says_what_its_envelope_will() -> None:
    draft = parse_payload(federation().roster.payload)
    roster = federation().roster
    assert (draft.digest, draft.kind, draft.parent) == (roster.digest, Kind.ROSTER, roster.parent)
    assert draft.predicate == roster.predicate
    with pytest.raises(MalformedStatement, match="not an in-toto Statement"):
        parse_payload(b"{}")
