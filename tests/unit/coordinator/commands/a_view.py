"""A run's view that is valid by default; a test changes the one thing that it is about."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from coordinator.ports import EvaluationView, ParticipantView, RefusalView, RoundView, RunView

NOW = datetime(2026, 1, 1, 10, 2, 41, tzinfo=UTC)
REFUSAL = RefusalView(77, "north", 2, "non-finite-delta", "signed-by", "ab" * 32)


def measured(perplexity: float, scope: str = "pooled") -> EvaluationView:
    return EvaluationView(scope, round(math.log(perplexity) * 65536 * 1000), 1000, 3)


def a_round(number: int, **changes: Any) -> RoundView:
    fields: dict[str, Any] = {
        "round": number,
        "task": "train",
        "outcome": "committed",
        "cohort": ("east", "north", "south"),
        "contributors": ("east", "north", "south"),
        "seconds": 40.0,
        "bytes_down": 3_000_000,
        "bytes_up": 1_000_000,
        "evaluations": (measured(100.0 / number),),
        "reason": "all-contributed",
    }
    return RoundView(**fields | changes)


def a_view(**changes: Any) -> RunView:
    """Round 3 of 8 is open: one is in, one trains, one is outside its hours, one refused."""
    fields: dict[str, Any] = {
        "run": "tiny-3f2a90",
        "plan_name": "tiny",
        "phase": "collecting",
        "round": 3,
        "rounds_planned": 8,
        "participants": (
            ParticipantView("east", "contributed", 25, 25, bytes_down=4_000_000, bytes_up=2_000_000),
            ParticipantView("north", "training", 15, 25, 3000, 4_000_000, 0, tokens_per_second=1204.3),
            ParticipantView("south", "outside-hours", available_at="2026-01-01T18:00:00.000Z"),
            ParticipantView("west", "refused", reasons=("quorum-too-small", "budget")),
        ),
        "rounds": (a_round(1), a_round(2), a_round(3, outcome="open", contributors=("east",), evaluations=())),
        "deadline": "2026-01-01T11:02:00.000Z",
        "quorum": 3,
        "opened_at": "2026-01-01T10:02:00.000Z",
        "eta_seconds": 380.0,
    }
    return RunView(**fields | changes)
