"""A member that lies, over the real wire, with a client of its own. Every lie has its code; the others' run goes on."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common import strict_json
from common.identity.keys import SigningKey
from common.statements.kinds import Kind, Refusal
from common.tensors import trainable_header
from common.wire.v1 import blobs_pb2
from tests.support.blobs import leaves_and_ref
from tests.support.federations import NAMES, Federation
from tests.support.mallory import METRICS, SALT, Mallory, a_run_in_round_one, credentials, work_address
from tests.support.statements import resealed
from tests.support.wire_client import Refused, WireClient, refusal


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    with Federation(tmp_path / "federation", (*NAMES, "mallory")) as running:
        for name in NAMES:
            running.start_participant(name)
        yield running


def edited(payload: dict[str, Any], before: bytes, after: bytes) -> bytes:
    """A canonical payload with one spelling changed; it is no longer what a writer would write."""
    content = strict_json.dumps(payload)
    assert content.count(before) == 1
    return content.replace(before, after)


def altered(mallory: Mallory) -> bytes:
    """A rightly signed envelope whose payload says another weight."""
    envelope = json.loads(resealed(mallory.payload(), mallory.key))
    content = base64.b64decode(envelope["payload"]).replace(b'"num_tokens":10}', b'"num_tokens":11}')
    return strict_json.dumps(envelope | {"payload": base64.b64encode(content).decode()})


def impersonating(mallory: Mallory) -> bytes:
    """Mallory's key id over another key's signature."""
    ours = json.loads(resealed(mallory.payload(), mallory.key))
    other = json.loads(resealed(mallory.payload(), SigningKey.generate()))
    other["signatures"][0]["keyid"] = ours["signatures"][0]["keyid"]
    return strict_json.dumps(other)


Lies = dict[str, tuple[Callable[[], object], Refused]]
"""How each is told, and what it gets."""


def lies_about_who_and_where(mallory: Mallory) -> Lies:
    """Other signers, other parents, other places."""
    peer, tell, payload = mallory.peer, mallory.submit, mallory.payload
    of_clinic = mallory.federation.entries()[mallory.round.contributions["clinic"].place.index].statement
    plan = mallory.run.place.digest
    refusal_of_clinic = {
        "institution": "clinic",
        "refused_sha256": "00" * 32,
        "code": "bad-signature",
        "attribution": "signed-by",
    }
    as_coordinator = mallory.statement("refusal", refusal_of_clinic, "plan", plan)
    to_the_plan = payload() | {"subject": [{"digest": {"sha256": plan}, "name": "plan"}]}
    signature = Refused("bad-signature", "UNAUTHENTICATED")
    signer = Refused("wrong-signer", "PERMISSION_DENIED")
    parent = Refused("wrong-parent", "FAILED_PRECONDITION")
    return {
        "altered": (lambda: peer.submit(altered(mallory), METRICS, SALT), signature),
        "signed by a key of nobody": (lambda: tell(payload(), SigningKey.generate()), signature),
        "signed by a key of nobody under our key's id": (lambda: peer.submit(impersonating(mallory)), signature),
        "in the name of another": (lambda: tell(payload(institution="clinic")), signer),
        "another's very statement": (lambda: peer.submit(of_clinic.envelope, METRICS, SALT), signer),
        "a statement of the coordinator's": (lambda: tell(as_coordinator), signer),
        "to the plan instead of the round": (lambda: tell(to_the_plan), parent),
        "to a round that is not there": (lambda: tell(payload(round=2)), parent),
        "to a run that is not there": (lambda: tell(payload(run="nobody-000001")), parent),
        "a second answer": (lambda: mallory.answer(accept=False), Refused("slot-taken", "ALREADY_EXISTS")),
    }


def lies_in_spelling(mallory: Mallory) -> Lies:
    """Bytes that are no statement, and statements that no writer writes."""
    peer, tell, payload = mallory.peer, mallory.submit, mallory.payload
    malformed = Refused("malformed-statement", "INVALID_ARGUMENT")
    size = Refused("malformed-message", "INVALID_ARGUMENT")

    def tell_weight(spelling: bytes) -> int:
        return tell(edited(payload(), b'"num_tokens":10}', b'"num_tokens":' + spelling + b"}"))

    return {
        "a member name twice": (lambda: tell_weight(b'10,"num_tokens":10'), malformed),
        "1e400": (lambda: tell_weight(b"1e400"), malformed),
        "NaN": (lambda: tell_weight(b"NaN"), malformed),
        "2^60": (lambda: tell_weight(b"1152921504606846976"), malformed),
        "num_tokens of 10^12": (lambda: tell_weight(b"1000000000000"), malformed),
        "an unknown field": (lambda: tell(payload(admin=True)), malformed),
        "nested ten thousand deep": (lambda: tell(b"[" * 10_000 + b"]" * 10_000), malformed),
        "garbage": (lambda: peer.submit(b"\x00\xff garbage"), malformed),
        "2 MB": (lambda: peer.submit(b'{"payload":"' + b"A" * 2_000_000 + b'"}'), size),
        "nothing": (lambda: peer.submit(b""), size),
    }


def lies_about_the_work(mallory: Mallory) -> Lies:
    """Weights, metrics and deltas. A round takes four different deltas of one institution: one of them is the truth."""
    peer, tell, payload = mallory.peer, mallory.submit, mallory.payload
    nan, long = mallory.send(mallory.delta(float("nan"))), mallory.send(mallory.delta(2000.0))
    other_header = trainable_header(mallory.draft.statement.manifest).replace(b'"bias"', b'"bios"')
    bios = mallory.send(mallory.delta(header=other_header))
    weight = Refused("implausible-weight", "INVALID_ARGUMENT")
    commitment = Refused("bad-commitment", "INVALID_ARGUMENT")

    def tell_weight(num_tokens: int) -> int:
        return tell(payload(weight={"mode": "clear", "num_tokens": num_tokens}))

    def tell_metrics(*beside: bytes) -> int:
        return peer.submit(resealed(payload(), mallory.key), *beside)

    return {
        "more tokens than the plan allows": (lambda: tell_weight(65), weight),
        "no tokens": (lambda: tell_weight(0), weight),
        "other metrics than committed to": (lambda: tell_metrics(METRICS.replace(b"100", b"101"), SALT), commitment),
        "no metrics": (tell_metrics, commitment),
        "a delta that is not there": (lambda: tell(payload()), Refused("missing-blob", "FAILED_PRECONDITION")),
        "NaN in a delta": (lambda: tell(payload(nan)), Refused("non-finite-delta", "INVALID_ARGUMENT")),
        "a delta too long": (lambda: tell(payload(long)), Refused("delta-too-long", "INVALID_ARGUMENT")),
        "other tensors": (lambda: tell(payload(bios)), Refused("wrong-tensors", "INVALID_ARGUMENT")),
        "a fifth delta for one round": (
            lambda: mallory.send(mallory.delta(0.5)),
            Refused("too-many-requests", "RESOURCE_EXHAUSTED"),
        ),
    }


RUN = "tiny-000001"
RECORDED = {
    (None, None, "malformed-statement", "sent-on-connection"),
    (None, None, "wrong-parent", "signed-by"),
    (None, None, "wrong-signer", "sent-on-connection"),
    (RUN, None, "slot-taken", "signed-by"),
    (RUN, None, "wrong-parent", "signed-by"),
    (RUN, 1, "bad-commitment", "signed-by"),
    (RUN, 1, "bad-signature", "sent-on-connection"),
    (RUN, 1, "delta-too-long", "signed-by"),
    (RUN, 1, "implausible-weight", "signed-by"),
    (RUN, 1, "missing-blob", "signed-by"),
    (RUN, 1, "non-finite-delta", "signed-by"),
    (RUN, 1, "wrong-parent", "signed-by"),
    (RUN, 1, "wrong-signer", "sent-on-connection"),
    (RUN, 1, "wrong-tensors", "signed-by"),
}
"""Run, round, code and attribution of every refusal of a lie in a statement; each once, however often it was told."""


def lies_about_blobs(mallory: Mallory) -> Lies:
    """Every lie about a blob. One has been begun; it never arrives whole."""
    peer, purpose, content = mallory.peer, mallory.purpose, mallory.delta()
    leaves, ref = leaves_and_ref(content)
    unbegun = leaves_and_ref(mallory.delta(2000.0))[1]
    larger_leaves, larger = leaves_and_ref(content + b"\0" * 64)
    corrupt = bytes([content[0] ^ 1]) + content[1:]
    nobody = blobs_pb2.Purpose(round_opened=b"\1" * 32)
    plan = blobs_pb2.Purpose(plan=mallory.run.run)
    truncated = Refused("truncated-chunk", "INVALID_ARGUMENT")
    malformed = Refused("malformed-message", "INVALID_ARGUMENT")
    large = Refused("blob-too-large", "RESOURCE_EXHAUSTED")
    begun = peer.begin(ref, leaves, purpose)
    assert begun == [(0, 1)]
    return {
        "a corrupted chunk": (lambda: peer.put(ref, purpose, [(0, 0, corrupt)]), Refused("corrupt-chunk", "DATA_LOSS")),
        "a truncated chunk": (lambda: peer.put(ref, purpose, [(0, 0, content[:-1])]), truncated),
        "a chunk longer than declared": (lambda: peer.put(ref, purpose, [(0, 0, content + b"\0")]), truncated),
        "a chunk with a gap": (lambda: peer.put(ref, purpose, [(0, 1, content[1:])]), truncated),
        "a chunk that the blob has not": (lambda: peer.put(ref, purpose, [(1, 0, content)]), malformed),
        "a piece of more than 1 MiB": (lambda: peer.put(ref, purpose, [(0, 0, b"\0" * (2**20 + 1))]), malformed),
        "a blob that was never begun": (
            lambda: peer.put(unbegun, purpose, [(0, 0, content)]),
            Refused("missing-blob", "FAILED_PRECONDITION"),
        ),
        "leaves of another blob": (
            lambda: peer.begin(ref, b"\1" * 32, purpose),
            Refused("bad-blob-reference", "INVALID_ARGUMENT"),
        ),
        "a blob larger than a delta": (lambda: peer.begin(larger, larger_leaves, purpose), large),
        "a blob of 2^44 bytes": (
            lambda: peer.begin(ref.model_copy(update={"size": 2**44}), leaves, purpose),
            Refused("bad-blob-reference", "INVALID_ARGUMENT"),
        ),
        "a blob for a round of nobody": (
            lambda: peer.begin(ref, leaves, nobody),
            Refused("wrong-parent", "FAILED_PRECONDITION"),
        ),
        "a blob for a plan": (lambda: peer.begin(ref, leaves, plan), Refused("role-missing", "PERMISSION_DENIED")),
        "an operator's call": (peer.list_runs, Refused("role-missing", "PERMISSION_DENIED")),
    }


def tell_all(lies: Lies) -> None:
    """Each gets what it should."""
    assert {name: refusal(tell) for name, (tell, _) in lies.items()} == {name: got for name, (_, got) in lies.items()}


def refusals(federation: Federation) -> list[Refusal]:
    return list(federation.of_kind(Kind.REFUSAL))


def test_every_lie_has_its_code_and_the_run_of_the_others_ends(federation: Federation) -> None:
    with WireClient(work_address(federation), credentials(federation)) as peer:
        mallory = a_run_in_round_one(federation, peer, RUN, accept=True)
        tell_all(lies_about_blobs(mallory))
        assert refusals(federation) == []
        for lies in (lies_about_who_and_where, lies_in_spelling, lies_about_the_work):
            tell_all(lies(mallory))
        recorded = [(entry.run, entry.round, entry.code, entry.attribution) for entry in refusals(federation)]
        assert sorted(recorded, key=str) == sorted(RECORDED, key=str)
        assert {entry.institution for entry in refusals(federation)} == {"mallory"}

        # The truth at last: it is taken, once, and the same bytes again mean the same place.
        envelope = resealed(mallory.payload(mallory.send(mallory.delta())), mallory.key)
        index = peer.submit(envelope, METRICS, SALT)
        assert peer.submit(envelope, METRICS, SALT) == index
        second = mallory.payload(mallory.delta_ref(), weight={"mode": "clear", "num_tokens": 11})
        assert refusal(lambda: mallory.submit(second)) == Refused("slot-taken", "ALREADY_EXISTS")

        # Another round has refusals of its own. After that its own daemon goes on, under the same keys.
        federation.release("bank")
        federation.wait_until_open(RUN, 2)
        infinite = mallory.payload(mallory.send(mallory.delta(float("inf"))))
        assert refusal(lambda: mallory.submit(infinite)) == Refused("non-finite-delta", "INVALID_ARGUMENT")
        assert (refusals(federation)[-1].round, refusals(federation)[-1].code) == (2, "non-finite-delta")
        federation.start_participant("mallory")
        ended = federation.wait_until_ended(RUN)
        assert [entry.closed.outcome for entry in ended.rounds if entry.closed] == ["committed"] * 3
        assert [sorted(entry.contributions) for entry in ended.rounds] == [sorted((*NAMES, "mallory"))] * 3
        assert peer.submit(envelope, METRICS, SALT) == index
        assert refusal(lambda: mallory.submit(second)) == Refused("round-not-open", "FAILED_PRECONDITION")
        assert federation.coordinator is not None
        assert federation.coordinator.exit_code is None


def test_who_stays_out_of_a_run_neither_writes_nor_reads_in_it(federation: Federation) -> None:
    with WireClient(work_address(federation), credentials(federation)) as peer:
        mallory = a_run_in_round_one(federation, peer, RUN, accept=False)
        content = mallory.delta()
        leaves, ref = leaves_and_ref(content)
        stranger = Refused("not-in-cohort", "PERMISSION_DENIED")
        denied = Refused("not-authorised", "PERMISSION_DENIED")
        theirs = mallory.round.contributions["clinic"].contribution.blobs["delta"]
        assert mallory.round.opened.cohort == NAMES
        assert refusal(lambda: peer.begin(ref, leaves, mallory.purpose)) == stranger
        assert refusal(lambda: peer.put(ref, mallory.purpose, [(0, 0, content)])) == stranger
        assert refusal(lambda: mallory.submit(mallory.payload())) == stranger
        assert refusal(lambda: peer.get(theirs)) == denied
        assert refusal(lambda: peer.leaves(theirs)) == denied
        assert refusal(lambda: peer.get(mallory.run.model)) == denied
        federation.release("bank")
        ended = federation.wait_until_ended(RUN)
        assert ended.ended is not None
        assert ended.ended.reason == "rounds-done"
        assert [(entry.code, entry.round) for entry in refusals(federation)] == [("not-in-cohort", 1)]


def test_another_members_delta_is_not_read_by_its_digest_not_even_by_who_repeats_it(federation: Federation) -> None:
    with WireClient(work_address(federation), credentials(federation)) as peer:
        mallory = a_run_in_round_one(federation, peer, RUN, accept=True)
        theirs = mallory.round.contributions["clinic"].contribution.blobs["delta"]
        denied = Refused("not-authorised", "PERMISSION_DENIED")
        assert (refusal(lambda: peer.get(theirs)), refusal(lambda: peer.leaves(theirs))) == (denied, denied)
        # A blob of one chunk has its root as its only leaf, so everything that Begin asks for stands in the ledger.
        refusal(lambda: peer.begin(theirs, bytes.fromhex(theirs.root), mallory.purpose))
        refusal(lambda: mallory.submit(mallory.payload(theirs)))
        assert (refusal(lambda: peer.get(theirs)), refusal(lambda: peer.leaves(theirs))) == (denied, denied)
