"""Draws that everybody can repeat: who is in a round, and its seed (docs/protocol.md#open).

They depend on the plan's digest, the acceptance nonces, the round and the roster, never on who happens to be connected, so
an operator cannot choose whom a round hears.
"""

from __future__ import annotations

from hashlib import sha256

from common.ledger.state import LedgerState, RunRecord
from common.statements.kinds import Answer


def draw_cohort(state: LedgerState, run: RunRecord, number: int) -> tuple[str, ...]:
    """Institutions invited to round `number`, ascending: all who accepted and are active, or `cohort.size` of them.

    Returns an empty tuple when nobody accepted.
    """
    active = set(state.active_trainers)
    accepted = {name: answer for name, answer in run.accepted.items() if name in active}
    size = run.statement.plan.cohort.size
    if size is None or size >= len(accepted):
        return tuple(sorted(accepted))
    roster_digest = state.roster_place.digest if state.roster_place else ""

    def rank(name: str) -> bytes:
        answer: Answer = accepted[name]
        return sha256(f"{run.place.digest}/{number}/{roster_digest}/{name}/{answer.nonce}".encode()).digest()

    return tuple(sorted(sorted(accepted, key=rank)[:size]))


def round_seed(plan_digest: str, number: int) -> int:
    """The round's seed, 32 bits: the first four bytes of SHA-256(plan digest || "/seed/" || round), big-endian."""
    return int.from_bytes(sha256(f"{plan_digest}/seed/{number}".encode()).digest()[:4], "big")


def local_seed(seed: int, institution: str) -> int:
    """An institution's own seed for a round, 32 bits, so that two with the same data do not draw the same batches."""
    return int.from_bytes(sha256(f"{seed}/local/{institution}".encode()).digest()[:4], "big")
