"""This institution's signing key, and the one that takes over from it: whenever a crash comes, the one that counts is there.

    signing.key.pem         in use
    next.signing.key.pem    made, kept, and then offered to the coordinator; takes the other's place once the own copy of the
                            ledger names it

Between the offer and the roster nobody here knows which of the two counts, so nothing is signed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from common.errors import CoordinatorUnreachable
from common.homes import storage_failure, sync_folder
from common.identity.keys import SigningKey
from common.ledger.state import LedgerState


def next_key_path(path: Path) -> Path:
    """Where the key waits that is to take over from the one in `path`."""
    return path.with_name(f"next.{path.name}")


class SigningKeys:
    """The two files, by what the ledger says. One thread at a time.

    Args:
        state: this institution's own copy of the ledger.

    Raises:
        NotInitialised, StorageFailure, WrongPassphrase: a key cannot be read.
    """

    def __init__(
        self, path: Path, passphrase: bytes | None, institution: str, state: Callable[[], LedgerState]
    ) -> None:
        self._path, self._next, self._passphrase = path, next_key_path(path), passphrase
        self._institution, self._state = institution, state
        self._current = SigningKey.load(path, passphrase)
        self._pending = SigningKey.load(self._next, passphrase) if self._next.exists() else None

    @property
    def pending(self) -> SigningKey | None:
        """A new key that may have been offered already."""
        return self._pending

    @property
    def present(self) -> SigningKey:
        """The key in use: it signs the offer of the next one."""
        return self._current

    def to_sign(self) -> SigningKey:
        """The key that the roster names now.

        Raises:
            CoordinatorUnreachable: a new key was offered, and the ledger does not say yet whether it counts.
        """
        if self._pending is None:
            return self._current
        if self._named(self._pending):
            return self._pending
        raise CoordinatorUnreachable(
            "A new signing key was offered, and the coordinator did not confirm it yet: nothing is signed until then.",
            "Nothing is to be done: it is asked again.",
        )

    def stage(self) -> SigningKey:
        """The key that takes over, durably kept: made at the first call, the same one until `take_over`."""
        if self._pending is None:
            made = SigningKey.generate()
            made.save(self._next, self._passphrase)
            self._pending = made
        return self._pending

    def take_over(self) -> bool:
        """Put the new key in the old one's place, if the ledger names it; whether it did.

        Raises:
            StorageFailure: the disk says no; both keys are still there.
        """
        if self._pending is None or not self._named(self._pending):
            return False
        try:
            self._next.replace(self._path)
            sync_folder(self._path.parent)
        except OSError as err:
            raise storage_failure(self._path, err) from err
        self._current, self._pending = self._pending, None
        return True

    def _named(self, key: SigningKey) -> bool:
        member = self._state().member(self._institution)
        return member is not None and member.signing_key == key.public
