"""One switch for all that this coordinator signs: while it recovers, neither a statement nor a checkpoint."""

from __future__ import annotations

from common.errors import CoordinatorRecovering


class SigningGate:
    """Any thread asks; the engine's thread, and whoever starts the coordinator, open and close it."""

    def __init__(self) -> None:
        self._reason: str | None = None

    @property
    def closed(self) -> bool:
        """Whether nothing is signed."""
        return self._reason is not None

    def close(self, reason: str) -> None:
        """Sign nothing from here on.

        Args:
            reason: what is waited for, as a sentence for callers.
        """
        self._reason = reason

    def open(self) -> None:
        """Sign again."""
        self._reason = None

    def expect_open(self) -> None:
        """
        Raises:
            CoordinatorRecovering: nothing is signed now.
        """
        reason = self._reason
        if reason is not None:
            raise CoordinatorRecovering(reason)
