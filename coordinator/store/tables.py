"""The tables. The ledger is the truth; every other row is deletable (metrics) or guards a promise (invitations, seals)."""

from __future__ import annotations

from sqlalchemy import Column, Integer, LargeBinary, MetaData, String, Table, UniqueConstraint

SCHEMA_VERSION = 2
"""2: certificates. `Transaction.check_schema` brings an older database up to date, in place."""

metadata = MetaData()

schema = Table("schema", metadata, Column("version", Integer, nullable=False))

ledger = Table(
    "ledger",
    metadata,
    Column("index", Integer, primary_key=True, autoincrement=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("kind", String(32), nullable=False),
    Column("appended_at", String(24), nullable=False),
    Column("envelope", LargeBinary, nullable=False),
)
"""Dense from 0. `envelope` is the very bytes that were signed."""

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
