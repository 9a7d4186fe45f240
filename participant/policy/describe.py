"""A policy in short lines, for whoever has just been given one or asks what it says."""

from __future__ import annotations

import textwrap

from common.terminal import WIDTH
from participant.policy.model import Policy

_ANSWERS = {
    "ask": "a person decides on every plan that breaks no rule",
    "accept": "plans that break no rule are accepted at once",
    "refuse": "every plan is refused",
}
_LABEL = 14


def describe(policy: Policy) -> str:
    """What the policy means, a line a subject, at most 80 columns wide."""
    return "\n".join(
        textwrap.fill(text, WIDTH, initial_indent=f"{label:<{_LABEL}}", subsequent_indent=" " * _LABEL)
        for label, text in _rows(policy)
    )


def _rows(policy: Policy) -> list[tuple[str, str]]:
    audience, patterns = ", ".join(policy.allow_delta_audience), ", ".join(policy.runs)
    losses = {
        "none": "shown to nobody",
        "pooled": "shown only in sums over 3 or more institutions",
        "institution": "may be shown as this institution's",
    }[policy.metrics_visibility]
    compared = {
        "none": "their effect on the model is compared by nobody",
        "own": "their effect on the model is shown to this institution alone",
        "operator": "their effect on the model may be shown to the operator, and to auditors",
    }[policy.contributions_visibility]
    retention = policy.max_retention_rounds
    kept = "" if retention is None else f"; deltas kept for at most {retention:,} rounds"
    inquiries = "answered in codes, before a run is started" if policy.answer_inquiries else "not answered"
    return [
        ("answer", f"{policy.answer}: {_ANSWERS[policy.answer]}"),
        ("runs", "any name" if "*" in policy.runs else patterns or "none"),
        ("models", f"{' or '.join(policy.models) or 'none'}, at most {policy.max_parameters:,} parameters"),
        ("rounds", f"at most {policy.max_rounds:,}, of {policy.min_quorum} or more contributors{kept}"),
        ("losses", losses),
        ("deltas", f"read by the coordinator{' and ' + audience if audience else ' alone'}; {compared}"),
        ("rules", "any, the operator's own too" if policy.allow_operator_rule else "only those that all can recompute"),
        ("plugins", f"of tasks: {' or '.join(policy.allow_task_plugins) or 'none'}"),
        ("budgets", f"of each run: {_budgets(policy)}"),
        ("hours", "; ".join(policy.windows) or "at any time"),
        (
            "load",
            "it does not matter" if policy.max_load is None else f"no work begins above {policy.max_load:g} a core",
        ),
        ("inquiries", inquiries),
        ("agreement", f"sha256 {policy.agreement[:16]}… is cited" if policy.agreement else "none is cited"),
    ]


def _budgets(policy: Policy) -> str:
    budgets = policy.budgets
    rows = (
        (budgets.gpu_hours, "GPU hours"),
        (budgets.cpu_hours, "CPU hours"),
        (budgets.memory_gb, "GB memory"),
        (budgets.disk_gb, "GB disk"),
        (budgets.traffic_gb, "GB traffic"),
    )
    return ", ".join(f"{bound:g} {what}" for bound, what in rows if bound is not None) or "without bound"
