"""An institution for tests: the real signer and the real rules, no agent, no worker. It lies where a test wants.

north = coordinator["north"]
north.answer()
north.contribute(content, num_tokens=10**12)                 # sends a delta and a contribution, one thing wrong
north.submit(north.contribution(ref, metrics))               # the same in steps
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from common import strict_json
from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.identity.certificates import enrol_proof_message, renew_proof_message
from common.identity.invitation import Invitation
from common.identity.keys import SigningKey, TlsKey
from common.ledger.notes import Note, cosign
from common.ledger.rules import admit, start
from common.ledger.state import LedgerState, RoundRecord
from common.statements.approvals import approval_signature
from common.statements.envelope import Parent, Statement, sign
from common.statements.kinds import Answer, Contribution, Member, Predicate
from common.wire.messages import Approved
from coordinator.ports import Enrolled, EnrolmentOffer, Metrics, RenewalOffer, UploadPurpose
from coordinator.rounds.phases import LOSS_SCALE
from tests.support.blobs import delta_bytes, encoded_delta, leaves_and_ref, random_arrays, tensor_manifest

if TYPE_CHECKING:
    from tests.support.coordinators import Coordinator

RUN = "tiny-0a1b2c"
MANIFEST = tensor_manifest(trainable={"embedding": (8, 4), "bias": (4,)}, frozen={"positions": (3,)})
TOKENS = 1000
"""Held-out tokens of each measurement."""


class FakeParticipant:
    """An institution with the real signer and the real rules. It trains nothing and lies where a test wants."""

    def __init__(self, coordinator: Coordinator, name: str) -> None:
        self.name = name
        self.key, self.tls = SigningKey.generate(), TlsKey.generate()
        self.perplexity: Callable[[int], float] = lambda number: 100.0 / number
        self._requests: dict[str, bytes] = {}
        self._coordinator = coordinator
        self._state = start(coordinator.genesis).state

    def moved_to(self, coordinator: Coordinator) -> FakeParticipant:
        """The same institution at a copy of its coordinator."""
        moved = FakeParticipant(coordinator, self.name)
        moved.key, moved.tls = self.key, self.tls
        return moved

    @property
    def member(self) -> Member:
        """Its newest roster entry, as the interceptor finds it for its connection."""
        found = self._coordinator.state.member(self.name)
        assert found is not None
        return found

    def offer(self, invitation: Invitation, **changes: Any) -> EnrolmentOffer:
        """What `join` sends; arguments spoil it."""
        fingerprint = bytes.fromhex(start(invitation.genesis).statement.digest)
        csr = changes.pop("csr_der", None) or self._requests.setdefault(self.tls.spki_sha256, self.tls.csr(self.name))
        proof = self.key.sign(enrol_proof_message(fingerprint, invitation.invitation_id, csr, b""))
        fields: dict[str, Any] = {
            "invitation_id": invitation.invitation_id,
            "secret": invitation.secret,
            "csr_der": csr,
            "signing_key": bytes.fromhex(self.key.public.public),
            "proof": proof,
            "encryption_key": None,
        }
        return EnrolmentOffer(**fields | changes)

    def join(self, invitation: Invitation) -> Enrolled:
        return self._coordinator.desk.enrol(self.offer(invitation))

    def rotate(self) -> None:
        """A new signing key, and a TLS key with it, as `identity rotate` asks for."""
        key, tls = SigningKey.generate(), TlsKey.generate()
        fingerprint = bytes.fromhex(start(self._coordinator.genesis).statement.digest)
        csr, public, replaces = (
            tls.csr(self.name),
            bytes.fromhex(key.public.public),
            self.member.certificates[-1].serial,
        )
        message = renew_proof_message(fingerprint, self.name, replaces, csr, public)
        offer = RenewalOffer(self.name, replaces, csr, self.key.sign(message), public, key.sign(message))
        self._coordinator.desk.renew(offer)
        self.key, self.tls = key, tls

    def follow(self) -> LedgerState:
        """Its own copy of the ledger's state, every entry checked by the rules."""
        ledger = self._coordinator.ledger
        while (found := ledger.slice(self._state.size, max_bytes=2**20, wait_seconds=0)).envelopes:
            for envelope in found.envelopes:
                self._state = admit(self._state, envelope).state
        return self._state

    @property
    def round(self) -> RoundRecord:
        """The newest round that it knows of."""
        current = self.follow().runs[RUN].current
        assert current is not None, "no round was opened"
        return current

    def sign(self, predicate: Predicate, parent_kind: str, parent: str) -> Statement:
        return sign(predicate, parent=Parent(parent_kind, parent), key=self.key)

    def submit(self, statement: Statement | bytes, metrics: Metrics | None = None) -> int:
        """Send on its own connection."""
        envelope = statement if isinstance(statement, bytes) else statement.envelope
        return self._coordinator.desk.submit(self.member, envelope, metrics)

    def approve(self, payload_sha256: str) -> Approved:
        """Sign a draft as it is listed, whatever it says, and send the signature."""
        payloads = {
            hashlib.sha256(each.payload).hexdigest(): each.payload for each in self._coordinator.desk.proposals()
        }
        signature = approval_signature(payloads.get(payload_sha256, b"none"), self.key).signature
        return self._coordinator.desk.approve(self.member, payload_sha256, signature)

    def cosign(self, note: Note, seconds: int = 0) -> Note:
        """As a witness that believes whatever it is shown; honest ones look at their own copy first."""
        genesis = self._coordinator.state.genesis
        return cosign(note, f"{genesis.consortium}.llmasos/{self.name}", self.key, seconds=seconds)

    # --- answers -----------------------------------------------------------------------------------------------------

    def an_answer(self, **changes: Any) -> Statement:
        plan = self.follow().runs[RUN].place.digest
        nonce = hashlib.sha256(self.name.encode()).hexdigest()
        fields: dict[str, Any] = {"institution": self.name, "run": RUN, "accept": True, "nonce": nonce}
        return self.sign(Answer(**fields | changes), "plan", plan)

    def answer(self, **changes: Any) -> int:
        return self.submit(self.an_answer(**changes))

    # --- contributions -----------------------------------------------------------------------------------------------

    def delta(self) -> bytes:
        """Small numbers that depend on institution and round alone, by the plan's codec."""
        seed = int.from_bytes(hashlib.sha256(f"{self.name}/{self.round.number}".encode()).digest()[:4], "big")
        codec = self._state.runs[RUN].statement.plan.codec
        return encoded_delta(MANIFEST, delta_bytes(MANIFEST, random_arrays(MANIFEST, seed=seed, scale=0.01)), codec)

    def send(self, content: bytes, *, opened: str = "") -> BlobRef:
        """A blob for the newest round, or for the one of that opening, as the blob servicer would take it."""
        leaves, ref = leaves_and_ref(content)
        coordinator = self._coordinator
        coordinator.access.check_write(self.member, ref, UploadPurpose(round_opened=opened or self.round.place.digest))
        upload = coordinator.blobs.begin_own(ref, leaves, owner=self.name)
        for first, count in upload.missing():
            for chunk in range(first, first + count):
                upload.write(chunk, content[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES])
        assert upload.finish()
        return ref

    def metrics(self, perplexity: float | None = None, tokens: int = TOKENS) -> Metrics:
        nats = math.log(perplexity or self.perplexity(self.round.number))
        measured = {"loss_sum_fixed": round(nats * tokens * LOSS_SCALE), "num_tokens": tokens}
        content = strict_json.dumps({"evaluation": dict(measured), "train_loss_fixed": None})
        return Metrics(content, hashlib.sha256(self.name.encode()).digest())

    def contribution(self, ref: BlobRef | None = None, metrics: Metrics | None = None, **changes: Any) -> Statement:
        """Signed for the newest round; sends nothing. `checkpoint=` is the text of a note; without it there is none."""
        current, beside = self.round, metrics or self.metrics()
        train = current.opened.task == "train"
        num_tokens = changes.pop("num_tokens", 10 + len(self.name) if train else 0)
        parent = changes.pop("parent", current.place.digest)
        fields: dict[str, Any] = {
            "institution": self.name,
            "run": RUN,
            "round": current.number,
            "blobs": {"delta": ref} if ref else {},
            "weight": {"mode": "clear", "num_tokens": num_tokens},
            "metrics_commitment": hashlib.sha256(beside.salt + beside.content).hexdigest(),
        }
        return self.sign(Contribution(**fields | changes), "round-opened", parent)

    def contribute(self, content: bytes | None = None, metrics: Metrics | None = None, **changes: Any) -> int:
        """Send a delta (in a training round) and the contribution with its metrics."""
        ref = self.send(content or self.delta()) if self.round.opened.task == "train" else None
        beside = metrics or self.metrics()
        return self.submit(self.contribution(ref, beside, **changes), beside)

    def act(self) -> None:
        """What is to do now, if anything."""
        run = self.follow().runs[RUN]
        if "trainer" not in self.member.roles:
            return
        if self.name not in run.answers:
            self.answer()
        current = run.open_round
        if current is not None and self.name in current.missing:
            self.contribute()
