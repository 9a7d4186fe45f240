"""Where a round's processor time goes, by counting steps: how many GB each step handles, times what a GB costs alone.

    step         GB in a round of n participants, model and delta of S GB each
    ─────────────────────────────────────────────────────────────────────────────
    TLS          2nS sealed and opened
    sockets      2nS through TCP over loopback, both ends
    gRPC         what bare gRPC used for its 2nS beyond these two: measured, less what is derived
    copies       ours beyond gRPC's: a piece framed before it is sent
    hash         what comes in, on each side; the agent's own delta; the reducer's inputs and output
    files        what is read from and written to the page cache at the same places, and by the sender
    fold         nS of deltas, without hashing and without writing
    inspect      nS of deltas, without hashing
    rest         what is left of the measured whole: Python, page faults, threads that wake and wait, statements

The costs are measured alone and in a warm cache, in the same run; the counts are of steps that move whole models and deltas,
in a round whose files are written over. So each row but the total is derived, not measured; `--profile` measures. All rows but
the last are what must be done in any case where every byte is verified, durable and recomputed: `least` is their sum beside
bare gRPC, which does the first three.
"""

from __future__ import annotations

from dataclasses import dataclass

from measuring.federation import Settings
from measuring.machine import Limits


@dataclass(frozen=True, slots=True)
class UnitCosts:
    """Processor seconds for a GB of deltas, without hashing."""

    fold: float
    inspect: float


@dataclass(frozen=True, slots=True)
class Counts:
    """How often a round handles S bytes."""

    moved: int
    copied: int
    hashed: int
    read: int
    written_over: int
    folded: int


def counts(participants: int) -> Counts:
    """As docs/performance.md#where-the-time-goes counts them."""
    n = participants
    return Counts(
        moved=2 * n,
        copied=2 * n,
        # the agent: what came down, its delta taken in; the coordinator: what came, what is folded; base and new model
        hashed=2 * n + 2 * n + 2,
        # the agent: delta taken in, delta sent; the coordinator: what is sent, inspected, folded; base
        read=2 * n + 3 * n + 1,
        written_over=2 * n + 1,  # base models at the agents, deltas and the new model at the coordinator
        folded=n,
    )


def derived_seconds(settings: Settings, limits: Limits, unit: UnitCosts, bare_seconds: float) -> dict[str, float]:
    """Processor seconds of a round by step, everybody together.

    Args:
        bare_seconds: those of moving the same bytes through bare gRPC, both sides.
    """
    count, gigabytes = counts(settings.participants), settings.bytes / 1e9
    tls = count.moved * gigabytes * (1 / limits.seal + 1 / limits.open)
    sockets = count.moved * gigabytes / limits.sockets
    return {
        "TLS": tls,
        "sockets": sockets,
        "gRPC": max(0.0, bare_seconds - tls - sockets),
        "copies": count.copied * gigabytes / limits.memcpy,
        "hash": count.hashed * gigabytes / limits.blake3,
        "files": gigabytes * (count.read / limits.cache_read + count.written_over / limits.cache_over),
        "fold": count.folded * gigabytes * unit.fold,
        "inspect": count.folded * gigabytes * unit.inspect,
    }
