"""The final model's descent: initial weights, committed rounds, the end, without a gap."""

from __future__ import annotations

from common.ledger.state import LedgerState, RunRecord
from common.verify.report import Check, Finding, Outcome


def check_lineages(state: LedgerState) -> Check:
    """Whether the ledger is one lineage: where the coordinator gave up what it had signed for, that is a gap for ever."""
    findings = []
    for each in state.lineages:
        lost = each.given_up.size - each.place.index
        text = (
            f"The coordinator began a new lineage here and gave up {lost:,} entries that its log had signed for: nobody held "
            "them, it says. What they said is not known."
        )
        findings.append(
            Finding(Outcome.GAPS, text, each.place.index, got=each.given_up.root.hex(), signer="coordinator")
        )
    question = "Is the ledger of one lineage, without entries that were given up?"
    return Check("lineages", question, f"{len(state.lineages)} new lineages", tuple(findings))


def check_lineage(run: RunRecord) -> Check:
    """Each round starts from the model that the one before left, and the run ends with the newest.

    Rounds that were rolled back are no part of it. The rules demand this of every entry; here it is told as one chain, so that
    a person can follow it.
    """
    findings: list[Finding] = []
    model, changed = run.statement.initial.model, 0
    for record in run.standing:
        if record.opened.inputs.model != model:
            text = f"Round {record.number} of {run.run} starts from another model than the one before left."
            findings.append(
                Finding(
                    Outcome.FAILED, text, record.place.index, str(model), str(record.opened.inputs.model), "coordinator"
                )
            )
        if record.closed is not None:
            changed += record.closed.outputs.model != model
            model = record.closed.outputs.model
    if run.ended is None:
        findings.append(Finding(Outcome.GAPS, f"Run {run.run} goes on: its model is not final.", got=str(model)))
    elif run.ended.model != model:
        text = f"Run {run.run} ended with another model than its last round left."
        findings.append(Finding(Outcome.FAILED, text, None, str(model), str(run.ended.model), "coordinator"))
    question = f"Does the final model of {run.run} descend from these rounds?"
    taken_back = [str(record.number) for record in run.rounds if record.rolled_back]
    examined = f"{changed} changes from {run.statement.initial.model} to {model}"
    examined += f"; rolled back: {', '.join(taken_back)}" if taken_back else ""
    return Check("lineage", question, examined, tuple(findings))
