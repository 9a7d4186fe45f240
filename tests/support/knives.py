"""kill -9 between any two durable writes of a coordinator without network (tests/support/coordinators.py).

knife = Knife()
coordinator = Coordinator(home, steps=knife)
with knife.drawn(coordinator.database, Kill(survives=1, moment="after-write")):
    coordinator.advance()                       # raises Crash once its second write is durable, before it is known
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from coordinator.rounds.ports import Step
from coordinator.store.database import Database
from tests.support.coordinators import Crash

Moment = Literal["before-write", "after-write", "at-step"]


@dataclass(frozen=True, slots=True)
class Kill:
    """When the process ends.

    Args:
        survives: so many durable writes are made before the one at which it ends.
        moment: that write is undone, or it is durable and nobody was told, or its step was reached. Where the write is no
            step of a round, "at-step" ends nothing.
    """

    survives: int
    moment: Moment


class Knife:
    """Steps, and a database's transactions, that end the process where a Kill says. A written model counts as a write."""

    def __init__(self) -> None:
        self._kill: Kill | None = None
        self._writes = 0

    @contextmanager
    def drawn(self, database: Database, kill: Kill | None) -> Iterator[None]:
        """Inside, the process may end."""
        self._kill, self._writes = kill, 0
        real = database.transaction

        @contextmanager
        def transaction() -> Iterator[Any]:
            with real() as tx:
                yield tx
                self._perhaps("before-write")
            self._perhaps("after-write")
            self._writes += 1

        database.transaction = transaction  # type: ignore[method-assign]
        try:
            yield
        finally:
            database.transaction = real  # type: ignore[method-assign]
            self._kill = None

    def reached(self, step: Step, run: str, round_number: int) -> None:
        del run, round_number
        if step is Step.MODEL_WRITTEN:
            self._perhaps("before-write", "after-write", "at-step")
            self._writes += 1
        elif self._kill is not None and self._kill.moment == "at-step" and self._kill.survives == self._writes - 1:
            raise Crash(f"at {step}")

    def _perhaps(self, *moments: Moment) -> None:
        if self._kill is not None and self._kill.survives == self._writes and self._kill.moment in moments:
            raise Crash(f"{self._kill.moment} {self._writes}")
