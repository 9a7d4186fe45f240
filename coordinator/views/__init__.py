"""Read models for operators: what `institution list`, `run list|show|watch|logs` and `status` show.

operator.py     the Views port, which puts the others together
runs.py         one run: participants, rounds, refusals
host.py         the coordinator's own process, certificates and disk
"""

from __future__ import annotations

from coordinator.views.host import Host
from coordinator.views.operator import REPEAT_SECONDS, ROUNDS_LISTED, WATCH_SECONDS, OperatorViews
from coordinator.views.runs import REFUSALS_SHOWN, ROUNDS_SHOWN

__all__ = [
    "REFUSALS_SHOWN",
    "REPEAT_SECONDS",
    "ROUNDS_LISTED",
    "ROUNDS_SHOWN",
    "WATCH_SECONDS",
    "Host",
    "OperatorViews",
]
