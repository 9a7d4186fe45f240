"""A member that lies: a bare client under real keys, and what it can make of the round that is open.

    mallory = a_run_in_round_one(federation, peer, "tiny-000001", accept=True)
    mallory.submit(mallory.payload(num_tokens=…))

`mallory` is invited and joined like everybody; its daemon is not started.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.blobs.reference import BlobRef
from common.identity.invitation import open_genesis
from common.identity.keys import SigningKey
from common.ledger.state import RoundRecord, RunRecord
from common.tensors import delta_size, trainable_header
from common.wire.v1 import blobs_pb2
from participant.config import HomeLayout
from tests.support.blobs import leaves_and_ref
from tests.support.drafts import Draft, make_draft
from tests.support.federations import CONSORTIUM, Federation
from tests.support.statements import resealed
from tests.support.wire_client import Credentials, WireClient

SALT = b"s" * 32
METRICS = b'{"evaluation":{"loss_sum_fixed":39321600,"num_tokens":100}}'


@dataclass
class Mallory:
    """Its keys, its connection, and what it can make of the round that is open."""

    federation: Federation
    draft: Draft
    peer: WireClient
    name: str = "mallory"

    @property
    def key(self) -> SigningKey:
        return SigningKey.load(HomeLayout(self.federation.home(self.name)).signing_key)

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
            "institution": self.name,
            "run": self.run.run,
            "round": self.round.number,
            "blobs": {"delta": (delta or self.delta_ref()).model_dump()},
            "weight": {"mode": "clear", "num_tokens": 10},
            "metrics_commitment": commitment(METRICS),
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

    def submit_metrics(self, metrics: bytes, salt: bytes = SALT, **changes: Any) -> int:
        """A contribution that commits to `metrics`, with them beside it."""
        payload = self.payload(metrics_commitment=commitment(metrics, salt), **changes)
        return self.peer.submit(resealed(payload, self.key), metrics, salt)

    def tell_the_truth(self, metrics: bytes = METRICS, **changes: Any) -> bytes:
        """What the open round asks for, as its very bytes; with `metrics`, which nobody can check."""
        train = self.round.opened.task == "train"
        work = {"blobs": {}, "weight": {"mode": "clear", "num_tokens": 0}} if not train else {}
        delta = self.send(self.delta()) if train else None
        payload = self.payload(delta, **work, metrics_commitment=commitment(metrics), **changes)
        envelope = resealed(payload, self.key)
        self.peer.submit(envelope, metrics, SALT)
        return envelope

    def answer(self, *, accept: bool) -> int:
        run = self.run
        predicate = {"institution": self.name, "run": run.run, "accept": accept, "nonce": "ab" * 32}
        return self.peer.submit(resealed(self.statement("answer", predicate, "plan", run.place.digest), self.key))


def commitment(metrics: bytes, salt: bytes = SALT) -> str:
    """What a contribution says of the metrics beside it."""
    return hashlib.sha256(salt + metrics).hexdigest()


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
