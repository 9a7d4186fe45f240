"""The tables. The ledger is the truth; every other row is deletable (metrics), guards a promise (invitations, seals), or is
computed from the ledger (tiles).
"""

from __future__ import annotations

from sqlalchemy import Column, Integer, LargeBinary, MetaData, String, Table, UniqueConstraint

SCHEMA_VERSION = 3
"""2: certificates. 3: tiles, checkpoints, no index over digests. Older databases: coordinator.store.migrations."""

metadata = MetaData()

schema = Table("schema", metadata, Column("version", Integer, nullable=False))

ledger = Table(
    "ledger",
    metadata,
    Column("index", Integer, primary_key=True, autoincrement=False),
    Column("digest", String(64), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("appended_at", String(24), nullable=False),
    Column("envelope", LargeBinary, nullable=False),
)
"""Dense from 0. `envelope` is the very bytes that were signed. That no statement stands twice is a rule of the protocol,
checked before each append and at each start; an index over digests, which are random, would triple what an append costs."""

tiles = Table(
    "tiles",
    metadata,
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("root", LargeBinary, nullable=False),
    Column("hashes", LargeBinary, nullable=False),
)
"""The ledger's tree, 256 hashes a row (coordinator.store.tree), each written in the transaction that completes it."""

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("size", Integer, primary_key=True, autoincrement=False),
    Column("note", LargeBinary, nullable=False),
)
"""Checkpoints with witnesses' cosignatures, by tree size: what shows that a majority saw a round's opening."""

proposals = Table(
    "proposals",
    metadata,
    Column("payload_sha256", String(64), primary_key=True),
    Column("purpose", String(16), nullable=False),
    Column("subject", String(63), nullable=False),
    Column("request", String(64), nullable=False),
    Column("proposed_at", String(24), nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    Column("certificate_pem", LargeBinary, nullable=True),
    Column("replaces", String(40), nullable=True),
    Column("invitation", String(64), nullable=True),
    Column("redeemed_by", String(64), nullable=True),
    UniqueConstraint("purpose", "subject"),
)
"""Drafts that await approvals, signed by the coordinator, and what is written beside their statement once it is appended."""

approvals = Table(
    "approvals",
    metadata,
    Column("payload_sha256", String(64), primary_key=True),
    Column("institution", String(63), primary_key=True),
    Column("keyid", String(64), nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("approved_at", String(24), nullable=False),
)
"""Signatures under drafts, by the institutions' keys as of the roster that the draft follows."""

seals = Table(
    "seals",
    metadata,
    Column("round_opened", String(64), primary_key=True),
    Column("reason", String(64), nullable=False),
    Column("sealed_at", String(24), nullable=False),
)
"""Rounds that accept nothing more, though their round-closed is not written yet. Keyed by the round-opened's digest."""

metrics = Table(
    "metrics",
    metadata,
    Column("contribution", String(64), primary_key=True),
    Column("run", String(63), nullable=False, index=True),
    Column("content", LargeBinary, nullable=False),
    Column("salt", LargeBinary, nullable=False),
)
"""What institutions measured; the ledger holds only salted commitments, so a row may be deleted and nothing breaks."""

invitations = Table(
    "invitations",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("institution", String(63), nullable=False),
    Column("roles", String(200), nullable=False),
    Column("secret_sha256", String(64), nullable=False),
    Column("expires_at", String(24), nullable=False),
    Column("redeemed_by", String(64), nullable=True),
    Column("certificate_pem", LargeBinary, nullable=True),
    Column("roster_index", Integer, nullable=True),
    UniqueConstraint("secret_sha256"),
)
"""`redeemed_by` is a digest of the keys that redeemed it: the same keys get the same certificate again, others are refused."""

certificates = Table(
    "certificates",
    metadata,
    Column("serial", String(40), primary_key=True),
    Column("institution", String(63), nullable=False, index=True),
    Column("pem", LargeBinary, nullable=False),
    Column("roster_index", Integer, nullable=False),
    Column("replaces", String(40), nullable=True),
)
"""What was issued to members, and the ledger index of the roster that named it first. `replaces` is the serial that a renewal
named: the same renewal asked again gets the same certificate."""
