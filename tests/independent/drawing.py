"""Who is in a round: docs/protocol.md#cohort, written down once more as it is told there."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from hashlib import sha256
from itertools import accumulate
from typing import Protocol

from tests.independent.statements import Entry, Json

NEWEST = 64


class Told(Protocol):
    """What the ledger says of a run so far."""

    plan: Entry
    openings: dict[int, Entry]
    closings: dict[int, Entry]
    wanted: dict[int, int]
    turn: int

    @property
    def offers(self) -> dict[int, dict[str, Entry]]: ...


def up(number: Fraction) -> int:
    return -(-number.numerator // number.denominator)


def sizes(plan: Json, accepted: int) -> tuple[int, int]:
    """How many a round wants and invites."""
    cohort = plan["cohort"]
    if plan["mode"]["type"] == "buffered":
        return min(plan["mode"]["buffer"], accepted), accepted
    if cohort["size"] is None and cohort["fraction"] is None:
        return accepted, accepted
    wanted = cohort["size"] or max(plan["quorum"], up(accepted * Fraction(cohort["fraction"])))
    return min(wanted, accepted), min(accepted, wanted + up(wanted * Fraction(cohort["over_selection"])))


def number(text: str) -> int:
    return int(sha256(text.encode("ascii")).hexdigest(), 16)


def draw(run: Told, nonces: dict[str, str], invited: int, now: str) -> list[str]:
    """`now` is PLAN/ROUND/ROSTER."""
    if invited == len(nonces):
        return sorted(nonces)
    ranks = {name: number(f"{now}/{name}/{nonce}") for name, nonce in nonces.items()}
    match run.plan.body["plan"]["cohort"]["selection"]:
        case "uniform":
            drawn = sorted(nonces, key=ranks.__getitem__)
        case "weighted":
            drawn = by_weight(run, nonces, invited, now)
        case "round-robin":
            ring = {number(f"{run.plan.digest}/round-robin/{name}/{nonce}"): name for name, nonce in nonces.items()}
            places = sorted(ring, key=lambda place: (place <= run.turn, place))[:invited]
            run.turn, drawn = places[-1], [ring[place] for place in places]
        case _:
            missed = {name: misses(run, name) for name in nonces}
            back = {name: number(f"{now}/{name}/{nonces[name]}/back") % 2 ** min(missed[name], 4) for name in nonces}
            drawn = sorted(nonces, key=lambda name: (missed[name] > 0 and back[name] > 0, ranks[name]))
    return sorted(drawn[:invited])


def newest_closed(run: Told) -> Iterable[int]:
    return sorted(run.closings, reverse=True)[:NEWEST]


def misses(run: Told, name: str) -> int:
    count = 0
    for at in newest_closed(run):
        if name in run.openings[at].body["cohort"]:
            if name in run.offers[at]:
                break
            count += len(run.offers[at]) < run.wanted[at]
    return count


def by_weight(run: Told, nonces: dict[str, str], invited: int, now: str) -> list[str]:
    local = run.plan.body["plan"]["local"]
    left = dict.fromkeys(sorted(nonces), local["steps"] * local["batch_size"] * local["sequence_length"])
    for at in sorted(newest_closed(run)):
        if run.closings[at].body["outcome"] == "committed" and run.openings[at].body["task"] == "train":
            told = {entry["institution"]: entry["num_tokens"] for entry in run.closings[at].body["inputs"]}
            left |= {name: tokens for name, tokens in told.items() if name in left}
    common = "".join(f"/{name}/{nonces[name]}" for name in sorted(nonces))
    seed = sha256(f"{now}/weighted{common}".encode()).hexdigest()
    drawn: list[str] = []
    while len(drawn) < invited:
        rest = number(f"{seed}/{len(drawn)}") % sum(left.values())
        ends = dict(zip(left, accumulate(left.values()), strict=True))
        drawn.append(next(name for name, end in ends.items() if end > rest))
        del left[drawn[-1]]
    return drawn
