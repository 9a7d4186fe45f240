"""What people at the institution ordered: the bridge from commands to the daemon, through the journal's file.

A command writes an order, durably; the daemon looks at each pass of its loop and acts, at once or at its next start. So a
command never waits for a daemon, works where none runs, and an order survives every crash.

    pause     {"until": RFC 3339 or "", "now": bool}    standing, until resumed or the time is over
    leave     {"after_round": bool}                      standing, until the institution has left
    rotate    {}                                         once: a new signing key
    renew     {}                                         once: a new certificate, before it is time for one
    decision  one a plan: accept or refuse, with the digest of a data-use agreement
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from participant.memory.database import JournalFile

OrderKind = Literal["pause", "leave", "rotate", "renew"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (kind TEXT PRIMARY KEY, payload TEXT NOT NULL, at TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS decisions (
    plan TEXT PRIMARY KEY, accept INTEGER NOT NULL, agreement TEXT NOT NULL, reasons TEXT NOT NULL, at TEXT NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class Order:
    """A standing order."""

    kind: OrderKind
    payload: dict[str, Any]
    at: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decided about a plan; `plan` is the plan statement's digest."""

    plan: str
    accept: bool
    agreement: str
    """SHA-256 of a data-use agreement, hexadecimal, or empty."""
    reasons: tuple[str, ...]
    """Codes; empty for an acceptance."""
    at: str


class Orders:
    """Thread-safe, and safe beside other processes; each write is durable when it returns."""

    def __init__(self, path: Path) -> None:
        self._file = JournalFile(path, _SCHEMA)

    def close(self) -> None:
        self._file.close()

    def give(self, order: Order) -> None:
        """Put an order in the place of the last one of its kind."""
        self._file.write(
            "INSERT OR REPLACE INTO orders VALUES (?, ?, ?)", (order.kind, json.dumps(order.payload), order.at)
        )

    def get(self, kind: OrderKind) -> Order | None:
        """The standing order of that kind."""
        rows = self._file.read("SELECT kind, payload, at FROM orders WHERE kind = ?", (kind,))
        return Order(rows[0][0], json.loads(rows[0][1]), rows[0][2]) if rows else None

    def clear(self, kind: OrderKind) -> bool:
        """Take an order back, or note that it was carried out; whether there was one."""
        return self._file.write("DELETE FROM orders WHERE kind = ?", (kind,)) > 0

    def decide(self, decision: Decision) -> None:
        """Decide about a plan; a later decision takes the place of an earlier one until the answer is signed."""
        self._file.write(
            "INSERT OR REPLACE INTO decisions VALUES (?, ?, ?, ?, ?)",
            (decision.plan, decision.accept, decision.agreement, json.dumps(decision.reasons), decision.at),
        )

    def decision(self, plan: str) -> Decision | None:
        """What was decided about the plan of that digest."""
        rows = self._file.read("SELECT plan, accept, agreement, reasons, at FROM decisions WHERE plan = ?", (plan,))
        if not rows:
            return None
        digest, accept, agreement, reasons, at = rows[0]
        return Decision(digest, bool(accept), agreement, tuple(json.loads(reasons)), at)
