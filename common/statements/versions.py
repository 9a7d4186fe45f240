"""Protocol versions of runs: what a plan offers, what an institution's signed answer chooses.

A plan offers every version from `least` to `most`. Who accepts speaks `least`, and answers with the newest that it shares with
the offer, so it speaks every version up to that one. A run is conducted in the oldest version that was answered
(docs/protocol.md#versions). So institutions upgrade one after the other, and the coordinator before or after them.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field, model_validator

from common.statements.fields import Predicate

RunVersion = Annotated[int, Field(ge=1, le=1_000_000)]


class RunVersions(Predicate):
    """All versions from `least` to `most`."""

    least: RunVersion = 1
    most: RunVersion = 1

    @model_validator(mode="after")
    def _is_ordered(self) -> RunVersions:
        if self.least > self.most:
            raise ValueError(f"protocol versions {self.least} to {self.most}: the least comes first")
        return self

    def __contains__(self, version: int) -> bool:
        return self.least <= version <= self.most

    def __str__(self) -> str:
        return str(self.least) if self.least == self.most else f"{self.least} to {self.most}"

    def answer_to(self, offered: RunVersions) -> int | None:
        """The version that who speaks these answers to an offer; None: it does not speak the offer's least."""
        return min(self.most, offered.most) if offered.least in self else None


SPOKEN: Final = RunVersions(least=1, most=1)
"""What this release speaks. A later one keeps `least` as long as runs of that version can be verified."""
