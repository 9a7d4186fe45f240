from __future__ import annotations

import base64
import functools
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import strict_json
from common.errors import BadSignature, MalformedStatement
from common.identity.keys import EncryptionKey
from common.statements.envelope import (
    Parent,
    Statement,
    kind_of,
    parse,
    sign,
    verify,
)
from common.statements.kinds import ClearWeight, Refusal
from tests.support.plans import a_plan
from tests.support.statements import Federation, a_federation, a_plan_statement, an_answer, resealed

Json = dict[str, Any]


@functools.cache
def federation() -> Federation:
    return a_federation()


@functools.cache
def statements() -> tuple[Statement, ...]:
    f = federation()
    refusal = Refusal(
        institution="north", refused_sha256="0" * 64, code="bad-signature", attribution="sent-on-connection"
    )
    return (
        f.genesis,
        f.roster,
        f.plan,
        f.answer("north"),
        f.opened,
        f.contribution("north"),
        f.sign(refusal, parent=f.opened),
        f.closed(),
    )


@pytest.mark.parametrize("statement", statements(), ids=lambda statement: statement.kind)
def test_a_signed_statement_reads_back_equal(statement: Statement) -> None:
    again = verify(parse(statement.envelope), statement.signer_key)
    assert again == statement
    assert again.digest == hashlib.sha256(again.payload).hexdigest()
    assert kind_of(again.predicate) == again.kind
    assert hash(again) == hash(statement)


def test_the_bytes_are_an_in_toto_statement_in_a_dsse_envelope() -> None:
    statement = federation().answer("north")
    envelope = json.loads(statement.envelope)
    assert list(envelope) == ["payload", "payloadType", "signatures"]
    payload = json.loads(base64.b64decode(envelope["payload"]))
    assert payload["_type"] == "https://in-toto.io/Statement/v1"
    assert payload["predicateType"] == "https://llmasos.org/statement/answer/v1"
    assert payload["subject"] == [{"digest": {"sha256": federation().plan.digest}, "name": "plan"}]
    assert payload["predicate"]["institution"] == "north"
    assert statement.parent == Parent("plan", federation().plan.digest)


def test_a_resealed_payload_is_the_same_envelope() -> None:
    statement = federation().answer("north")
    assert resealed(statement.payload, federation().institutions["north"]) == statement.envelope


def refused(envelope: bytes, key: Statement) -> bool:
    try:
        verify(parse(envelope), key.signer_key)
    except (MalformedStatement, BadSignature):
        return True
    return False


def flipped(envelope: bytes, bit: int) -> bytes:
    changed = bytearray(envelope)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_every_single_flipped_bit_of_an_answer_is_refused() -> None:
    statement = federation().answer("north")
    passed = [
        bit for bit in range(8 * len(statement.envelope)) if not refused(flipped(statement.envelope, bit), statement)
    ]
    assert passed == []


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_any_flipped_bit_of_any_statement_is_refused(data: st.DataObject) -> None:
    statement = data.draw(st.sampled_from(statements()))
    assert refused(flipped(statement.envelope, data.draw(st.integers(0, 8 * len(statement.envelope) - 1))), statement)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedStatement):
        parse(data)


def test_another_institutions_key_is_told_from_a_wrong_signature() -> None:
    statement = federation().contribution("north")
    with pytest.raises(BadSignature, match=r"This contribution statement is signed by key [0-9a-f]{16}…, expected key"):
        verify(parse(statement.envelope), federation().institutions["south"].public)
    forged = json.loads(statement.envelope)
    forged["signatures"][0]["sig"] = base64.b64encode(bytes(64)).decode()
    with pytest.raises(BadSignature, match="The signature of this contribution statement is not one by key"):
        verify(parse(strict_json.dumps(forged)), statement.signer_key)


def test_a_foreign_key_id_on_ones_own_signature_is_refused() -> None:
    statement, south = federation().contribution("north"), federation().institutions["south"]
    relabelled = json.loads(statement.envelope)
    relabelled["signatures"][0]["keyid"] = hashlib.sha256(bytes.fromhex(south.public.public)).hexdigest()
    with pytest.raises(BadSignature, match="is not one by key"):
        verify(parse(strict_json.dumps(relabelled)), south.public)


def test_a_signature_over_other_bytes_is_refused() -> None:
    first, second = federation().contribution("north"), federation().contribution("north", round=2)
    mixed = json.loads(first.envelope)
    mixed["signatures"] = json.loads(second.envelope)["signatures"]
    with pytest.raises(BadSignature, match="is not one by key"):
        verify(parse(strict_json.dumps(mixed)), first.signer_key)


def test_a_key_that_cannot_sign_verifies_nothing() -> None:
    statement = federation().answer("north")
    foreign = EncryptionKey.generate().public
    same_bytes = foreign.model_copy(update={"public": statement.signer_key.public})
    with pytest.raises(BadSignature):
        verify(parse(statement.envelope), same_bytes)


def test_what_cannot_be_read_back_is_not_signed() -> None:
    f = federation()
    with pytest.raises(MalformedStatement, match="This plan statement cannot be written: a lone surrogate"):
        f.sign(a_plan_statement(plan=a_plan().model_copy(update={"description": "\ud800"})), parent=f.roster)
    tensors = tuple({"name": f"layer.{i}.{'w' * 280}", "shape": (1,)} for i in range(4000))
    with pytest.raises(MalformedStatement, match="at most 1,048,576 allowed"):
        f.sign(a_plan_statement(manifest=tensors), parent=f.roster)
    with pytest.raises(MalformedStatement, match="names its parent wrongly"):
        sign(an_answer("north"), parent=Parent("nothing", "0" * 64), key=f.institutions["north"])


def test_a_part_of_a_statement_is_no_statement() -> None:
    with pytest.raises(TypeError, match="ClearWeight is no statement's predicate"):
        kind_of(ClearWeight(num_tokens=1))
