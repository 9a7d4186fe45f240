"""What this institution measured and did, for its own eyes: nothing of it leaves the house.

work           time that the worker spent on a round: budgets are counted from it
measurements   how the consortium's model does on this institution's own held-out text, by round
alone          how a model trained on this institution's text alone does on the same text (`gain`)
events         changes of the policy, orders, decisions, what the agent did about them: `participant log`
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from participant.memory.database import JournalFile

EVENTS_KEPT = 10_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS work (
    id INTEGER PRIMARY KEY, run TEXT NOT NULL, round INTEGER NOT NULL, started_at TEXT NOT NULL, seconds REAL NOT NULL,
    device TEXT NOT NULL, tokens INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS measurements (
    run TEXT NOT NULL, round INTEGER NOT NULL, task TEXT NOT NULL, loss_sum_fixed INTEGER NOT NULL,
    num_tokens INTEGER NOT NULL, at TEXT NOT NULL, PRIMARY KEY (run, round)
);
CREATE TABLE IF NOT EXISTS alone (
    run TEXT PRIMARY KEY, steps INTEGER NOT NULL, loss_sum_fixed INTEGER NOT NULL, num_tokens INTEGER NOT NULL,
    at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, at TEXT NOT NULL, event TEXT NOT NULL, fields TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Work:
    """A stretch of the worker's time; `device` is cpu or the GPU's name."""

    run: str
    round: int
    started_at: str
    seconds: float
    device: str
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Measurement:
    """Held-out loss on own text of the model that a round started from; nats × 2^16."""

    run: str
    round: int
    task: str
    loss_sum_fixed: int
    num_tokens: int
    at: str


@dataclass(frozen=True, slots=True)
class Alone:
    """Held-out loss on own text of a model trained here alone, for so many steps."""

    run: str
    steps: int
    loss_sum_fixed: int
    num_tokens: int
    at: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened here; `fields` are names, codes and numbers, never text of the data."""

    at: str
    event: str
    fields: dict[str, Any]


class Records:
    """Thread-safe, and safe beside other processes. Durable at the latest with the next statement that is signed here."""

    def __init__(self, path: Path) -> None:
        self._file = JournalFile(path, _SCHEMA, synced=False)

    def close(self) -> None:
        self._file.close()

    def worked(self, work: Work) -> None:
        self._file.write(
            "INSERT INTO work (run, round, started_at, seconds, device, tokens) VALUES (?, ?, ?, ?, ?, ?)",
            (work.run, work.round, work.started_at, work.seconds, work.device, work.tokens),
        )

    def work(self, run: str | None = None, since: str = "") -> list[Work]:
        """Stretches of work of one run, or of all, that began from `since` on; oldest first."""
        query = "SELECT run, round, started_at, seconds, device, tokens FROM work WHERE started_at >= ?"
        if run is None:
            return [Work(*row) for row in self._file.read(query + " ORDER BY id", (since,))]
        return [Work(*row) for row in self._file.read(query + " AND run = ? ORDER BY id", (since, run))]

    def measured(self, measurement: Measurement) -> None:
        entry = (measurement.run, measurement.round, measurement.task, measurement.loss_sum_fixed)
        self._file.write(
            "INSERT OR REPLACE INTO measurements VALUES (?, ?, ?, ?, ?, ?)",
            (*entry, measurement.num_tokens, measurement.at),
        )

    def measurements(self, run: str) -> list[Measurement]:
        """By ascending round."""
        return [
            Measurement(*row)
            for row in self._file.read("SELECT * FROM measurements WHERE run = ? ORDER BY round", (run,))
        ]

    def trained_alone(self, alone: Alone) -> None:
        self._file.write(
            "INSERT OR REPLACE INTO alone VALUES (?, ?, ?, ?, ?)",
            (alone.run, alone.steps, alone.loss_sum_fixed, alone.num_tokens, alone.at),
        )

    def alone(self, run: str) -> Alone | None:
        rows = self._file.read("SELECT * FROM alone WHERE run = ?", (run,))
        return Alone(*rows[0]) if rows else None

    def note(self, event: Event) -> None:
        """Remember an event; the oldest beyond EVENTS_KEPT go."""
        with self._file.transaction() as connection:
            connection.execute(
                "INSERT INTO events (at, event, fields) VALUES (?, ?, ?)",
                (event.at, event.event, json.dumps(event.fields)),
            )
            connection.execute("DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?", (EVENTS_KEPT,))

    def events(self, limit: int = 100) -> list[Event]:
        """The newest ones, oldest first."""
        rows = self._file.read("SELECT at, event, fields FROM events ORDER BY id DESC LIMIT ?", (limit,))
        return [Event(at, event, json.loads(fields)) for at, event, fields in reversed(rows)]
