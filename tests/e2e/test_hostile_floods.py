"""Floods: uploads without end, refusals without end, guessed invitations; and a member that is revoked in the middle of a call.

One coordinator process with honest participants beside it. Whatever is tried, memory, files, log and ledger stay bounded, and
the others' calls are answered.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from common.blobs.digest import root_of, split_leaves
from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.identity.invitation import Invitation, parse_invitation
from common.identity.keys import SigningKey
from common.ledger.rules import start
from common.wire.v1 import blobs_pb2
from tests.support.blobs import leaves_and_ref
from tests.support.drafts import make_draft
from tests.support.federations import CONSORTIUM, NAMES, until
from tests.support.lies import RUN, JsonLogging
from tests.support.mallory import Mallory, credentials, work_address
from tests.support.wire_client import Credentials, Refused, WireClient, put_header, put_piece, refusal

pytestmark = pytest.mark.xdist_group("hostile-floods")

LIARS = ("mallory", "oscar", "trudy")
SHAPES = {"embedding": (1_600_000,)}
"""Two chunks and a bit."""


@dataclass
class Stage:
    """A round that is open and lacks only the liars."""

    federation: JsonLogging
    liars: dict[str, Mallory]

    @property
    def pid(self) -> int:
        assert self.federation.coordinator is not None
        return self.federation.coordinator.pid

    def memory_mb(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) // 1024

    def files_open(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def partial_files(self) -> int:
        return len(list((self.federation.coordinator_home / "blobs" / "partial").rglob("*.part")))

    def lines(self, event: str) -> list[dict[str, Any]]:
        return [each for each in self.federation.events() if each["event"] == event]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with ExitStack() as stack:
        federation = JsonLogging(tmp_path_factory.mktemp("floods") / "federation", (*NAMES, *LIARS))
        stack.enter_context(federation)
        for name in NAMES:
            federation.start_participant(name)
        draft = make_draft(federation.folder / RUN, run=RUN, rounds=1, shapes=SHAPES)
        liars = {}
        for name in LIARS:
            peer = stack.enter_context(WireClient(work_address(federation), credentials(federation, name)))
            liars[name] = Mallory(federation, draft, peer, name)
        federation.start_run(draft)
        for liar in liars.values():
            liar.answer(accept=True)
        federation.wait_until_open(RUN, 1)
        federation.wait_for(lambda state: len(state.runs[RUN].rounds[0].contributions) == 3, "three contributed")
        yield Stage(federation, liars)


def a_delta(ref: BlobRef, number: int) -> tuple[bytes, BlobRef]:
    """Leaves and reference of the size of `ref`, one of its own for each number; its bytes are nowhere."""
    leaves = hashlib.sha256(b"%d" % number).digest() * ref.chunks
    return leaves, ref.model_copy(update={"root": root_of(ref.algorithm, list(split_leaves(leaves))).hex()})


def flood(stage: Stage, names: tuple[str, ...], count: int) -> Counter[str]:
    """So many different uploads begun by each, and how each was answered."""
    answers: Counter[str] = Counter()
    first = stage.liars[names[0]]
    purpose, like = first.purpose, first.round.contributions["clinic"].contribution.blobs["delta"]

    def begin(liar: Mallory) -> None:
        for number in range(count):
            leaves, ref = a_delta(like, number)
            found = refusal(lambda leaves=leaves, ref=ref: liar.peer.begin(ref, leaves, purpose))  # type: ignore[misc]
            answers[found.code if found else "begun"] += 1

    threads = [threading.Thread(target=begin, args=(stage.liars[name],)) for name in names]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        began = time.monotonic()
        with stage.federation.operator() as session:
            assert session.runs()
        assert time.monotonic() - began < 10  # others are answered; seconds would be a machine that does much else
        threads[0].join(0.5)
    return answers


def test_ten_thousand_open_uploads_are_four_a_member(stage: Stage) -> None:
    files, memory, partial = stage.files_open(), stage.memory_mb(), stage.partial_files()
    answers = flood(stage, ("mallory",), 5000) + flood(stage, ("mallory", "trudy"), 2500)
    assert set(answers) == {"begun", "too-many-requests"}
    assert answers["begun"] <= 8 + 4  # the second flood of mallory begins with what the first began
    assert answers.total() == 10_000
    assert stage.partial_files() <= partial + 8
    assert stage.files_open() <= files + 8 + 20
    assert stage.memory_mb() <= memory + 60
    lines = [each for each in stage.lines("call refused") if each["code"] == "too-many-requests"]
    assert len(lines) <= 8
    assert {(each.get("institution"), each["peer"]) for each in lines} >= {("mallory", "127.0.0.1")}
    recorded = [each for each in stage.lines("refusal recorded") if each["code"] == "too-many-requests"]
    assert {each["institution"] for each in recorded} == {"mallory", "trudy"}
    assert len(recorded) == 2


def test_a_flood_of_refused_statements_is_one_in_the_ledger(stage: Stage) -> None:
    mallory, before = stage.liars["mallory"], stage.federation.state().size
    logged = len(stage.federation.log("coordinator").read_bytes())
    answers: Counter[str] = Counter()
    for number in range(2000):
        found = refusal(lambda number=number: mallory.peer.submit(b"garbage %d" % number))  # type: ignore[misc]
        answers[found.code if found else ""] += 1
    assert set(answers) <= {"malformed-statement", "too-many-requests"}
    assert answers["malformed-statement"] > 100
    assert stage.federation.state().size <= before + 1
    assert len(stage.federation.log("coordinator").read_bytes()) < logged + 4000


# --- invitations -------------------------------------------------------------------------------------------------------------


def enrolment(stage: Stage) -> WireClient:
    ours = credentials(stage.federation)
    return WireClient(str(stage.federation.addresses()["enrolment"]), Credentials(ours.authority, ours.server_name))


def an_offer(invitation: Invitation, csr: bytes, **changes: Any) -> dict[str, Any]:
    """What redeems an invitation, signed by hand (docs/protocol.md#enrolment)."""
    key = SigningKey.generate()
    fingerprint = bytes.fromhex(start(invitation.genesis).statement.digest)
    digests = hashlib.sha256(invitation.invitation_id.encode()).digest() + hashlib.sha256(csr).digest()
    right = {
        "invitation_id": invitation.invitation_id,
        "secret": invitation.secret,
        "csr_der": csr,
        "signing_key": bytes.fromhex(key.public.public),
        "proof": key.sign(b"llmasos/v1/enrol\0" + fingerprint + digests),
    }
    return right | changes


def a_csr(key: Any = None, *, name: str = "clinic") -> bytes:
    """A request that asks to be another institution, an authority, and the coordinator's host."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    alternatives = [
        x509.UniformResourceIdentifier(f"spiffe://{CONSORTIUM}/institution/{name}"),
        x509.DNSName(f"coordinator.{CONSORTIUM}.internal"),
    ]
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def patiently(call: Callable[[], Any]) -> Any:
    """What comes once the address may call again."""
    found: list[Any] = []

    def answered() -> bool:
        got = refusal(lambda: found.append(call()))
        if got is not None and got.code != "too-many-requests":
            found.append(got)
        return bool(found)

    until(answered, "an answer of the enrolment listener")
    return found[-1]


def test_invitations_are_not_guessed_and_guesses_are_named(stage: Stage) -> None:
    invitation = parse_invitation(stage.federation.invite("newcomer"))
    right = an_offer(invitation, a_csr())
    before, answers = stage.federation.state().size, Counter[str]()
    with enrolment(stage) as stranger:
        for number in range(300):
            secret = hashlib.sha256(b"%d" % number).digest()
            known = invitation.invitation_id if number % 2 else f"{number:032x}"
            offer = right | {"secret": secret, "invitation_id": known}
            got = refusal(lambda offer=offer: stranger.enrol(**offer))  # type: ignore[misc]
            answers[got.code if got else "enrolled"] += 1
    assert set(answers) == {"invalid-invitation", "too-many-requests"}
    assert answers["invalid-invitation"] <= 60
    assert stage.federation.state().size == before
    lines = [each for each in stage.lines("call refused") if each["method"].endswith("Enrol")]
    assert len(lines) <= 4
    assert {(each["peer"], each["code"]) for each in lines} >= {("127.0.0.1", "invalid-invitation")}
    assert invitation.secret.hex() not in stage.federation.log("coordinator").read_text()


def test_a_csr_with_a_foreign_name_gets_the_invited_name_only(stage: Stage) -> None:
    invitation = parse_invitation(stage.federation.invite("masquerade"))
    with enrolment(stage) as stranger:
        reply = patiently(lambda: stranger.enrol(**an_offer(invitation, a_csr())))
    certificate = x509.load_pem_x509_certificate(reply.certificate_pem.encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(each.value) for each in names] == [f"spiffe://{CONSORTIUM}/institution/masquerade"]
    assert certificate.subject.rfc4514_string() == "CN=masquerade"
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


BAD_REQUESTS: dict[str, Callable[[], bytes]] = {
    "an RSA key": lambda: a_csr(rsa.generate_private_key(65537, 2048)),
    "a key of another curve": lambda: a_csr(ec.generate_private_key(ec.SECP384R1())),
    "a signature of nobody": lambda: a_csr()[:-8] + bytes(8),
    "garbage": lambda: b"\x30\x82\xff\xff" + bytes(100),
}


@pytest.mark.parametrize("what", BAD_REQUESTS)
def test_a_csr_with_something_else_in_it_is_refused(stage: Stage, what: str) -> None:
    invitation = parse_invitation(stage.federation.invite("masked"))
    with enrolment(stage) as stranger:
        got = patiently(lambda: stranger.enrol(**an_offer(invitation, BAD_REQUESTS[what]())))
    assert got == Refused("malformed-message", "INVALID_ARGUMENT")


# --- revocation --------------------------------------------------------------------------------------------------------------


@dataclass
class OpenCalls:
    """Calls of oscar's that go on, and when each ended."""

    calls: dict[str, Any]
    sent: list[float]
    stop: threading.Event


def calls_of(oscar: Mallory) -> OpenCalls:
    """An upload under way, one that sends nothing, a download that nobody reads, and a wait for the ledger."""
    purpose, stop, sent = oscar.purpose, threading.Event(), []
    content = bytes(oscar.delta_ref().size)
    leaves, ref = leaves_and_ref(content)
    oscar.peer.begin(ref, leaves, purpose)

    def uploading() -> Iterator[blobs_pb2.PutRequest]:
        yield put_header(ref, purpose)
        for offset in range(0, CHUNK_BYTES, 4096):
            if stop.wait(0.02):
                return
            sent.append(time.monotonic())
            yield put_piece(0, offset, content[:4096])

    def idle() -> Iterator[blobs_pb2.PutRequest]:
        yield put_header(ref, purpose)
        stop.wait(60)

    calls = {
        "an upload under way": oscar.peer.putting(uploading()),
        "an upload that sends nothing": oscar.peer.putting(idle()),
        "a wait for the ledger": oscar.peer.following(10_000, 30_000),
    }
    return OpenCalls(calls, sent, stop)


def test_who_is_revoked_gets_no_byte_a_second_later(stage: Stage) -> None:
    federation, oscar = stage.federation, stage.liars["oscar"]
    opened = calls_of(oscar)
    try:
        until(lambda: len(opened.sent) > 10, "the upload is under way")
        with federation.operator() as session:
            session.revoke("oscar", "left-behind")
        revoked = time.monotonic()
        for claim, call in opened.calls.items():
            until(call.done, f"{claim} ends", seconds=5)
        assert time.monotonic() - revoked < 3  # this process may be kept waiting; the coordinator's own times are below
    finally:
        opened.stop.set()
    ended = [each for each in stage.lines("call ended early") if each["institution"] == "oscar"]
    ended += [each for each in stage.lines("call refused") if each["code"] == "unknown-certificate"]
    roster = [each for each in stage.federation.events() if each["event"] == "institution revoked"][-1]
    assert ended
    assert max(moment(each["at"]) for each in ended) - moment(roster["at"]) < 1
    partial = federation.coordinator_home / "blobs" / "partial" / "oscar"
    assert not list(partial.glob("*.blob"))
    for call in (oscar.peer.follow, oscar.peer.list_runs, lambda: oscar.peer.submit(b"garbage")):
        found = refusal(call)  # type: ignore[arg-type]
        assert found is not None
        assert found.code == "unknown-certificate"


def moment(text: str) -> float:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC).timestamp()


def test_the_honest_finish_beside_all_this(stage: Stage) -> None:
    """Whoever does such things is revoked, and nobody waits for it any more."""
    federation = stage.federation
    with federation.operator() as session:
        for member in session.institutions():
            if member.name in LIARS and member.status == "active":
                session.revoke(member.name, "floods")
    ended = federation.wait_until_ended(RUN)
    assert ended.ended is not None
    assert ended.ended.reason == "rounds-done"
    assert [sorted(entry.contributions) for entry in ended.rounds] == [sorted(NAMES)] * 2
    assert [each for each in federation.events() if "traceback" in each] == []
