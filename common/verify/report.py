"""What a verification found: checks, their findings, and one result for all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """Of a check, and of the whole: the worst of its parts."""

    VERIFIED = "verified"
    GAPS = "verified-with-gaps"
    FAILED = "failed"

    @property
    def exit_code(self) -> int:
        return {Outcome.VERIFIED: 0, Outcome.GAPS: 4, Outcome.FAILED: 1}[self]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, or could not be verified. `leaf` is a ledger index."""

    outcome: Outcome
    text: str
    leaf: int | None = None
    expected: str = ""
    got: str = ""
    signer: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One question, with what was looked at to answer it."""

    name: str
    question: str
    examined: str
    findings: tuple[Finding, ...] = ()

    @property
    def outcome(self) -> Outcome:
        return worst(finding.outcome for finding in self.findings)


NOT_PROVEN = (
    "Not proven by any of this: that an institution trained honestly or on true data; that num_tokens or a reported loss is "
    "what it says; that the coordinator, or an auditor, kept the deltas that it may read to itself; that a time is right, "
    "beyond what the signed times around it allow; or that everybody was shown this history. Two groups that never compare "
    "checkpoints can each be shown one of two, and each verifies its own, where nobody is a witness, or where more than half "
    "of the witnesses cosign both. It shows as soon as a checkpoint of one group meets the other."
)


@dataclass(frozen=True, slots=True)
class Report:
    """All checks of a verification, in their order."""

    consortium: str
    fingerprint: str
    entries: int
    root: str
    """RFC 6962 root over all entries, hexadecimal: two who hold as many entries and another root hold two histories."""
    checks: tuple[Check, ...]

    @property
    def outcome(self) -> Outcome:
        return worst(check.outcome for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        checks = [asdict(check) | {"outcome": check.outcome} for check in self.checks]
        return {
            "result": self.outcome,
            "consortium": self.consortium,
            "fingerprint": self.fingerprint,
            "entries": self.entries,
            "root": self.root,
            "checks": checks,
            "not_proven": NOT_PROVEN,
        }


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """Failed if any failed, else gaps if any has gaps."""
    found = set(outcomes)
    return next((each for each in (Outcome.FAILED, Outcome.GAPS) if each in found), Outcome.VERIFIED)
