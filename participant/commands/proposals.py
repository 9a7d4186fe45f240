"""llmasos-participant proposal (and `roster approve`): drafts that need this institution's approval, and giving it."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.clock import SystemClock
from common.statements.fields import Kind
from common.terminal import (
    WIDTH,
    FormatOption,
    HomeOption,
    OutputFormat,
    Terminal,
    new_app,
    printable,
    resolve_home,
    table,
)

if TYPE_CHECKING:
    from participant.proposals import Awaiting

app = new_app("proposal", "Drafts of rosters and plans that need the approval of institutions.")
roster_app = new_app("roster", "Changes of the consortium's members.")

ID_DIGITS = 8
_LABEL = 12
_ROSTERS = frozenset({Kind.ROSTER})

IdArgument = Annotated[str, typer.Argument(help="The proposal's id, or a unique beginning of it.", show_default=False)]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.command("list")
def list_proposals(home: HomeOption = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """What awaits approval, oldest first. Asks the coordinator."""
    from participant.proposals import ProposalDesk

    with ProposalDesk(resolve_home(home, "participant"), SystemClock()) as desk:
        found, own = desk.listed(), desk.institution
    rows = [[each.id[:ID_DIGITS], _kind(each), printable(_short(each)), _approved(each, own)] for each in found]
    Terminal(output).result(
        table(["ID", "KIND", "CHANGE", "APPROVED"], rows) if rows else "Nothing awaits approval.",
        data=[_as_data(each, own) for each in found],
        quiet="\n".join(each.id for each in found) or None,
    )


@app.command()
def show(proposal: IdArgument, home: HomeOption = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """Say what a proposal changes, and whether it follows from this institution's own copy of the ledger."""
    from participant.proposals import ProposalDesk

    folder = resolve_home(home, "participant")
    with ProposalDesk(folder, SystemClock()) as desk:
        found, own = desk.find(proposal), desk.institution
    text = _in_full(found, own, folder) + f"\n\nNext: llmasos-participant proposal approve {found.id[:ID_DIGITS]}"
    Terminal(output).result(text, data=_as_data(found, own), quiet=found.id)


@app.command()
def approve(
    proposal: IdArgument, yes: YesOption = False, home: HomeOption = None, output: FormatOption = OutputFormat.HUMAN
) -> None:
    """Sign a proposal, for this institution.

    It is shown first, and signed only if it follows from this institution's own copy of the ledger. An approval is for that
    very text: if the roster changes before enough have approved, it is drafted again and must be approved again.
    """
    _approve(resolve_home(home, "participant"), proposal, None, yes=yes, terminal=Terminal(output))


@roster_app.command("approve")
def approve_roster(
    proposal: Annotated[
        str, typer.Argument(help="The proposal's id, or its beginning. Default: the only one.", show_default=False)
    ] = "",
    yes: YesOption = False,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Sign a proposed change of the members, for this institution: `proposal approve` for rosters alone."""
    _approve(resolve_home(home, "participant"), proposal, _ROSTERS, yes=yes, terminal=Terminal(output))


# --- what stands behind ----------------------------------------------------------------------------------------------


def _approve(home: Path, prefix: str, kinds: frozenset[Kind] | None, *, yes: bool, terminal: Terminal) -> None:
    from participant.proposals import ProposalDesk

    with ProposalDesk(home, SystemClock()) as desk:
        found = desk.find(prefix, kinds)
        if found.fault is None:
            terminal.progress(_in_full(found, desk.institution, home))
            if not yes and not typer.confirm("Approve?", default=False, err=True):
                raise typer.Abort
        approved = desk.approve(found)
    if approved.index is not None:
        said = f"Approved. It stands in the ledger now (index {approved.index})."
    else:
        said = f"Approved: {approved.approvals_given} of {approved.approvals_needed} institutions have."
    data = {
        "proposal": found.id,
        "approvals_given": approved.approvals_given,
        "approvals_needed": approved.approvals_needed,
        "ledger_index": approved.index,
    }
    terminal.result(said, data=data, quiet="approved" if approved.index is None else str(approved.index))


def _in_full(found: Awaiting, own: str, home: Path) -> str:
    rows = [
        ("proposal", found.id),
        ("kind", _kind(found)),
        ("proposed", found.proposal.proposed_at),
        ("approved", _approved(found, own)),
    ]
    lines = [line for label, text in rows for line in _row(label, text)]
    lines += ["", "What changes"]
    for sentence in found.words:
        lines += textwrap.wrap(
            printable(sentence), WIDTH, initial_indent="  - ", subsequent_indent="    ", break_long_words=False
        )
    lines += _of_plan(found, home)
    if found.fault is not None:
        lines += ["", *_row("REFUSED", f"{found.fault.message} ({found.fault.code})")]
        lines += _row("fix", found.fault.fix)
    return printable("\n".join(lines))


def _of_plan(found: Awaiting, home: Path) -> list[str]:
    """What `plan show` says of a plan."""
    from common.plan.explain import explain
    from common.statements.kinds import PlanStatement
    from participant.commands.plans import plan_rows
    from participant.plans.deciding import PlanDesk

    if found.draft is None or not isinstance(found.draft.predicate, PlanStatement):
        return []
    statement = found.draft.predicate
    with PlanDesk(home, SystemClock()) as plans:
        usage = plans.usage(statement)
    lines = ["", *(line for label, text in plan_rows(statement, usage) for line in _row(label, text))]
    lines += ["", "What happens in a round"]
    for position, sentence in enumerate(explain(statement.plan).prose, start=1):
        lines += textwrap.wrap(sentence, WIDTH, initial_indent=f"  {position}. ", subsequent_indent="     ")
    return lines


def _as_data(found: Awaiting, own: str) -> dict[str, Any]:
    return {
        "proposal": found.id,
        "kind": _kind(found),
        "changes": list(found.words),
        "proposed_at": found.proposal.proposed_at,
        "approvals_needed": found.proposal.approvals_needed,
        "approved_by": list(found.proposal.approved_by),
        "approved_here": own in found.proposal.approved_by,
        "approved_here_before": found.again,
        "refused": {"code": found.fault.code, "message": found.fault.message} if found.fault else None,
    }


def _kind(found: Awaiting) -> str:
    return found.draft.kind.value if found.draft else "unreadable"


def _short(found: Awaiting) -> str:
    """The first sentence of what changes, without the keys."""
    first = found.words[0].split(". ")[0].rstrip(".")
    more = f", and {len(found.words) - 1} more" if len(found.words) > 1 else ""
    return ("CANNOT BE APPROVED: " if found.fault else "") + first + more


def _approved(found: Awaiting, own: str) -> str:
    names = [f"{name} (here)" if name == own else name for name in found.proposal.approved_by]
    by = f": {', '.join(names)}" if names else ""
    void = "; approved here before, drafted again since: approve again" if found.again else ""
    return f"{len(names)} of {found.proposal.approvals_needed}{by}{void}"


def _row(label: str, text: str) -> list[str]:
    return textwrap.wrap(
        printable(text),
        WIDTH,
        initial_indent=f"{label:<{_LABEL}}",
        subsequent_indent=" " * _LABEL,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [label]
