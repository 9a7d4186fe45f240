"""llmasos-coordinator proposal: drafts that await the approval of institutions: list, withdraw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Annotated, Literal, cast

import typer

from common.errors import UnknownObject, UsageError
from common.statements.envelope import Draft, parse_payload
from common.statements.kinds import PlanStatement, Roster
from common.terminal import FormatOption, HomeOption, OutputFormat, Terminal, new_app, printable, resolve_home, table
from common.wire.messages import Proposal
from coordinator.api.client import OperatorSession
from coordinator.commands.connection import operator_session
from coordinator.ports import InstitutionView

app = new_app("proposal", "Drafts of rosters and plans that await the approval of institutions: list, withdraw.")

ID_DIGITS = 8
KINDS = ("plan", "release", "roster")
MOST_APPROVALS = 1000

ApprovedKind = Literal["roster", "plan", "release"]


@app.command("list")
def list_proposals(home: HomeOption = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """What awaits approval, oldest first, and who has approved. Institutions approve: llmasos-participant proposal approve."""
    with operator_session(resolve_home(home, "coordinator")) as session:
        found = session.proposals()
        members = {view.name: view for view in session.institutions()} if found else {}
    rows = [(_id(each), parse_payload(each.payload), each) for each in found]
    Terminal(output).result(
        table(
            ["ID", "KIND", "CHANGE", "PROPOSED", "APPROVED"],
            [
                [digest[:ID_DIGITS], draft.kind.value, _what(draft, members), _minute(each), _approved(each)]
                for digest, draft, each in rows
            ],
        )
        if rows
        else "Nothing awaits approval.",
        data=[
            {
                "proposal": digest,
                "kind": draft.kind.value,
                "change": _what(draft, members),
                "proposed_at": each.proposed_at,
                "approvals_needed": each.approvals_needed,
                "approved_by": list(each.approved_by),
            }
            for digest, draft, each in rows
        ],
        quiet="\n".join(digest for digest, _, _ in rows) or None,
    )


@app.command()
def withdraw(
    proposal: Annotated[
        str, typer.Argument(help="The proposal's id, or a unique beginning of it.", show_default=False)
    ],
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Take a draft back, with the approvals that it has. Whoever asked for it may ask again.

    To keep somebody from joining, withdraw the invitation: `institution revoke NAME`.
    """
    with operator_session(resolve_home(home, "coordinator")) as session:
        digest = _find(session, proposal)
        session.withdraw_proposal(digest)
    Terminal(output).result(
        f"Proposal {digest[:ID_DIGITS]} is withdrawn.", data={"proposal": digest, "withdrawn": True}, quiet=digest
    )


def parse_approvals(texts: Sequence[str]) -> dict[ApprovedKind, int]:
    """What `init --approvals KIND=K` says.

    Raises:
        UsageError: no such kind, no number, or a kind twice.
    """
    found: dict[ApprovedKind, int] = {}
    for text in texts:
        kind, _, count = text.partition("=")
        if kind not in KINDS or not count.isascii() or not count.isdigit() or int(count) > MOST_APPROVALS:
            raise UsageError(
                f"--approvals is {text!r}, expected KIND=K with KIND one of {', '.join(KINDS)} and K at most "
                f"{MOST_APPROVALS:,}.",
                "Write, for example: --approvals roster=2 --approvals plan=1.",
            )
        if kind in found:
            raise UsageError(f"--approvals says {kind} twice.", "Say each kind once.")
        found[cast(ApprovedKind, kind)] = int(count)
    return found


def _find(session: OperatorSession, prefix: str) -> str:
    found = [digest for digest in map(_id, session.proposals()) if prefix and digest.startswith(prefix.lower())]
    if len(found) != 1:
        raise UnknownObject(
            f"{len(found)} open proposals begin with {prefix!r}.",
            "See what is open: llmasos-coordinator proposal list.",
        )
    return found[0]


def _id(proposal: Proposal) -> str:
    return sha256(proposal.payload).hexdigest()


def _what(draft: Draft, members: Mapping[str, InstitutionView]) -> str:
    """In a few words; who approves reads it in full, from the own copy of the ledger."""
    if isinstance(draft.predicate, PlanStatement):
        return printable(f"run {draft.predicate.run} starts")
    if not isinstance(draft.predicate, Roster):
        return "-"
    words = []
    for member in draft.predicate.members:
        known = members.get(member.name)
        if known is None or known.status in {"invited", "expired"}:
            words.append(f"{member.name} joins as {' '.join(member.roles)}")
        elif known.status != member.status:
            words.append(f"{member.name}: {member.status}")
    return printable(", ".join(words)) or "a member's signing key changes"


def _approved(proposal: Proposal) -> str:
    by = f": {', '.join(proposal.approved_by)}" if proposal.approved_by else ""
    return printable(f"{len(proposal.approved_by)} of {proposal.approvals_needed}{by}")


def _minute(proposal: Proposal) -> str:
    return printable(f"{proposal.proposed_at[:10]} {proposal.proposed_at[11:16]}")
