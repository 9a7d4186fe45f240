"""Draws that everybody can repeat: who is in a round, and its seed (docs/protocol.md#cohort).

They depend on the plan's digest, the acceptance nonces, the round, the roster and what the ledger says of earlier rounds, never
on who happens to be connected, so an operator cannot choose whom a round hears.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256

from common.ledger.selection import Lot, select
from common.ledger.state import LedgerState, RunRecord
from common.plan.model import Plan


@dataclass(frozen=True, slots=True)
class CohortSizes:
    """`invited` institutions are asked; `enough` contributions seal the round. They differ with over-selection."""

    enough: int
    invited: int


@dataclass(frozen=True, slots=True)
class Draw:
    """Who is invited to a round, ascending; how many contributions are enough; where the next round-robin goes on."""

    cohort: tuple[str, ...]
    enough: int
    turn: str = ""


def cohort_sizes(plan: Plan, accepted: int) -> CohortSizes:
    """How many of the `accepted` institutions a round invites, and with how many contributions it is sealed.

    Inviting more than are wanted, so that the slowest need not be waited for: Bonawitz et al., arXiv:1902.01046, section 2.2.
    """
    cohort = plan.cohort
    if plan.mode.type == "buffered":
        return CohortSizes(min(plan.mode.buffer, accepted), accepted)
    if cohort.is_everyone:
        return CohortSizes(accepted, accepted)
    wanted = cohort.size or max(plan.quorum, _rounded_up(accepted, cohort.fraction or Decimal(1)))
    invited = wanted + _rounded_up(wanted, cohort.over_selection)
    return CohortSizes(min(wanted, accepted), min(invited, accepted))


def draw(state: LedgerState, run: RunRecord, number: int) -> Draw:
    """Whom round `number` invites, of those who accepted and are active trainers; nobody where nobody accepted."""
    active = set(state.active_trainers)
    nonces = {name: answer.nonce for name, answer in sorted(run.accepted.items()) if name in active}
    sizes = cohort_sizes(run.statement.plan, len(nonces))
    turn = run.rounds[-1].turn if run.rounds else ""
    if sizes.invited == len(nonces):
        return Draw(tuple(nonces), sizes.enough, turn)
    roster_digest = state.roster_place.digest if state.roster_place else ""
    chosen = select(run, Lot(run.place.digest, number, roster_digest, nonces), sizes.invited, turn)
    return Draw(tuple(sorted(chosen.names)), sizes.enough, chosen.turn)


def draw_cohort(state: LedgerState, run: RunRecord, number: int) -> tuple[str, ...]:
    """Institutions invited to round `number`, ascending."""
    return draw(state, run, number).cohort


def round_seed(plan_digest: str, number: int) -> int:
    """The round's seed, 32 bits: the first four bytes of SHA-256(plan digest || "/seed/" || round), big-endian."""
    return int.from_bytes(sha256(f"{plan_digest}/seed/{number}".encode()).digest()[:4], "big")


def local_seed(seed: int, institution: str) -> int:
    """An institution's own seed for a round, 32 bits, so that two with the same data do not draw the same batches."""
    return int.from_bytes(sha256(f"{seed}/local/{institution}".encode()).digest()[:4], "big")


def _rounded_up(count: int, share: Decimal) -> int:
    """The least integer that is not below count × share, without rounding in between."""
    numerator, denominator = share.as_integer_ratio()
    return -(-count * numerator // denominator)
