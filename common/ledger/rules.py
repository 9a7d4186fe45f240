"""Which statement may come next: the protocol's rules as a pure fold (docs/protocol.md#parents).

`start` takes the genesis, `admit` each envelope after it: form, signer by the roster of that leaf, parent, and what the kind
asks. The coordinator runs this before it appends, every participant and verifier while it reads, so nobody depends on
another's care. What needs bytes or clocks (a delta's numbers, a deadline) is checked where those are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from common.errors import LedgerConflict, WrongParent, WrongSigner
from common.identity.invitation import open_genesis
from common.ledger.places import Layered
from common.ledger.rulebook import controls, membership, plans, releases, rounds
from common.ledger.rulebook.rounds import refused_at
from common.ledger.state import LedgerState, Place
from common.statements.envelope import Statement, UnverifiedStatement, parse, verify
from common.statements.kinds import Kind, PublicKey, signing_institution

__all__ = ["Admission", "admit", "admit_verified", "pass_over", "refused_at", "signer_key", "start"]


@dataclass(frozen=True, slots=True)
class Admission:
    """A statement that follows, and the ledger's state after it."""

    state: LedgerState
    statement: Statement
    place: Place


def start(genesis_envelope: bytes) -> Admission:
    """The state of a ledger that holds only its genesis.

    Raises:
        StatementError: it is no genesis that its own key signed.
    """
    statement, genesis = open_genesis(genesis_envelope)
    place = Place(0, statement.digest, Kind.GENESIS)
    state = LedgerState(genesis=genesis, genesis_place=place, size=1, places=Layered({statement.digest: place}))
    return Admission(state, statement, place)


def admit(state: LedgerState, envelope: bytes) -> Admission:
    """The state after one more envelope.

    Raises:
        StatementError, DeltaError: the first rule that it breaks. The state given stays as it was.
    """
    unverified = parse(envelope)
    statement = verify(unverified, signer_key(state, unverified))
    return admit_verified(state, statement)


def admit_verified(state: LedgerState, statement: Statement) -> Admission:
    """As `admit`, for a statement whose signature was checked under `signer_key` of this very state."""
    if statement.digest in state.places:
        raise WrongParent(
            f"This {statement.kind} stands in the ledger already, at {state.places[statement.digest].index}."
        )
    place = Place(state.size, statement.digest, statement.kind)
    changed = _RULES[statement.kind](state, statement, place)
    after = replace(changed, size=state.size + 1, places=state.places.with_entry(statement.digest, place))
    return Admission(after, statement, place)


def pass_over(state: LedgerState) -> LedgerState:
    """The state after an entry that is withheld from the reader: only its index is used up.

    What follows can still be judged, unless it rests on that entry; rosters and leaves are never withheld.
    """
    return replace(state, size=state.size + 1)


def signer_key(state: LedgerState, statement: UnverifiedStatement | Statement) -> PublicKey:
    """The one key that may have signed this, by the roster as it stands.

    Raises:
        WrongSigner: an institution that is no active member speaks.
    """
    name = signing_institution(statement.predicate)
    if name is None:
        return state.genesis.coordinator_key
    member = state.member(name)
    if member is None or not state.is_active(name):
        raise WrongSigner(f"{name} is no active member of {state.genesis.consortium}.")
    return member.signing_key


def _genesis(state: LedgerState, statement: Statement, place: Place) -> LedgerState:
    raise LedgerConflict(f"A second genesis at index {place.index}; a ledger has one, at 0.")


_RULES: dict[Kind, Callable[[LedgerState, Statement, Place], LedgerState]] = {
    Kind.GENESIS: _genesis,
    Kind.ROSTER: membership.roster,
    Kind.PLAN: plans.plan,
    Kind.ANSWER: plans.answer,
    Kind.ROUND_OPENED: rounds.round_opened,
    Kind.CONTRIBUTION: rounds.contribution,
    Kind.REFUSAL: rounds.refusal,
    Kind.ROUND_CLOSED: rounds.round_closed,
    Kind.CONTROL: controls.control,
    Kind.ATTESTATION: releases.attestation,
    Kind.RELEASE: releases.release,
}
