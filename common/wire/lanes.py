"""Connections that carry a blob: the session's own for one stream, or several for that one transfer, closed after it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol


class Lane(Protocol):
    """A way to the coordinator's blobs for one stream at a time."""

    @property
    def stub(self) -> Any:
        """
        Raises:
            CoordinatorUnreachable: it was closed on this side.
        """
        ...

    def renew(self) -> None:
        """The stream broke: connect anew, with the certificate of then."""
        ...


class SharedLane:
    """A stub of a channel that others use, too, and that connects anew by itself."""

    def __init__(self, stub: Any) -> None:
        self.stub = stub

    def renew(self) -> None:
        pass


class OwnLane:
    """A connection of its own, made at the first call."""

    def __init__(self, connect: Callable[[], Any], stub_of: Callable[[Any], Any]) -> None:
        """
        Args:
            connect: a new channel.
            stub_of: the stub over a channel.
        """
        self._connect, self._stub_of = connect, stub_of
        self._lock = threading.Lock()
        self._channel: Any = None
        self._stub: Any = None

    @property
    def stub(self) -> Any:
        with self._lock:
            if self._stub is None:
                self._channel = self._connect()
                self._stub = self._stub_of(self._channel)
            return self._stub

    def renew(self) -> None:
        """Closes the connection; the next call makes another."""
        with self._lock:
            channel, self._channel, self._stub = self._channel, None, None
        if channel is not None:
            channel.close()

    close = renew
