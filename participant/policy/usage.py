"""What a run has used here, from this institution's own records, and what one more round is expected to take.

Hours are counted from memory/records.py (time of the worker), bytes from what the journal booked as sent and from the models
of the rounds that were worked on. Nothing here is guessed: what was never measured is None, and breaks no budget.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from common.ledger.downlink import later_model_bytes
from common.ledger.state import RunRecord
from common.statements.envelope import parse
from common.statements.kinds import Contribution, PlanStatement
from participant.memory.journal import Journal
from participant.memory.records import Records, Work
from participant.policy.estimates import down_bytes, estimate, parameters
from participant.tasks import answer_slot, contribution_slot

CPU = "cpu"
SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one run at this institution."""

    gpu_hours: float = 0.0
    cpu_hours: float = 0.0
    traffic_bytes: int = 0
    rounds: int = 0
    """Rounds that were worked on, the last evaluation included."""
    seconds_per_round: float | None = None
    """Of the worker, for one training round: measured in this run, or scaled from another one; None: never measured."""
    device: str = ""
    """What the worker ran on last: cpu, or the GPU's name; empty: it never did."""

    @property
    def on_gpu(self) -> bool:
        return self.device not in {"", CPU}

    def hours(self, *, gpu: bool) -> float:
        """Of the worker on a GPU, or on the CPU."""
        return self.gpu_hours if gpu else self.cpu_hours

    def expected_hours(self, rounds: int, *, gpu: bool) -> float | None:
        """hours used + rounds to come × seconds_per_round / 3600, on that kind of device; None: not measured on it."""
        if self.seconds_per_round is None or self.on_gpu != gpu:
            return None
        return self.hours(gpu=gpu) + max(0, rounds - self.rounds) * self.seconds_per_round / SECONDS


def usage_of(run: RunRecord, records: Records, journal: Journal) -> Usage:
    """What the run has used here so far: see `UsageCounter`."""
    return UsageCounter(records, journal).of(run)


class UsageCounter:
    """What runs have used, for one thread that asks again and again: what cannot change is read once.

    Traffic is what was booked as sent for a run, the model of the first round that was worked on, and of each later one what
    training changes, or the applied deltas that lead there from the one before; of a download that broke off and began again,
    what came twice is not counted.
    """

    def __init__(self, records: Records, journal: Journal) -> None:
        self._records, self._journal = records, journal
        self._booked: Counter[str] = Counter()
        self._position = 0
        self._settled: dict[str, tuple[int, frozenset[str]]] = {}
        self._signed: dict[str, tuple[str, ...]] = {}

    def of(self, run: RunRecord) -> Usage:
        """What the run has used here so far."""
        work = self._records.work(run.run)
        worked_on = {entry.round for entry in work}
        tokenizer = run.statement.initial.tokenizer.size if work else 0
        traffic = self._sent(run) + _models_brought(run, worked_on) + tokenizer
        return replace(_hours(work), traffic_bytes=traffic, seconds_per_round=_seconds_per_round(work))

    def _sent(self, run: RunRecord) -> int:
        """Bytes that the journal booked for this run's answer, contributions and their blobs."""
        for position, count, digest in self._journal.booked_after(self._position):
            self._booked[digest] += count
            self._position = position
        counted, ours = self._settled.get(run.run, (0, frozenset()))
        ended = [record for record in run.rounds[:-1] if record.number > counted]  # nothing is signed for them any more
        if ended:
            ours |= self._named(contribution_slot(record) for record in ended)
            self._settled[run.run] = ended[-1].number, ours
        ours |= self._named([answer_slot(run), *(contribution_slot(record) for record in run.rounds[-1:])])
        return sum(self._booked[digest] for digest in ours if digest in self._booked)

    def _named(self, slots: Iterable[str]) -> frozenset[str]:
        """Digests of what was signed for these slots, and of the blobs that it names."""
        return frozenset(digest for slot in slots for digest in self._named_for(slot))

    def _named_for(self, slot: str) -> tuple[str, ...]:
        if slot not in self._signed:
            signed = self._journal.signed(slot)
            if signed is None:
                return ()
            predicate = parse(signed.envelope).predicate
            blobs = predicate.blobs.values() if isinstance(predicate, Contribution) else ()
            self._signed[slot] = (signed.digest, *(ref.root for ref in blobs))  # what was signed for a slot stays
        return self._signed[slot]


def _models_brought(run: RunRecord, worked_on: set[int]) -> int:
    """Bytes of the base models of these rounds: the first one whole, later ones as they come to who holds the one before."""
    fetched = sum(record.number in worked_on for record in run.rounds)
    if not fetched:
        return 0
    whole = run.statement.initial.model.size
    if run.statement.plan.downlink is None:
        return whole + (fetched - 1) * down_bytes(run.statement)
    return whole + _brought_by_deltas(run, worked_on)


def _brought_by_deltas(run: RunRecord, worked_on: set[int]) -> int:
    """Bytes of all but the first of these models: the applied deltas since the one before, or what training changes if less."""
    most = later_model_bytes(run.statement, run.statement.initial.model.size)
    total, since, holds_one = 0, 0, False
    for record in run.rounds:
        if record.number in worked_on:
            total += min(since, most) if holds_one else 0
            since, holds_one = 0, True
        if record.closed is not None and record.closed.outputs.applied_delta is not None:
            since += record.closed.outputs.applied_delta.size
    return total


def expected_usage(statement: PlanStatement, runs: Mapping[str, RunRecord], records: Records) -> Usage:
    """The usage of a plan that has used nothing yet, with a round's seconds scaled from the newest work on other runs.

    A training round's time grows as parameters × tokens: seconds = seconds measured × (parameters × tokens a round of this
    plan) / (the same of the plan that was measured). Source: 6 × parameters × tokens operations, arXiv:2001.08361, section 2.1.
    """
    for work in reversed(records.work()):
        measured = runs.get(work.run)
        if measured is None or work.tokens <= 0 or work.seconds <= 0:
            continue
        effort = parameters(measured.statement) * work.tokens
        wanted = estimate(statement)
        seconds = work.seconds * wanted.parameters * wanted.tokens_per_round / effort
        return Usage(seconds_per_round=seconds, device=work.device)
    return Usage()


def _hours(work: list[Work]) -> Usage:
    def hours(chosen: Iterable[Work]) -> float:
        return sum(entry.seconds for entry in chosen) / SECONDS

    return Usage(
        gpu_hours=hours(entry for entry in work if entry.device != CPU),
        cpu_hours=hours(entry for entry in work if entry.device == CPU),
        rounds=len({entry.round for entry in work if entry.round > 0}),  # 0 is the data's preparation
        device=work[-1].device if work else "",
    )


def _seconds_per_round(work: list[Work]) -> float | None:
    """Of the newest round that trained, all its stretches together; None: none did."""
    trained = [entry.round for entry in work if entry.tokens > 0]
    return sum(entry.seconds for entry in work if entry.round == trained[-1]) if trained else None
