"""What there is to verify, wherever it lies: a participant's home, a coordinator's, a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from common.blobs.reader import BlobReader
from common.blobs.reference import BlobRef
from common.errors import MissingBlob
from common.ledger.heads import tree_of
from common.ledger.tree import StoredTree


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

    An envelope is None where the entry is withheld: then `tree`, over the leaf hashes and subtrees that are known instead,
    must be given; else it is made from the envelopes. `checkpoints` are C2SP notes that the reader holds.
    `fingerprint` is the genesis payload's SHA-256 as the reader knows it from elsewhere, hexadecimal; None where the reader
    has nothing to compare with. `pins` are signing keys by institution that the reader knows from elsewhere. `sealed` says that
    the checkpoints come as part of a finished file: whoever made it left out signatures of strangers, so one is a failure.
    """

    envelopes: Sequence[bytes | None]
    blobs: Blobs | None = None
    fingerprint: str | None = None
    pins: Mapping[str, str] | None = None
    own: Own | None = None
    tree: StoredTree | None = None
    checkpoints: Sequence[bytes] = ()
    sealed: bool = False


def tree_in(material: Material) -> StoredTree:
    """The tree over all entries, those that are withheld included."""
    if material.tree is not None:
        return material.tree
    if any(envelope is None for envelope in material.envelopes):
        raise ValueError("entries are withheld, and no tree was given")
    return tree_of(envelope for envelope in material.envelopes if envelope is not None)


def _nothing(*_: object) -> None:
    """Nobody watches."""


@dataclass(frozen=True, slots=True)
class Watching:
    """Told how far it is: entries read, rounds recomputed."""

    entry: Callable[[int], None] = _nothing
    round: Callable[[str, int], None] = _nothing
