"""What a lie is here: one row of the tables in lies_in_statements.py, lies_about_work.py and lies_on_the_wire.py.

    Lie("NaN in a delta", first_number(nan), "non-finite-delta", recorded=SIGNED)

Every liar speaks the wire with bare stubs and signs by hand (wire_client.py, mallory.py). tests/e2e/test_hostile.py tells each
row while round 1 is open and honest institutions work; then everybody finishes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from common import strict_json
from llmasos.simulation.deployment import edit_line
from tests.support.federations import Federation
from tests.support.mallory import Mallory
from tests.support.wire_client import Refused

RUN, OTHER_RUN = "tiny-000001", "tiny-000002"

Tell = Callable[[Mallory], object]
Recorded = tuple[str | None, int | None, str]
"""Run, round and attribution of the refusal in the ledger."""


@dataclass(frozen=True)
class Lie:
    """One row: who does what, how it is answered, and what the ledger keeps of it."""

    claim: str
    tell: Tell
    code: str
    status: str = "INVALID_ARGUMENT"
    recorded: Recorded | None = None
    by: str = "mallory"

    @property
    def answer(self) -> Refused:
        return Refused(self.code, self.status)


SIGNED: Recorded = (RUN, 1, "signed-by")
SENT: Recorded = (RUN, 1, "sent-on-connection")
UNPLACED: Recorded = (None, None, "sent-on-connection")
"""Names no run, as far as anybody can tell."""


class JsonLogging(Federation):
    """A federation whose coordinator logs JSON."""

    def found(self) -> None:
        super().found()
        edit_line(self.coordinator_home / "coordinator.yaml", r"\bformat: text", "format: json")

    def events(self) -> list[dict[str, Any]]:
        """The coordinator's log so far; what is no event, such as a traceback of Python's own, fails."""
        return [json.loads(line) for line in self.log("coordinator").read_text().splitlines() if line]


def edited(payload: dict[str, Any], before: bytes, after: bytes) -> bytes:
    """A canonical payload with one spelling changed; it is no longer what a writer would write."""
    content = strict_json.dumps(payload)
    assert content.count(before) == 1
    return content.replace(before, after)
