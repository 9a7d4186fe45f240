"""What a run has used here, from this institution's own records, and what one more round is expected to take.

Hours are counted from memory/records.py (time of the worker), bytes from what the journal booked as sent and from the models
of the rounds that were worked on. Nothing here is guessed: what was never measured is None, and breaks no budget.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

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
    """What the run has used here so far.

    Traffic is what was booked as sent for it, the model of the first round that was worked on, and of each later one what
    training changes; of a download that broke off and began again, what came twice is not counted.
    """
    work = records.work(run.run)
    worked_on = {entry.round for entry in work}
    fetched = sum(record.number in worked_on for record in run.rounds)
    down = run.statement.initial.model.size + (fetched - 1) * down_bytes(run.statement) if fetched else 0
    tokenizer = run.statement.initial.tokenizer.size if work else 0
    return replace(
        _hours(work), traffic_bytes=_sent(run, journal) + down + tokenizer, seconds_per_round=_seconds_per_round(work)
    )


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


def _sent(run: RunRecord, journal: Journal) -> int:
    """Bytes that the journal booked for this run's answer, contributions and their blobs."""
    ours = set()
    for slot in (answer_slot(run), *(contribution_slot(record) for record in run.rounds)):
        signed = journal.signed(slot)
        if signed is None:
            continue
        ours.add(signed.digest)
        predicate = parse(signed.envelope).predicate
        if isinstance(predicate, Contribution):
            ours |= {ref.root for ref in predicate.blobs.values()}
    return sum(entry.bytes for entry in journal.egress() if entry.digest in ours)
