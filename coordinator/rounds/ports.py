"""What the engine needs of the world."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from common.ledger.state import LedgerState, Place, RoundRecord, RunRecord
from common.statements.kinds import PlanStatement, Predicate, RoundOutputs, SealedInput
from coordinator.rounds.phases import Evaluations


class Step(StrEnum):
    """The durable steps of a round, by name: a crash can be set at each, and recovery is tested there."""

    ROUND_OPENED = "round-opened"
    ROUND_SEALED = "round-sealed"
    MODEL_WRITTEN = "model-written"
    ROUND_CLOSED = "round-closed"
    RUN_ENDED = "run-ended"


class Chronicle(Protocol):
    """The ledger as its only writer sees it."""

    @property
    def state(self) -> LedgerState: ...

    def appended_at(self, place: Place) -> datetime:
        """When that statement became durable, by this machine's clock."""
        ...

    def seal_of(self, round_opened: str) -> str | None:
        """Why that round is sealed, or None."""
        ...

    def seal(self, round_opened: str, reason: str) -> None:
        """Durably take no more contributions to that round."""
        ...

    def append(self, predicate: Predicate, parent: Place) -> Place:
        """Sign and append a statement of the coordinator's, durably."""
        ...


class Aggregator(Protocol):
    """Makes a round's model from its sealed inputs."""

    def aggregate(self, run: RunRecord, current: RoundRecord, inputs: Sequence[SealedInput]) -> RoundOutputs:
        """The new model and what belongs to it, durable in the blob store. The same inputs give the same bits, so it may be
        run again.

        Raises:
            BlobError: an input's bytes changed since they were accepted.
        """
        ...

    def check_plan(self, plan: PlanStatement) -> None:
        """Before a run of that plan starts.

        Raises:
            InvalidConfiguration, BlobTooLarge: its rounds cannot be aggregated here.
        """
        ...

    def rule(self, run: RunRecord) -> str:
        """What `aggregate` combines the run's rounds by, for their statements."""
        ...

    def expire(self, state: LedgerState) -> None:
        """Delete deltas that retention no longer keeps, and chunks that nothing references."""
        ...


class Leases(Protocol):
    """Who is silent."""

    def lapsed(self, run: str, round_number: int, cohort: Sequence[str]) -> tuple[str, ...]:
        """Members that have not reported for a lease, counted from the round's opening at the earliest."""
        ...


class Measurements(Protocol):
    """What institutions measured, for stop rules."""

    def evaluations(self, run: str) -> Evaluations: ...


class Departures(Protocol):
    """Institutions that leave."""

    def settle(self) -> None:
        """Carry out what is due to those who signed their leave; calling it again changes nothing.

        Raises:
            LLMasOSError: what is missing is done at the next call.
        """
        ...


class NoDepartures:
    """Nobody leaves: for an engine alone, in tests."""

    def settle(self) -> None:
        pass


class Steps(Protocol):
    """Told after each durable step; tests end the process here."""

    def reached(self, step: Step, run: str, round_number: int) -> None: ...


class NoSteps:
    """Steps in production: nothing to do."""

    def reached(self, step: Step, run: str, round_number: int) -> None:
        del step, run, round_number
