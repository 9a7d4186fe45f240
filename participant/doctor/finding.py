"""What a check says, and what all checks look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from common.clock import Clock
from common.errors import LLMasOSError, StorageFailure
from common.statements.kinds import Genesis
from participant.config import HomeLayout, ParticipantConfig

State = Literal["ok", "warn", "fail"]
GB = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's outcome. `fix` says what to do; empty where there is nothing to do."""

    check: str
    state: State
    found: str
    fix: str = ""

    def as_json(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Subject:
    """A participant, and the time."""

    layout: HomeLayout
    config: ParticipantConfig
    genesis: Genesis
    clock: Clock


def guarded(check: str, examine: Callable[[Subject], Iterator[Finding]], subject: Subject) -> Iterator[Finding]:
    """What a check finds; an error of ours, or the system's, is its finding and does not end the others."""
    try:
        yield from examine(subject)
    except LLMasOSError as err:
        yield Finding(check, "fail", err.message, err.fix)
    except OSError as err:
        failure = StorageFailure(f"{err.filename or check}: {(err.strerror or str(err)).lower()}.")
        yield Finding(check, "fail", failure.message, failure.fix)
