"""A plan that is valid by default and small; a test changes the one thing that it is about."""

from __future__ import annotations

from typing import Any

from common.plan.model import Plan


def a_plan(**changes: Any) -> Plan:
    """Two rounds of two steps with a GPT-2 of one block. `changes` replace whole top-level fields."""
    fields: dict[str, Any] = {
        "apiVersion": "llmasos/v1",
        "name": "tiny",
        "model": {"type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": 16},
        "local": {"steps": 2, "batch_size": 2, "sequence_length": 16},
        "rounds": 2,
    }
    return Plan.model_validate(fields | changes)
