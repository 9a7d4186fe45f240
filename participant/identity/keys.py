"""This institution's signing key, and the one that takes over from it: whenever a crash comes, the one that counts is there.

    signing.key.pem         in use
    next.signing.key.pem    made, kept, and then offered to the coordinator; takes the other's place once the own copy of the
                            ledger names it

Between the offer and the roster nobody here knows which of the two counts, so nothing is signed. While the coordinator says
that institutions have to approve the new key first, the one in use counts: that may take days.
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
    """The two files, by what the ledger says. `to_sign` from any thread, the rest one thread at a time.

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
        self.approval_awaited = False
        """The coordinator said that the new key waits for approvals; known anew after each start."""

    @property
    def pending(self) -> SigningKey | None:
        """A new key that may have been offered already."""
        return self._pending

    @property
    def takes_over(self) -> bool:
        """Whether there is a new key, and the ledger names it."""
        return self._pending is not None and self._named(self._pending)

    @property
    def present(self) -> SigningKey:
        """The key in use: it signs the offer of the next one."""
        return self._current

    def to_sign(self) -> SigningKey:
        """The key that the roster names now.

        Raises:
            CoordinatorUnreachable: a new key was offered, and the ledger does not say yet whether it counts.
        """
        pending = self._pending  # once: another thread may be putting it in the old one's place
        if pending is None:
            return self._current
        if self._named(pending):
            return pending
        if self.approval_awaited:
            return self._current
        raise CoordinatorUnreachable(
            "A new signing key was offered, and the coordinator did not confirm it yet: nothing is signed until then.",
            "Nothing is to be done: it is asked again.",
        )

    def named(self) -> SigningKey | None:
        """The key that the newest roster of the own copy names: it signs what follows from that very roster, whatever is
        offered meanwhile. None where the roster names neither."""
        for key in (self._current, self._pending):
            if key is not None and self._named(key):
                return key
        return None

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
        self._current, self._pending, self.approval_awaited = self._pending, None, False
        return True

    def _named(self, key: SigningKey) -> bool:
        member = self._state().member(self._institution)
        return member is not None and member.signing_key == key.public
