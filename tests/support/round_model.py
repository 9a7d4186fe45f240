"""What a run should do, as a small model beside the engine: written from docs/protocol.md#round, it shares no code with it.

    model = RunModel(names=("east", "north", "south"), quorum=2, rounds=1, deadline_seconds=600, lease_seconds=60)
    writes = model.contribute(Given("north", 1))
    next(writes)          # "taken": the first durable write is due, and not made
    next(writes)          # made; StopIteration.value is the refusal's code, or ""
    model.restart()       # what was not written, and what was in memory only, is gone

Each action is a generator that stops before every durable write: whoever drives it ends the process between any two. What a
model of weights is, is left out: a model's name is its lineage, the sealed sets that led to it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

MOST_ABANDONED_IN_A_ROW = 3

Writes = Generator[str, None, str]
"""Names of durable writes, each before it is made; returns the refusal's code, or nothing."""


@dataclass(frozen=True, slots=True, order=True)
class Given:
    """One statement that an institution may sign for its slot in a round; versions differ in what they say."""

    institution: str
    round: int
    version: int = 0


Lineage = tuple[frozenset[Given], ...]
"""The sealed sets of the committed training rounds that led to a model, oldest first."""


@dataclass(slots=True)
class RoundModel:
    """A round. `outcome` is empty while it is open, `sealed` while it takes contributions."""

    number: int
    task: str
    base: Lineage
    cohort: tuple[str, ...]
    deadline: float
    given: dict[str, Given] = field(default_factory=dict)
    sealed: str = ""
    outcome: str = ""
    reason: str = ""

    @property
    def result(self) -> Lineage:
        """The model that it leaves."""
        changes = self.outcome == "committed" and self.task == "train"
        return (*self.base, frozenset(self.given.values())) if changes else self.base


class RunModel:
    """One run that asks everyone, from its plan on. Times are seconds of one clock that begins at 0."""

    def __init__(
        self, names: Sequence[str], *, quorum: int, rounds: int, deadline_seconds: float, lease_seconds: float
    ) -> None:
        self.names, self.quorum, self.planned = tuple(sorted(names)), quorum, rounds
        self.deadline_seconds, self.lease_seconds = deadline_seconds, lease_seconds
        self.now = 0.0
        self.answers: dict[str, bool] = {}
        self.rounds: list[RoundModel] = []
        self.taken: set[Given] = set()
        self.refusals: set[tuple[str, int | None, str]] = set()
        self.paused = False
        self.ended = ""
        self.restart()

    def restart(self) -> None:
        """Leases are all that is in memory only."""
        self._seen_at: dict[int, float] = {}
        self._leased_from: dict[tuple[int, str], float] = {}

    @property
    def current(self) -> RoundModel | None:
        return self.rounds[-1] if self.rounds else None

    @property
    def open_round(self) -> RoundModel | None:
        return self.rounds[-1] if self.rounds and not self.rounds[-1].outcome else None

    @property
    def model(self) -> Lineage:
        return self.rounds[-1].result if self.rounds else ()

    # --- what institutions do ----------------------------------------------------------------------------------------

    def answer(self, name: str, accept: bool) -> Writes:
        """An answer to the plan; the same again is the same statement."""
        if self.answers.get(name) == accept:
            return ""
        if self.ended:
            return (yield from self._refuse(name, None, "round-not-open"))
        if name in self.answers:
            return (yield from self._refuse(name, None, "slot-taken"))
        yield "answered"
        self.answers[name] = accept
        return ""

    def contribute(self, given: Given) -> Writes:
        """A contribution, for whatever round it was signed and whenever it comes."""
        if given in self.taken:
            return ""
        code = self._objection(given)
        if code:
            return (yield from self._refuse(given.institution, given.round, code))
        yield "taken"
        self.rounds[-1].given[given.institution] = given
        self.taken.add(given)
        return ""

    def report(self, name: str) -> None:
        """A sign of life, which renews a lease."""
        current = self.open_round
        if current is not None and name in current.cohort:
            self._leased_from[current.number, name] = self.now

    def _objection(self, given: Given) -> str:
        current = self.open_round
        if self.ended or current is None or current.number != given.round:
            return "round-not-open"
        if given.institution in current.given:
            return "slot-taken"
        return "round-not-open" if current.sealed or self.now >= current.deadline else ""

    def _refuse(self, name: str, number: int | None, code: str) -> Writes:
        """One refusal for each institution, round and code; rounds other than the newest share one place."""
        key = (name, number, code)
        if key not in self.refusals and (self.current is None or number != self.current.number):
            key = (name, None, code)
        if key not in self.refusals:
            yield "refused"
            self.refusals.add(key)
        return code

    # --- what the operator does --------------------------------------------------------------------------------------

    def pause(self, paused: bool) -> Writes:
        if self.ended:
            return "unknown-object"
        yield "controlled"
        self.paused = paused
        return ""

    def abort(self) -> Writes:
        if self.ended:
            return "unknown-object"
        if self.open_round is not None:
            yield from self._close(self.open_round, "abandoned", "aborted")
        return (yield from self._end("aborted"))

    # --- what the coordinator does by itself -------------------------------------------------------------------------

    def advance(self) -> Writes:
        """As far as it goes now."""
        while not self.ended:
            before = self._standing
            yield from self._step()
            if self._standing == before:
                break
        return ""

    @property
    def _standing(self) -> tuple[object, ...]:
        current = self.current
        return (len(self.rounds), current and current.sealed, current and current.outcome)

    def _step(self) -> Writes:
        current = self.open_round
        if current is None:
            return (yield from self._between())
        if current.sealed:
            return (yield from self._finish(current))
        reason = self._why_seal(current)
        if reason:
            yield "round-sealed"
            current.sealed = reason
        return ""

    def _between(self) -> Writes:
        """No round is open. An abort that was begun is ended, whether the run was paused or not."""
        current = self.current
        if current is not None and current.reason == "aborted":
            return (yield from self._end("aborted"))
        if self.paused:
            return ""
        if current is None:
            return (yield from self._gather())
        if current.task == "evaluate":
            return (yield from self._end("rounds-done"))
        newest = [each.outcome for each in self.rounds[-MOST_ABANDONED_IN_A_ROW:]]
        if newest == ["abandoned"] * MOST_ABANDONED_IN_A_ROW:
            return (yield from self._end("too-many-abandoned-rounds"))
        committed = sum(each.outcome == "committed" for each in self.rounds)
        return (yield from self._open("evaluate" if committed == self.planned else "train"))

    def _gather(self) -> Writes:
        accepted = sum(self.answers.values())
        if len(self.answers) < len(self.names) and self.now < self.deadline_seconds:
            return ""
        return (yield from self._open("train") if accepted >= self.quorum else self._end("too-few-acceptances"))

    def _open(self, task: str) -> Writes:
        yield "round-opened"
        cohort = tuple(name for name in self.names if self.answers.get(name))
        deadline = self.now + self.deadline_seconds
        self.rounds.append(RoundModel(len(self.rounds) + 1, task, self.model, cohort, deadline))
        return ""

    def _why_seal(self, current: RoundModel) -> str:
        seen_at = self._seen_at.setdefault(current.number, self.now)
        missing = [name for name in current.cohort if name not in current.given]
        if not missing:
            return "all-contributed"
        if self.now >= current.deadline:
            return "deadline-passed"
        leased_from = [self._leased_from.get((current.number, name), seen_at) for name in missing]
        enough = current.task == "evaluate" or len(current.given) >= self.quorum
        silent = all(self.now - each > self.lease_seconds for each in leased_from)
        return "leases-lapsed" if enough and silent else ""

    def _finish(self, current: RoundModel) -> Writes:
        if len(current.given) < (self.quorum if current.task == "train" else 1):
            return (yield from self._close(current, "abandoned", "no-quorum"))
        if current.task == "train":
            yield "model-written"
        return (yield from self._close(current, "committed", current.sealed))

    def _close(self, current: RoundModel, outcome: str, reason: str) -> Writes:
        yield "round-closed"
        current.outcome, current.reason = outcome, reason
        return ""

    def _end(self, reason: str) -> Writes:
        yield "run-ended"
        self.ended = reason
        return ""
