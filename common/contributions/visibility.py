"""Who may be shown which rows: the plan's `contributions_visibility`, which institutions accepted or refused with the plan."""

from __future__ import annotations

from common.errors import NotAuthorised
from common.ledger.state import RunRecord

_FIX = "It stands in the plan that institutions accepted; a later run's plan may say otherwise, if their policies allow it."


def expect_shown_to_operator(run: RunRecord) -> None:
    """
    Raises:
        NotAuthorised: the plan does not show the operator what deltas did to the model.
    """
    shown = run.statement.plan.contributions_visibility
    if shown != "operator":
        whom = "nobody" if shown == "none" else "each institution alone"
        raise NotAuthorised(
            f"The plan of {run.run} shows {whom} what deltas did to the model: contributions_visibility is {shown}, "
            "expected operator.",
            _FIX,
        )


def rows_shown_to(run: RunRecord, institution: str) -> frozenset[str] | None:
    """Whose rows an institution may be shown: its own, or all of them (None) if it is an auditor that the plan names.

    Raises:
        NotAuthorised: the plan shows nobody what deltas did to the model.
    """
    plan = run.statement.plan
    if plan.contributions_visibility == "none":
        raise NotAuthorised(
            f"The plan of {run.run} shows nobody what deltas did to the model: contributions_visibility is none.", _FIX
        )
    if plan.contributions_visibility == "operator" and institution in plan.delta_audience:
        return None
    return frozenset({institution})
