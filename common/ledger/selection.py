"""How a cohort is drawn: uniform, weighted, round-robin or available, in integers alone (docs/protocol.md#cohort).

lot = Lot(plan digest, round 3, roster digest, {"east": nonce, "north": nonce, "south": nonce})
select(run, lot, 2, turn).names     # ("south", "east"): by the plan's `cohort.selection`

Every draw is SHA-256 of what nobody can choose alone. What a selection knows of earlier rounds stands in the ledger: who was
invited, who contributed, with how many tokens.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256

from common.ledger.state import RoundRecord, RunRecord

LOOK_BACK = 64
"""Closed rounds of the run, counted from the newest, that selections look at: what an opening costs stays bounded."""
MOST_HALVINGS = 4
"""Who never contributes stands among the available in one round of 2^4 at least: nobody is shut out for ever."""


@dataclass(frozen=True, slots=True)
class Lot:
    """What a round's draw is made from; `nonces` are the acceptances', ascending by institution, of those who can be drawn."""

    plan: str
    number: int
    roster: str
    nonces: Mapping[str, str]

    def rank(self, name: str) -> bytes:
        """An institution's place in this round's order: a digest that looks random, and that all compute alike."""
        return sha256(f"{self.plan}/{self.number}/{self.roster}/{name}/{self.nonces[name]}".encode()).digest()

    def tickets(self) -> Callable[[int], int]:
        """A sequence of numbers below 2^256, by their index, from all institutions' nonces together."""
        nonces = "".join(f"/{name}/{nonce}" for name, nonce in sorted(self.nonces.items()))
        common = sha256(f"{self.plan}/{self.number}/{self.roster}/weighted{nonces}".encode()).hexdigest()
        return lambda index: int.from_bytes(sha256(f"{common}/{index}".encode()).digest(), "big")

    def ring_place(self, name: str) -> str:
        """An institution's fixed place in the ring of a run's round-robin; neither round nor roster moves it."""
        return sha256(f"{self.plan}/round-robin/{name}/{self.nonces[name]}".encode()).hexdigest()

    def comes_back(self, name: str, missed: int) -> bool:
        """Whether one that missed its newest `missed` invitations stands among the available in this round.

        The chance is 1/2^missed, at least 1/2^4: as Ethernet spaces its tries (Metcalfe and Boggs 1976), but with a floor.
        """
        text = f"{self.plan}/{self.number}/{self.roster}/{name}/{self.nonces[name]}/back"
        return int.from_bytes(sha256(text.encode()).digest(), "big") % (1 << min(missed, MOST_HALVINGS)) == 0


@dataclass(frozen=True, slots=True)
class Chosen:
    """Who was drawn, in any order, and the place in the ring at which the next round-robin goes on."""

    names: tuple[str, ...]
    turn: str


def select(run: RunRecord, lot: Lot, count: int, turn: str) -> Chosen:
    """`count` of the lot's institutions by the plan's `cohort.selection`; 0 < count < all of them."""
    match run.statement.plan.cohort.selection:
        case "uniform":
            return Chosen(tuple(sorted(lot.nonces, key=lot.rank)[:count]), turn)
        case "weighted":
            return Chosen(_weighted(run, lot, count), turn)
        case "round-robin":
            return _in_turn(lot, count, turn)
        case "available":
            missed = missed_invitations(run, lot.nonces)
            absent = {name for name in lot.nonces if missed[name] and not lot.comes_back(name, missed[name])}
            order = sorted(lot.nonces, key=lambda name: (name in absent, lot.rank(name)))
            return Chosen(tuple(order[:count]), turn)


# --- in turn ---------------------------------------------------------------------------------------------------------


def _in_turn(lot: Lot, count: int, turn: str) -> Chosen:
    """The next `count` on the ring after `turn`, all around it; who joins or leaves moves nobody else's place."""
    ring = sorted((lot.ring_place(name), name) for name in lot.nonces)
    first = bisect_right([place for place, _ in ring], turn)
    window = [ring[(first + step) % len(ring)] for step in range(count)]
    return Chosen(tuple(name for _, name in window), window[-1][0])


# --- weighted --------------------------------------------------------------------------------------------------------


def _weighted(run: RunRecord, lot: Lot, count: int) -> tuple[str, ...]:
    names = sorted(lot.nonces)
    weights = tokens_trained_last(run)
    most = run.statement.plan.local.tokens_per_round
    drawn = draw_successively([weights.get(name, most) for name in names], count, lot.tickets())
    return tuple(names[index] for index in drawn)


def draw_successively(weights: list[int], count: int, ticket: Callable[[int], int]) -> list[int]:
    """Indices of `count` draws without replacement, each with chance weight / weights that are left.

    The distribution is that of Efraimidis and Spirakis (2006), whose keys need logarithms; here each draw is
    ticket(draw) mod total, followed down a tree of sums: integers alone, O(log n) a draw. A ticket has 256 bits, totals have
    fewer than 46, so no draw is biased by more than 2^-210.

    Args:
        weights: positive integers.
        count: at most len(weights).
        ticket: the draw's number, evenly distributed below 2^256.

    Source: successive sampling, Yates and Grundy 1953.
    """
    leaves = 1 << (len(weights) - 1).bit_length()
    sums = [0] * leaves + weights + [0] * (leaves - len(weights))
    for node in range(leaves - 1, 0, -1):
        sums[node] = sums[2 * node] + sums[2 * node + 1]
    drawn = []
    for number in range(count):
        rest, node = ticket(number) % sums[1], 1
        while node < leaves:
            node *= 2
            if rest >= sums[node]:
                rest, node = rest - sums[node], node + 1
        drawn.append(node - leaves)
        weight = sums[node]
        while node:
            sums[node] -= weight
            node //= 2
    return drawn


# --- what the ledger says --------------------------------------------------------------------------------------------


def tokens_trained_last(run: RunRecord) -> Mapping[str, int]:
    """num_tokens of each institution's newest contribution that a committed training round used."""
    newest: dict[str, int] = {}
    for record in _closed(run):
        if record.closed is None or record.closed.outcome != "committed" or record.opened.task != "train":
            continue
        for entry in record.closed.inputs:
            newest.setdefault(entry.institution, entry.num_tokens)
    return newest


def missed_invitations(run: RunRecord, names: Mapping[str, str]) -> Mapping[str, int]:
    """How many of its newest invitations each of `names` missed, one after the other; 0 where it was never invited.

    A round that was full says nothing of those who are not in it: they may just have been slower.
    """
    missed, undecided = dict.fromkeys(names, 0), set(names)
    for record in _closed(run):
        for name in undecided.intersection(record.opened.cohort):
            if name in record.contributions:
                undecided.discard(name)
            elif not record.is_full:
                missed[name] += 1
    return missed


def _closed(run: RunRecord) -> Iterator[RoundRecord]:
    """Closed rounds, newest first."""
    closed = [record for record in run.rounds[-LOOK_BACK - 1 :] if record.closed is not None]
    return reversed(closed[-LOOK_BACK:])
