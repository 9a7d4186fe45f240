"""Statements: envelopes, payloads under a right signature, a genesis, metrics. 1 byte chooses which.

What is taken is spelled in its one way, and has the digest of its bytes.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.identity.invitation import open_genesis
from common.identity.keys import SigningKey
from common.statements.envelope import parse, signed_payload, verify
from coordinator.watching.metrics import parse_metrics
from tests.fuzz.harness import Target

KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))
RECORDED = Path(__file__).parents[2] / "support" / "tour_recording.json"
"""A run's ledger, as docs/tour.md tells of it."""


def entry(data: bytes) -> None:
    content = data[1:]
    match data[:1]:
        case b"e":
            assert hashlib.sha256(parse(content).payload).hexdigest() == parse(content).digest
        case b"p":
            envelope = signed_payload(content, KEY)
            statement = verify(parse(envelope), KEY.public)
            assert statement.payload == content
        case b"g":
            open_genesis(content)
        case b"m":
            parse_metrics(content)


def seeds() -> list[bytes]:
    envelopes = [row["envelope"].encode() for row in json.loads(RECORDED.read_text())["ledger"]]
    payloads = [parse(envelope).payload for envelope in envelopes]
    kinds = {parse(envelope).kind: index for index, envelope in enumerate(envelopes)}
    kept = sorted(kinds.values())
    return [
        *(b"e" + envelopes[index] for index in kept),
        *(b"p" + payloads[index] for index in kept),
        b"g" + envelopes[0],
        b'm{"evaluation":{"loss_sum_fixed":123456789,"num_tokens":16384},"train_loss_fixed":345678}',
    ]


TARGET = Target(entry, seeds(), is_json=True)
