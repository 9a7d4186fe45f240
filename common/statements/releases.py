"""Predicates for later readers of the ledger: attestations and releases."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from common.blobs.reference import BlobRef
from common.names import Name, Sha256Hex
from common.statements.fields import Predicate, RoundNumber


def _stays_inside(path: str) -> str:
    if {".", ".."} & set(path.split("/")):
        raise ValueError("expected a path without . and ..")
    return path


class Attestation(Predicate):
    """An auditor recomputed a round."""

    institution: Name
    run: Name
    round: RoundNumber
    result: Literal["equal", "different"]
    model: BlobRef


class ReleasedFile(Predicate):
    """A file of a release, by the plain SHA-256 that everybody can compute."""

    path: Annotated[
        str, Field(max_length=200, pattern=r"^[A-Za-z0-9_.\-]+(/[A-Za-z0-9_.\-]+)*$"), AfterValidator(_stays_inside)
    ]
    size: Annotated[int, Field(ge=0, lt=2**44)]
    sha256: Sha256Hex


class Release(Predicate):
    """A model leaves the consortium."""

    run: Name
    round: RoundNumber
    model: BlobRef
    files: Annotated[tuple[ReleasedFile, ...], Field(min_length=1, max_length=1000)]
