"""A run by what a person typed."""

from __future__ import annotations

from common.errors import UnknownObject
from common.ledger.state import LedgerState, RunRecord


def find_run(state: LedgerState, prefix: str) -> RunRecord:
    """The run of that id, or the only one that begins so.

    Raises:
        UnknownObject: no run of this ledger, or several, begin so.
    """
    names = [prefix] if prefix in state.runs else [name for name in state.runs if name.startswith(prefix)]
    if len(names) != 1:
        known = ", ".join(state.runs) or "none"
        raise UnknownObject(f"{len(names)} runs of this ledger begin with {prefix!r}; runs here: {known}.")
    return state.runs[names[0]]
