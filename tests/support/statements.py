"""Statements that are valid by default: a test spoils the one thing that it is about.

federation = a_federation()                         # keys, authority, and one signed statement of each kind up to a round
federation.contribution("north")                    # signed by north, answers the open round
federation.contribution("north", round=7)           # everything right but the round
federation.sign(an_answer("north"), parent=federation.plan, by="south")
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from common import strict_json
from common.blobs.reference import BlobRef
from common.clock import ManualClock, rfc3339
from common.identity.authority import Authority
from common.identity.keys import SigningKey, key_id
from common.statements.envelope import CA_CERTIFICATE, PAYLOAD_TYPE, Parent, Statement, sign
from common.statements.kinds import (
    Answer,
    Contribution,
    Genesis,
    PlanStatement,
    Predicate,
    Roster,
    RoundClosed,
    RoundOpened,
)
from tests.support.plans import a_plan

CONSORTIUM = "hospitals"
RUN = "tiny-0a1b2c"
NAMES = ("east", "north", "south")
NOW = ManualClock().now()
MANIFEST = ({"name": "embedding", "shape": (4, 16)}, {"name": "bias", "shape": (16,)})
DELTA_BYTES = 512


def a_blob_ref(content: str = "model", *, size: int = DELTA_BYTES) -> BlobRef:
    """A reference with a root of its own for each `content`. No such blob need exist."""
    return BlobRef(algorithm="blake3", size=size, root=hashlib.sha256(content.encode()).hexdigest())


def a_genesis(authority: Authority, coordinator: SigningKey, **changes: Any) -> Genesis:
    fields: dict[str, Any] = {
        "consortium": authority.consortium,
        "created_at": rfc3339(NOW),
        "ca_certificate": authority.certificate_pem.decode(),
        "coordinator_key": coordinator.public,
        "log": {"origin": f"{authority.consortium}.example/ledger", "key": SigningKey.generate().public},
    }
    return Genesis(**fields | changes)


def a_roster(keys: Mapping[str, SigningKey], **changes: Any) -> Roster:
    members = [{"name": name, "signing_key": keys[name].public, "roles": ("trainer",)} for name in sorted(keys)]
    return Roster(**{"version": 1, "members": members} | changes)


def a_plan_statement(**changes: Any) -> PlanStatement:
    fields: dict[str, Any] = {
        "run": RUN,
        "plan": a_plan(),
        "manifest": MANIFEST,
        "initial": {"model": a_blob_ref("model 0"), "tokenizer": a_blob_ref("tokenizer", size=2048)},
    }
    return PlanStatement(**fields | changes)


def an_answer(institution: str, **changes: Any) -> Answer:
    nonce = hashlib.sha256(institution.encode()).hexdigest()
    return Answer(**{"institution": institution, "run": RUN, "accept": True, "nonce": nonce} | changes)


def a_round_opened(roster_digest: str, cohort: Sequence[str] = NAMES, **changes: Any) -> RoundOpened:
    fields: dict[str, Any] = {
        "run": RUN,
        "round": 1,
        "task": "train",
        "inputs": {"model": a_blob_ref("model 0")},
        "cohort": tuple(cohort),
        "roster": roster_digest,
        "seed": 7,
        "stages": ({"name": "collect", "deadline": rfc3339(NOW + timedelta(hours=1))},),
    }
    return RoundOpened(**fields | changes)


def a_contribution(institution: str, **changes: Any) -> Contribution:
    fields: dict[str, Any] = {
        "institution": institution,
        "run": RUN,
        "round": 1,
        "blobs": {"delta": a_blob_ref(f"delta of {institution}")},
        "weight": {"mode": "clear", "num_tokens": 64},
    }
    return Contribution(**fields | changes)


def a_round_closed(contributions: Mapping[str, str], **changes: Any) -> RoundClosed:
    """`contributions`: each used institution's contribution digest."""
    inputs = [
        {"institution": name, "contribution": contributions[name], "num_tokens": 64, "status": "used"}
        for name in sorted(contributions)
    ]
    fields: dict[str, Any] = {
        "run": RUN,
        "round": 1,
        "outcome": "committed",
        "reason": "all-in",
        "rule": "weighted-mean",
        "inputs": inputs,
        "outputs": {"model": a_blob_ref("model 1")},
    }
    return RoundClosed(**fields | changes)


@dataclass(frozen=True)
class Federation:
    """A consortium with its private keys, and its ledger up to the first open round."""

    authority: Authority
    coordinator: SigningKey
    institutions: Mapping[str, SigningKey]
    genesis: Statement
    roster: Statement = field(init=False)
    plan: Statement = field(init=False)
    opened: Statement = field(init=False)

    def __post_init__(self) -> None:
        roster = self.sign(a_roster(self.institutions), parent=self.genesis)
        plan = self.sign(a_plan_statement(), parent=roster)
        opened = self.sign(a_round_opened(roster.digest, tuple(self.institutions)), parent=plan)
        for name, statement in {"roster": roster, "plan": plan, "opened": opened}.items():
            object.__setattr__(self, name, statement)

    def sign(self, predicate: Predicate, *, parent: Statement, by: str | None = None) -> Statement:
        """A statement by the coordinator, or by the institution `by`."""
        key = self.coordinator if by is None else self.institutions[by]
        return sign(predicate, parent=Parent(parent.kind, parent.digest), key=key)

    def answer(self, institution: str, **changes: Any) -> Statement:
        return self.sign(an_answer(institution, **changes), parent=self.plan, by=institution)

    def contribution(self, institution: str, **changes: Any) -> Statement:
        return self.sign(a_contribution(institution, **changes), parent=self.opened, by=institution)

    def closed(self, **changes: Any) -> Statement:
        used = {name: self.contribution(name).digest for name in self.institutions}
        return self.sign(a_round_closed(used, **changes), parent=self.opened)


def sign_genesis(authority: Authority, coordinator: SigningKey, **changes: Any) -> Statement:
    parent = Parent(CA_CERTIFICATE, hashlib.sha256(authority.certificate_der).hexdigest())
    return sign(a_genesis(authority, coordinator, **changes), parent=parent, key=coordinator)


def a_federation(names: Sequence[str] = NAMES) -> Federation:
    authority, coordinator = Authority.create(CONSORTIUM, now=NOW), SigningKey.generate()
    return Federation(
        authority=authority,
        coordinator=coordinator,
        institutions={name: SigningKey.generate() for name in sorted(names)},
        genesis=sign_genesis(authority, coordinator),
    )


def resealed(payload: dict[str, Any] | bytes, key: SigningKey) -> bytes:
    """A rightly signed, canonical envelope around any payload."""
    content = payload if isinstance(payload, bytes) else strict_json.dumps(payload)
    pae = b"DSSEv1 %d %b %d %b" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(content), content)
    return strict_json.dumps(
        {
            "payload": base64.b64encode(content).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [
                {
                    "keyid": key_id(key.public),
                    "sig": base64.b64encode(key.sign(pae)).decode(),
                }
            ],
        }
    )
