"""The next roster: members as they change, the others as they were."""

from __future__ import annotations

from collections.abc import Iterable

from common.errors import InvalidInvitation
from common.identity.keys import is_weak
from common.ledger.state import LedgerState
from common.statements.kinds import Member, PublicKey, Roster


def next_roster(state: LedgerState, changed: Iterable[Member]) -> Roster:
    """The roster that follows, with these members as given."""
    members = {member.name: member for member in state.roster.members} if state.roster else {}
    members |= {member.name: member for member in changed}
    return Roster(
        version=(state.roster.version if state.roster else 0) + 1,
        members=tuple(members[name] for name in sorted(members)),
    )


def check_signing_key(state: LedgerState, key: PublicKey, *, besides: str) -> None:
    """
    Raises:
        InvalidInvitation: anybody can sign for this key, or another member than `besides` holds it.
    """
    if is_weak(key):
        raise InvalidInvitation("The signing key is one that anybody can sign for.", "Try again with a new key.")
    others = state.roster.members if state.roster else ()
    if any(other.signing_key == key for other in others if other.name != besides):
        raise InvalidInvitation(
            "Another member holds this signing key already.",
            "Use a home folder of its own for each institution.",
        )
