"""Run after run until enough faults were injected; then what was lost, and what came out wrong.

Where every member of the cohort still delivers, which it does here since no deadline passes, each run must end with the
undisturbed run's model, bit for bit, with every contribution in every round, and each slot signed once.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from common.ledger.state import RunRecord
from common.statements.kinds import Kind as StatementKind
from tests.faults.disturbed import DisturbedFederation
from tests.faults.schedule import Fault, Kind, faults
from tests.support.drafts import make_draft

ROUNDS = 6
FAULTS_A_RUN = 8


@dataclass(slots=True)
class Tally:
    """What happened to faults of one kind, by the run that they were injected into."""

    injected: int = 0
    recovered: int = 0


@dataclass(slots=True)
class Outcome:
    """Of a whole campaign."""

    tallies: dict[Kind, Tally] = field(default_factory=lambda: {kind: Tally() for kind in Kind})
    runs: int = 0
    lost: list[str] = field(default_factory=list)
    """What was in no ledger although it was signed, or missing from a round; a sentence each."""
    wrong: list[str] = field(default_factory=list)
    """Models other than the undisturbed one, slots signed twice; a sentence each."""

    @property
    def injected(self) -> int:
        return sum(tally.injected for tally in self.tallies.values())

    @property
    def clean(self) -> bool:
        return not self.lost and not self.wrong


def campaign(folder: Path, *, seed: int, kills: int, tell: Callable[[str], None] = lambda line: None) -> Outcome:
    """At least `kills` faults.

    Raises:
        AssertionError: a run did not end, or a daemon ended by itself; says which.
    """
    outcome, drawn = Outcome(), Iterator[Fault]
    with DisturbedFederation(folder) as federation:
        drawn = faults(seed, federation.names)
        federation.start_participants()
        undisturbed = federation.wait_until_ended(_start(federation, "undisturbed-01")).model
        for number in count(1):
            if outcome.injected >= kills:
                break
            run = f"disturbed-{number:03d}"
            suffered = _disturb(federation, _start(federation, run), drawn, min(FAULTS_A_RUN, kills - outcome.injected))
            record = federation.wait_until_ended(run)
            before = len(outcome.lost) + len(outcome.wrong)
            _judge(outcome, record, undisturbed.root)
            recovered = len(outcome.lost) + len(outcome.wrong) == before
            for kind, times in Counter(fault.kind for fault in suffered).items():
                outcome.tallies[kind].injected += times
                outcome.tallies[kind].recovered += times if recovered else 0
            outcome.runs = number
            tell(
                f"{run}: {', '.join(fault.kind for fault in suffered)}: {'recovered' if recovered else 'NOT RECOVERED'}"
            )
        judge_journals(outcome, federation)
    return outcome


def _start(federation: DisturbedFederation, run: str) -> str:
    return federation.start_run(make_draft(federation.folder / "drafts" / run, run=run, rounds=ROUNDS))


def _disturb(federation: DisturbedFederation, run: str, drawn: Iterator[Fault], most: int) -> list[Fault]:
    """Faults until the run has ended, at most so many."""
    suffered: list[Fault] = []
    while len(suffered) < most:
        record = federation.run(run)
        if record is not None and record.ended is not None:
            break
        fault = next(drawn)
        federation.suffer(fault)
        suffered.append(fault)
    return suffered


def _judge(outcome: Outcome, record: RunRecord, undisturbed: str) -> None:
    if record.ended is None or record.ended.reason != "rounds-done" or len(record.rounds) != ROUNDS + 1:
        outcome.lost.append(
            f"{record.run} ended by {record.ended and record.ended.reason}, {len(record.rounds)} rounds"
        )
    for entry in record.rounds:
        if entry.closed is None or entry.closed.outcome != "committed" or entry.missing:
            outcome.lost.append(
                f"{record.run}, round {entry.number}: missing {', '.join(entry.missing) or 'its commit'}"
            )
    if record.model.root != undisturbed:
        outcome.wrong.append(f"{record.run} ended with model {record.model.root[:16]}, undisturbed {undisturbed[:16]}")


def judge_journals(outcome: Outcome, federation: DisturbedFederation) -> None:
    """What each institution signed against what the ledger holds of it."""
    kinds = {StatementKind.ANSWER, StatementKind.CONTRIBUTION}
    held: dict[str, list[str]] = {name: [] for name in federation.names}
    for entry in federation.entries():
        if entry.statement.kind in kinds:
            held[entry.statement.predicate.institution].append(entry.statement.digest)  # type: ignore[attr-defined]
    for name in federation.names:
        with closing(sqlite3.connect(federation.home(name) / "journal.sqlite")) as connection:
            signed = [digest for (digest,) in connection.execute("SELECT digest FROM signed")]
        outcome.lost += [f"{name} signed {digest[:16]}; no ledger holds it" for digest in set(signed) - set(held[name])]
        strange = set(held[name]) - set(signed)
        outcome.wrong += [f"the ledger holds {digest[:16]}, which {name} knows nothing of" for digest in strange]
        twice = [digest for digest, times in Counter(held[name]).items() if times > 1]
        outcome.wrong += [f"{name}: {digest[:16]} stands twice" for digest in twice]
