"""What there is to verify, wherever it lies: a participant's home, a coordinator's, a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from common.blobs.reader import BlobReader
from common.blobs.reference import BlobRef
from common.errors import MissingBlob


class Blobs(Protocol):
    """Models and deltas that the reader holds."""

    def contains(self, ref: BlobRef) -> bool: ...

    def open(self, ref: BlobRef) -> BlobReader: ...


@dataclass(frozen=True, slots=True)
class Several:
    """Blobs from several places, the first that has one: whose they were does not matter, since every chunk is hashed."""

    places: Sequence[Blobs]

    def contains(self, ref: BlobRef) -> bool:
        return any(place.contains(ref) for place in self.places)

    def open(self, ref: BlobRef) -> BlobReader:
        """
        Raises:
            MissingBlob: no place has it.
        """
        for place in self.places:
            if place.contains(ref):
                return place.open(ref)
        raise MissingBlob(f"{ref} is in none of {len(self.places)} places.")


@dataclass(frozen=True, slots=True)
class Own:
    """What an institution signed, from its own journal: payload digests by slot (`contribution/OPENING`, `answer/PLAN`)."""

    institution: str
    signed: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Material:
    """Envelopes from index 0 on; nothing here is believed before it was verified.

    `fingerprint` is the genesis payload's SHA-256 as the reader knows it from elsewhere, hexadecimal; None where the reader
    has nothing to compare with. `pins` are signing keys by institution that the reader knows from elsewhere.
    """

    envelopes: Sequence[bytes]
    blobs: Blobs | None = None
    fingerprint: str | None = None
    pins: Mapping[str, str] | None = None
    own: Own | None = None


def _nothing(*_: object) -> None:
    """Nobody watches."""


@dataclass(frozen=True, slots=True)
class Watching:
    """Told how far it is: entries read, rounds recomputed."""

    entry: Callable[[int], None] = _nothing
    round: Callable[[str, int], None] = _nothing
