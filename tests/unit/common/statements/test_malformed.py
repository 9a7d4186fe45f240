from __future__ import annotations

import base64
import functools
import json
from collections.abc import Callable
from typing import Any

import pytest

from common import strict_json
from common.errors import MalformedStatement
from common.statements.envelope import MAX_ENVELOPE_BYTES, parse
from common.statements.kinds import Kind
from tests.support.statements import Federation, a_federation, resealed

Json = dict[str, Any]


@functools.cache
def federation() -> Federation:
    return a_federation()


def _edited(edit: Callable[[Json], object]) -> bytes:
    """The answer's envelope with one edit, otherwise canonical."""
    envelope = json.loads(federation().answer("north").envelope)
    edit(envelope)
    return strict_json.dumps(envelope)


def _unused_bits(text: str) -> str:
    """The same bytes in other base64: the last character before the padding carries unused bits."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    body = text.rstrip("=")
    other = body[:-1] + alphabet[alphabet.index(body[-1]) ^ 1] + text[len(body) :]
    assert base64.b64decode(other) == base64.b64decode(text)
    return other


MALFORMED: dict[str, tuple[Callable[[], bytes], str]] = {
    "unused base64 bits in the signature": (
        lambda: _edited(lambda e: e["signatures"][0].update(sig=_unused_bits(e["signatures"][0]["sig"]))),
        "differs from its canonical re-encoding",
    ),
    "url-safe base64": (
        lambda: _edited(lambda e: e["signatures"][0].update(sig="-" * 86 + "==")),
        "differs from its canonical re-encoding",
    ),
    "no base64": (
        lambda: _edited(lambda e: e["signatures"][0].update(sig="!" * 88)),
        "payload or signature is not base64",
    ),
    "spaces": (
        lambda: json.dumps(json.loads(federation().answer("north").envelope)).encode(),
        "differs from its canonical re-encoding",
    ),
    "a trailing newline": (lambda: federation().answer("north").envelope + b"\n", "differs from its canonical"),
    "key order": (
        lambda: json.dumps(
            dict(reversed(json.loads(federation().answer("north").envelope).items())), separators=(",", ":")
        ).encode(),
        "differs from its canonical re-encoding",
    ),
    "an escaped letter": (
        lambda: federation().answer("north").envelope.replace(b'"keyid"', b'"k\\u0065yid"'),
        "differs from its canonical re-encoding",
    ),
    "an extra field": (lambda: _edited(lambda e: e.update(note="hi")), "note: Extra inputs are not permitted"),
    "an extra field of the signature": (
        lambda: _edited(lambda e: e["signatures"][0].update(cert="x")),
        "signatures.0.cert: Extra inputs",
    ),
    "two signatures": (
        lambda: _edited(lambda e: e["signatures"].append(dict(e["signatures"][0]))),
        "one key signs twice; each signs once",
    ),
    "no signature": (lambda: _edited(lambda e: e["signatures"].clear()), "signatures: Tuple should have at least 1"),
    "an empty signature": (
        lambda: _edited(lambda e: e["signatures"][0].update(sig="")),
        "signatures.0.sig: String should",
    ),
    "a signature object for a list": (
        lambda: _edited(lambda e: e.update(signatures=e["signatures"][0])),
        "signatures: Input should be a valid",
    ),
    "an upper-case key id": (
        lambda: _edited(lambda e: e["signatures"][0].update(keyid="A" * 64)),
        "signatures.0.keyid: Value error, expected 64 lower-case",
    ),
    "another payload type": (
        lambda: _edited(lambda e: e.update(payloadType="text/plain")),
        "payloadType: Input should be",
    ),
    "no payload": (lambda: _edited(lambda e: e.pop("payload")), "payload: Field required"),
    "a number as payload": (lambda: _edited(lambda e: e.update(payload=5)), "payload: Input should be a valid string"),
    "an array": (lambda: b"[]", "the value: Input should be an object"),
    "a deep payload type": (
        lambda: _edited(lambda e: e.update(payloadType=[[[[["x"]]]]])),
        "nested deeper than 4",
    ),
    "a duplicate key": (lambda: b'{"payload":"","payload":""}', "the key 'payload' stands twice"),
    "too many bytes": (lambda: b'"' + b"A" * MAX_ENVELOPE_BYTES + b'"', "1,048,578 bytes, at most 1,048,576"),
}


@pytest.mark.parametrize(("envelope", "message"), MALFORMED.values(), ids=MALFORMED.keys())
def test_an_envelope_is_refused_for(envelope: Callable[[], bytes], message: str) -> None:
    with pytest.raises(MalformedStatement) as caught:
        parse(envelope())
    assert message in caught.value.message


SPOILED: dict[str, tuple[Callable[[Json], object], str]] = {
    "another statement type": (lambda p: p.update(_type="https://in-toto.io/Statement/v0.1"), "_type: Input should be"),
    "an unknown kind": (
        lambda p: p.update(predicateType="https://llmasos.org/statement/gossip/v1"),
        "predicateType is not one of",
    ),
    "another version": (
        lambda p: p.update(predicateType="https://llmasos.org/statement/contribution/v2"),
        "predicateType is not one of",
    ),
    "another kind's type": (
        lambda p: p.update(predicateType="https://llmasos.org/statement/roster/v1"),
        "The predicate of this roster statement does not hold",
    ),
    "no parent": (lambda p: p.update(subject=[]), "subject: Tuple should have at least 1"),
    "two parents": (lambda p: p["subject"].append(p["subject"][0]), "subject: Tuple should have at most 1"),
    "a parent by another digest": (
        lambda p: p["subject"][0].update(digest={"sha512": "0" * 128}),
        "subject.0.digest.sha256: Field required",
    ),
    "a parent that is no statement": (
        lambda p: p["subject"][0].update(name="ca-certificate"),
        "names its parent wrongly",
    ),
    "an extra field": (lambda p: p.update(extra=1), "extra: Extra inputs are not permitted"),
    "an extra field of the predicate": (lambda p: p["predicate"].update(extra=1), "extra: Extra inputs"),
    "a missing field": (lambda p: p["predicate"].pop("round"), "round: Field required"),
    "text for an integer": (lambda p: p["predicate"].update(round="1"), "round: Input should be a valid integer"),
    "true for an integer": (lambda p: p["predicate"].update(round=True), "round: Input should be a valid integer"),
    "text for an integer inside": (
        lambda p: p["predicate"]["weight"].update(num_tokens="64"),
        "weight.clear.num_tokens: Input should be a valid integer",
    ),
    "true for a blob's size": (
        lambda p: p["predicate"]["blobs"]["delta"].update(size=True),
        "blobs.delta.size: Input should be a valid integer",
    ),
    "a round out of range": (lambda p: p["predicate"].update(round=0), "round: Input should be greater than"),
    "an unknown blob": (lambda p: p["predicate"]["blobs"].update(gradient={}), "blobs.gradient"),
    "a name that is none": (
        lambda p: p["predicate"].update(institution="../etc"),
        "institution: Value error, expected 1 to",
    ),
    "an object for a list": (lambda p: p["predicate"].update(deviations={}), "deviations: Input should be a valid"),
}


@pytest.mark.parametrize(("spoil", "message"), SPOILED.values(), ids=SPOILED.keys())
def test_a_rightly_signed_contribution_is_refused_for(spoil: Callable[[Json], object], message: str) -> None:
    payload = json.loads(federation().contribution("north").payload)
    spoil(payload)
    with pytest.raises(MalformedStatement) as caught:
        parse(resealed(payload, federation().institutions["north"]))
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((b'"round":1', b'"round":1.0'), "the number 1.0"),
        ((b'"round":1', b'"round":1e0'), "the number 1e0"),
        ((b'"round":1', b'"round":9007199254740992'), "the integer 9007199254740992"),
        ((b'"round":1', b'"round":1,"round":1'), "the key 'round' stands twice"),
        ((b'"round":1', b'"round": 1'), "not in canonical form"),
        ((b'"round":1', b'"\\u0072ound":1'), "not in canonical form"),
        ((b'"north"', b'"\\ud800"'), "lone surrogate"),
        ((b'"round":1', b'"round":' + b"[" * 40 + b"]" * 40), "nested deeper than 32"),
        ((b'"north"', b'"\xff"'), "not UTF-8"),
    ],
)
def test_a_rightly_signed_payload_is_refused_for_its_json(change: tuple[bytes, bytes], message: str) -> None:
    payload = federation().contribution("north").payload
    assert change[0] in payload
    with pytest.raises(MalformedStatement) as caught:
        parse(resealed(payload.replace(*change, 1), federation().institutions["north"]))
    assert message in caught.value.message


@pytest.mark.parametrize("spelling", ["0.20", "2e-1", " 0.2", "0.2_0", "٠.٢", 1])
def test_a_decimal_has_one_spelling(spelling: str | int) -> None:
    payload = json.loads(federation().plan.payload)
    payload["predicate"]["plan"]["evaluation"]["held_out_fraction"] = "0.2"
    assert parse(resealed(payload, federation().coordinator)).kind == Kind.PLAN
    payload["predicate"]["plan"]["evaluation"]["held_out_fraction"] = spelling
    with pytest.raises(MalformedStatement, match=r"held_out_fraction"):
        parse(resealed(payload, federation().coordinator))


@pytest.mark.parametrize("text", ["abc", "", "NaN", "1e999999999", "1e-999999999", "0." + "1" * 40])
def test_text_that_is_no_decimal_is_refused(text: str) -> None:
    payload = json.loads(federation().plan.payload)
    payload["predicate"]["plan"]["max_delta_l2"] = text
    with pytest.raises(MalformedStatement, match="max_delta_l2"):
        parse(resealed(payload, federation().coordinator))


@pytest.mark.parametrize("deadline", ["2026-99-99T99:99:99.999Z", "2026-01-01T00:00:00Z", "٢٠٢٦-01-01T00:00:00.000Z"])
def test_a_time_that_is_none_is_refused(deadline: str) -> None:
    payload = json.loads(federation().opened.payload)
    payload["predicate"]["stages"][0]["deadline"] = deadline
    with pytest.raises(MalformedStatement, match=r"stages\.0\.deadline"):
        parse(resealed(payload, federation().coordinator))


def test_a_statement_without_an_optional_field_stays_readable() -> None:
    payload = json.loads(federation().contribution("north").payload)
    del payload["predicate"]["privacy"]
    assert parse(resealed(payload, federation().institutions["north"])).kind == Kind.CONTRIBUTION


def test_a_refusal_never_quotes_the_payload() -> None:
    payload = json.loads(federation().contribution("north").payload)
    payload["predicate"]["run"] = {"patient": "Jane Doe" * 1000}
    with pytest.raises(MalformedStatement) as caught:
        parse(resealed(payload, federation().institutions["north"]))
    assert "run: Input should be a valid string" in caught.value.message
    assert "Jane" not in str(caught.value)
    assert caught.value.code == "malformed-statement"
