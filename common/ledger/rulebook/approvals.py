"""Approvals: how many institutions must have signed a roster, a plan or a release beside the coordinator, and who may
(docs/protocol.md#approvals).

    needed = min(what genesis asks for that kind, how many may approve)

Who may approve is said by the roster right below the statement's own index: so whoever was revoked, left, or whose key changed
before it, does not count. The operator alone is no institution, and nor is somebody who only watches.
"""

from __future__ import annotations

from common.errors import NotEnoughApprovals
from common.ledger.state import LedgerState
from common.statements.approvals import verify_approvals
from common.statements.envelope import Statement
from common.statements.kinds import Kind, Member, Predicate, PublicKey, Roster

NO_INSTITUTIONS = frozenset({"operator", "viewer"})
"""Roles of people who look after the consortium, or watch it: whoever has no other approves nothing."""


def is_institution(member: Member) -> bool:
    """Whether this member takes part in the work, and so may approve while it is active."""
    return not NO_INSTITUTIONS.issuperset(member.roles)


def approvers(state: LedgerState) -> dict[str, PublicKey]:
    """Signing keys of those who may approve what comes next, by name."""
    return {
        member.name: member.signing_key
        for member in (state.roster.members if state.roster else ())
        if is_institution(member) and state.is_active(member.name)
    }


def approvals_needed(state: LedgerState, kind: Kind, predicate: Predicate) -> int:
    """How many institutions must approve this, if it comes next."""
    wanted = next((count for name, count in state.genesis.approvals.items() if name == kind.value), 0)
    if not wanted or (isinstance(predicate, Roster) and _is_routine(state, predicate)):
        return 0
    return min(wanted, len(approvers(state)))


def check_approvals(state: LedgerState, statement: Statement, needed: int | None = None) -> tuple[str, ...]:
    """Names of the institutions that approved a statement; all of its approvals are theirs.

    Args:
        needed: how many must have; None: what `approvals_needed` says.

    Raises:
        NotEnoughApprovals: fewer did, or somebody signed who may not approve.
        BadSignature: an approval is not by the key that it names.
    """
    wanted = approvals_needed(state, statement.kind, statement.predicate) if needed is None else needed
    names = verify_approvals(statement, approvers(state)) if statement.approvals else ()
    if len(names) < wanted:
        by = f" ({', '.join(names)})" if names else ""
        raise NotEnoughApprovals(
            f"This {statement.kind} has {len(names)} {'approval' if len(names) == 1 else 'approvals'}{by}, expected "
            f"{wanted}: so many institutions of {state.genesis.consortium} must approve a {statement.kind}."
        )
    return names


def _is_routine(state: LedgerState, roster: Roster) -> bool:
    """Whether a roster changes nothing but certificates, and the status of members whose signed leave stands in the ledger.

    Statements rest on the signing key. Who leaves has said so itself.
    """
    before = state.roster
    if before is None:
        return True  # the founding roster: nobody is there who could approve it
    if len(before.members) != len(roster.members):
        return False
    return all(_routine(state, *pair) for pair in zip(before.members, roster.members, strict=True))


def _routine(state: LedgerState, before: Member, after: Member) -> bool:
    left = after.status == "left" and before.name in state.departures
    expected = before.model_copy(
        update={"certificates": after.certificates, "status": "left" if left else before.status}
    )
    return after == expected
