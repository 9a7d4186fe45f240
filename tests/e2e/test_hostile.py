"""A member that lies, over the real wire, with a client of its own. Everything has its code; the others' run goes on.

`mallory` is invited and joined like everybody; its daemon is not started, a bare gRPC client speaks in its name.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from common import strict_json
from common.blobs.reference import BlobRef
from common.clock import SystemClock
from common.errors import CoordinatorUnreachable
from common.identity.authority import Authority
from common.identity.invitation import open_genesis
from common.identity.keys import SigningKey, TlsKey
from common.ledger.state import RoundRecord, RunRecord
from common.statements.kinds import Kind, Refusal
from common.tensors import delta_size, trainable_header
from common.wire.channel import work_server_credentials
from common.wire.session import Session, TlsFiles
from common.wire.v1 import blobs_pb2
from participant.config import HomeLayout
from tests.support.blobs import leaves_and_ref
from tests.support.drafts import Draft, make_draft
from tests.support.federations import CONSORTIUM, NAMES, Federation
from tests.support.statements import resealed
from tests.support.wire_client import Credentials, Refused, WireClient, refusal

SALT = b"s" * 32
METRICS = b'{"evaluation":{"loss_sum_fixed":39321600,"num_tokens":100}}'


@dataclass
class Mallory:
    """Its keys, its connection, and what it can make of the round that is open."""

    federation: Federation
    draft: Draft
    peer: WireClient

    @property
    def key(self) -> SigningKey:
        return SigningKey.load(HomeLayout(self.federation.home("mallory")).signing_key)

    @property
    def run(self) -> RunRecord:
        record = self.federation.run(self.draft.statement.run)
        assert record is not None
        return record

    @property
    def round(self) -> RoundRecord:
        assert self.run.current is not None
        return self.run.current

    @property
    def purpose(self) -> blobs_pb2.Purpose:
        return blobs_pb2.Purpose(round_opened=bytes.fromhex(self.round.place.digest))

    def payload(self, delta: BlobRef | None = None, **changes: Any) -> dict[str, Any]:
        """A contribution's payload, right in everything but `changes` of its predicate."""
        predicate = {
            "institution": "mallory",
            "run": self.run.run,
            "round": self.round.number,
            "blobs": {"delta": (delta or self.delta_ref()).model_dump()},
            "weight": {"mode": "clear", "num_tokens": 10},
            "metrics_commitment": hashlib.sha256(SALT + METRICS).hexdigest(),
        }
        return self.statement("contribution", predicate | changes, self.round.place.kind, self.round.place.digest)

    def statement(self, kind: str, predicate: dict[str, Any], parent_kind: str, parent: str) -> dict[str, Any]:
        return {
            "_type": "https://in-toto.io/Statement/v1",
            "predicate": predicate,
            "predicateType": f"https://llmasos.org/statement/{kind}/v1",
            "subject": [{"digest": {"sha256": parent}, "name": str(parent_kind)}],
        }

    def delta(self, first: float = 0.25, *, header: bytes | None = None) -> bytes:
        """A delta of the right size whose first number is `first`."""
        manifest = self.draft.statement.manifest
        start = header or trainable_header(manifest)
        numbers = np.zeros((delta_size(manifest) - len(start)) // 4, dtype="<f4")
        numbers[0] = first
        return start + numbers.tobytes()

    def delta_ref(self) -> BlobRef:
        return leaves_and_ref(self.delta())[1]

    def send(self, content: bytes) -> BlobRef:
        """Upload a blob for the open round."""
        leaves, ref = leaves_and_ref(content)
        if self.peer.begin(ref, leaves, self.purpose):
            assert self.peer.put(ref, self.purpose, [(0, 0, content)])
        return ref

    def submit(self, payload: dict[str, Any] | bytes, key: SigningKey | None = None) -> int:
        return self.peer.submit(resealed(payload, key or self.key), METRICS, SALT)

    def answer(self, *, accept: bool) -> int:
        run = self.run
        predicate = {"institution": "mallory", "run": run.run, "accept": accept, "nonce": "ab" * 32}
        return self.peer.submit(resealed(self.statement("answer", predicate, "plan", run.place.digest), self.key))


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    with Federation(tmp_path / "federation", (*NAMES, "mallory")) as running:
        for name in NAMES:
            running.start_participant(name)
        yield running


def credentials(federation: Federation, name: str = "mallory") -> Credentials:
    layout = HomeLayout(federation.home(name))
    genesis = open_genesis(layout.genesis.read_bytes())[1]
    return Credentials(
        authority=genesis.ca_certificate.encode(),
        server_name=f"coordinator.{CONSORTIUM}.internal",
        key=layout.tls_key.read_bytes(),
        certificate=layout.tls_certificate.read_bytes(),
    )


def work_address(federation: Federation) -> str:
    return str(federation.addresses()["work"])


def a_run_in_round_one(federation: Federation, peer: WireClient, run: str, *, accept: bool) -> Mallory:
    """A run whose first round is open and has two contributions: `bank` is held back."""
    federation.hold("bank")
    draft = make_draft(federation.folder / "drafts" / run, run=run)
    mallory = Mallory(federation, draft, peer)
    federation.start_run(draft)
    mallory.answer(accept=accept)
    federation.wait_until_open(run, 1)
    federation.wait_for(lambda state: len(state.runs[run].rounds[0].contributions) == 2, "two contributed")
    return mallory


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


def statements(mallory: Mallory) -> dict[str, tuple[Callable[[], object], Refused]]:
    """Every lie in a statement: how it is told, and what it gets."""
    peer, tell, payload = mallory.peer, mallory.submit, mallory.payload
    of_clinic = mallory.federation.entries()[mallory.round.contributions["clinic"].place.index].statement
    nan, long = mallory.send(mallory.delta(float("nan"))), mallory.send(mallory.delta(2000.0))
    other_header = trainable_header(mallory.draft.statement.manifest).replace(b'"bias"', b'"bios"')
    malformed = Refused("malformed-statement", "INVALID_ARGUMENT")
    too_large = Refused("malformed-message", "INVALID_ARGUMENT")
    signature = Refused("bad-signature", "UNAUTHENTICATED")
    signer = Refused("wrong-signer", "PERMISSION_DENIED")
    parent = Refused("wrong-parent", "FAILED_PRECONDITION")
    weight = Refused("implausible-weight", "INVALID_ARGUMENT")
    commitment = Refused("bad-commitment", "INVALID_ARGUMENT")
    plan = mallory.run.place.digest
    weights = b'"num_tokens":10}'
    return {
        "altered": (lambda: peer.submit(altered(mallory), METRICS, SALT), signature),
        "signed by a key of nobody": (lambda: tell(payload(), SigningKey.generate()), signature),
        "signed by a key of nobody under our key's id": (lambda: peer.submit(impersonating(mallory)), signature),
        "in the name of another": (lambda: tell(payload(institution="clinic")), signer),
        "another's very statement": (lambda: peer.submit(of_clinic.envelope, METRICS, SALT), signer),
        "a statement of the coordinator's": (
            lambda: tell(
                mallory.statement(
                    "refusal",
                    {
                        "institution": "clinic",
                        "refused_sha256": "00" * 32,
                        "code": "bad-signature",
                        "attribution": "signed-by",
                    },
                    "plan",
                    plan,
                )
            ),
            signer,
        ),
        "to the plan instead of the round": (
            lambda: tell(payload() | {"subject": [{"digest": {"sha256": plan}, "name": "plan"}]}),
            parent,
        ),
        "to a round that is not there": (lambda: tell(payload(round=2)), parent),
        "to a run that is not there": (lambda: tell(payload(run="nobody-000001")), parent),
        "a second answer": (lambda: mallory.answer(accept=False), Refused("slot-taken", "ALREADY_EXISTS")),
        "a member name twice": (
            lambda: tell(edited(payload(), weights, b'"num_tokens":10,"num_tokens":10}')),
            malformed,
        ),
        "1e400": (lambda: tell(edited(payload(), weights, b'"num_tokens":1e400}')), malformed),
        "2^60": (lambda: tell(edited(payload(), weights, b'"num_tokens":1152921504606846976}')), malformed),
        "num_tokens of 10^12": (lambda: tell(edited(payload(), weights, b'"num_tokens":1000000000000}')), malformed),
        "an unknown field": (lambda: tell(payload(admin=True)), malformed),
        "nested ten thousand deep": (lambda: tell(b"[" * 10_000 + b"]" * 10_000), malformed),
        "garbage": (lambda: peer.submit(b"\x00\xff garbage"), malformed),
        "2 MB": (lambda: peer.submit(b'{"payload":"' + b"A" * 2_000_000 + b'"}'), too_large),
        "nothing": (lambda: peer.submit(b""), too_large),
        "more tokens than the plan allows": (
            lambda: tell(payload(weight={"mode": "clear", "num_tokens": 65})),
            weight,
        ),
        "no tokens": (lambda: tell(payload(weight={"mode": "clear", "num_tokens": 0})), weight),
        "other metrics than committed to": (
            lambda: peer.submit(resealed(payload(), mallory.key), METRICS.replace(b"100", b"101"), SALT),
            commitment,
        ),
        "no metrics": (lambda: peer.submit(resealed(payload(), mallory.key)), commitment),
        "a delta that is not there": (lambda: tell(payload()), Refused("missing-blob", "FAILED_PRECONDITION")),
        "NaN": (lambda: tell(payload(nan)), Refused("non-finite-delta", "INVALID_ARGUMENT")),
        "a delta too long": (lambda: tell(payload(long)), Refused("delta-too-long", "INVALID_ARGUMENT")),
        "other tensors": (
            lambda: tell(payload(mallory.send(mallory.delta(header=other_header)))),
            Refused("wrong-tensors", "INVALID_ARGUMENT"),
        ),
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


def uploads(mallory: Mallory) -> dict[str, tuple[Callable[[], object], Refused]]:
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


def told(table: dict[str, tuple[Callable[[], object], Refused]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What each lie got, and what it should."""
    return {name: refusal(call) for name, (call, _) in table.items()}, {name: want for name, (_, want) in table.items()}


def refusals(federation: Federation) -> list[Refusal]:
    return list(federation.of_kind(Kind.REFUSAL))


def test_every_lie_has_its_code_and_the_run_of_the_others_ends(federation: Federation) -> None:
    with WireClient(work_address(federation), credentials(federation)) as peer:
        mallory = a_run_in_round_one(federation, peer, RUN, accept=True)
        got, expected = told(uploads(mallory))
        assert got == expected
        assert refusals(federation) == []
        got, expected = told(statements(mallory))
        assert got == expected
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


def test_only_certificates_of_the_roster_get_in(federation: Federation, tmp_path: Path) -> None:
    now, address, ours = SystemClock().now(), work_address(federation), credentials(federation)
    authority = Authority.load(federation.coordinator_home / "identity")
    other = Authority.create(CONSORTIUM, now=now)
    key = TlsKey.generate()
    request = key.csr("clinic")
    unavailable, unknown = Refused("", "UNAVAILABLE"), Refused("unknown-certificate", "UNAUTHENTICATED")
    certificates = {
        "of another authority": (other.issue_institution(request, "clinic", now=now, days=30), unavailable),
        "of the authority, in no roster": (authority.issue_institution(request, "clinic", now=now, days=30), unknown),
        "expired": (
            authority.issue_institution(request, "clinic", now=now - timedelta(hours=1), days=0),
            unavailable,
        ),
        "a coordinator's": (authority.issue_coordinator(request, now=now, days=30), unavailable),
        "none": (None, unavailable),
    }
    for name, (certificate, expected) in certificates.items():
        pem = key.private_pem if certificate else None
        with WireClient(address, Credentials(ours.authority, ours.server_name, pem, certificate)) as stranger:
            assert refusal(stranger.follow) == expected, name
    with WireClient(str(federation.addresses()["enrolment"]), Credentials(ours.authority, ours.server_name)) as outside:
        diagnoses = {name: outside.diagnose(pem) for name, (pem, _) in certificates.items() if pem}
    assert diagnoses == {
        "of another authority": "unknown-certificate",
        "of the authority, in no roster": "unknown-certificate",
        "expired": "certificate-expired",
        "a coordinator's": "unknown-certificate",
    }
    with WireClient(address, ours) as member:
        assert len(member.follow()) == len(federation.entries())


def test_an_institutions_certificate_is_no_servers(federation: Federation) -> None:
    layout = HomeLayout(federation.home("mallory"))
    ours = credentials(federation)
    assert ours.key is not None
    assert ours.certificate is not None
    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    tls = work_server_credentials(ours.key, ours.certificate, ours.authority)
    port = server.add_secure_port("127.0.0.1:0", tls)
    server.start()
    try:
        genesis = open_genesis(layout.genesis.read_bytes())[1]
        clinic = HomeLayout(federation.home("clinic"))
        files = TlsFiles(clinic.tls_key, clinic.tls_certificate)
        with Session(f"127.0.0.1:{port}", genesis, files) as session, pytest.raises(CoordinatorUnreachable):
            session.follow(from_index=0, wait_seconds=0)
    finally:
        server.stop(0).wait()


def test_an_institutions_certificate_accepts_no_connection_even_where_names_are_not_checked(
    federation: Federation,
) -> None:
    layout, ours = HomeLayout(federation.home("mallory")), credentials(federation)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(layout.tls_certificate, layout.tls_key)
    client = ssl.create_default_context(cadata=ours.authority.decode())
    client.check_hostname = False
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            connection, _ = listener.accept()
            with connection, pytest.raises(OSError, match=r".*"):
                server.wrap_socket(connection, server_side=True)

        thread = threading.Thread(target=accept)
        thread.start()
        with (
            socket.create_connection(listener.getsockname()) as connection,
            pytest.raises(ssl.SSLCertVerificationError, match=r"purpose"),
        ):
            client.wrap_socket(connection)
        thread.join()
