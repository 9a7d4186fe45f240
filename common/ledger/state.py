"""What a ledger says, as values: members, runs, rounds. Folded from statements by common.ledger.rules, never changed in place.

LedgerState ── roster ── members
    └── runs ── RunRecord ── answers, releases
                    └── rounds ── RoundRecord ── contributions, attestations
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

from common.blobs.reference import BlobRef
from common.ledger.merkle import TreeHead
from common.ledger.places import Layered
from common.statements.kinds import (
    Answer,
    Attestation,
    Contribution,
    Control,
    Genesis,
    Kind,
    Member,
    PlanStatement,
    Refusal,
    Release,
    Roster,
    RoundClosed,
    RoundOpened,
)

K = TypeVar("K")
V = TypeVar("V")


def with_entry(mapping: Mapping[K, V], key: K, value: V) -> Mapping[K, V]:
    """A new read-only mapping with one entry set."""
    return MappingProxyType({**mapping, key: value})


@dataclass(frozen=True, slots=True)
class Place:
    """Where a statement stands: its index and its payload's SHA-256."""

    index: int
    digest: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Answered:
    """An institution's answer to a plan, in the ledger."""

    place: Place
    answer: Answer


@dataclass(frozen=True, slots=True)
class Contributed:
    """An institution's contribution to a round, in the ledger."""

    place: Place
    contribution: Contribution


@dataclass(frozen=True, slots=True)
class Attested:
    """An auditor's word on a closed round, in the ledger."""

    place: Place
    attestation: Attestation


@dataclass(frozen=True, slots=True)
class Released:
    """A model of a run that left the consortium, in the ledger."""

    place: Place
    release: Release


@dataclass(frozen=True, slots=True)
class Departure:
    """An institution left; `erased` is the coordinator's word that it holds none of its deltas any more."""

    place: Place
    erased: Place | None = None


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a new lineage begins, and the tree of the one before that is given up from there on."""

    place: Place
    given_up: TreeHead

    def gave_up(self, head: TreeHead) -> bool:
        """Whether that tree, which is not this ledger's, may be of the lineage that was given up here."""
        return head == self.given_up or self.place.index < head.size < self.given_up.size


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """One round as far as the ledger tells."""

    place: Place
    opened: RoundOpened
    contributions: Mapping[str, Contributed] = field(default_factory=lambda: MappingProxyType({}))
    closed: RoundClosed | None = None
    closed_place: Place | None = None
    attestations: Mapping[str, Attested] = field(default_factory=lambda: MappingProxyType({}))
    wanted: int | None = None
    """How many contributions the plan asks for; the cohort has more with over-selection."""
    turn: str = ""
    """With round-robin: the place in the ring of the last whose turn it was."""
    extended_to: str | None = None
    """The deadline that a control gave it, if one did."""
    rolled_back: bool = False
    """Whether the run went back to before this round: nothing of it is in the model."""

    @property
    def number(self) -> int:
        return self.opened.round

    @property
    def deadline(self) -> str:
        """When its last stage ends: as it was opened, or as the newest control says."""
        return self.extended_to or self.opened.stages[-1].deadline

    @property
    def enough(self) -> int:
        """With so many contributions the round takes no more."""
        return len(self.opened.cohort) if self.wanted is None else self.wanted

    @property
    def is_full(self) -> bool:
        """Whether all the contributions are in that the plan asks for."""
        return len(self.contributions) >= self.enough

    @property
    def missing(self) -> tuple[str, ...]:
        """Members of the cohort that have not contributed."""
        return tuple(name for name in self.opened.cohort if name not in self.contributions)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run as far as the ledger tells."""

    place: Place
    statement: PlanStatement
    answers: Mapping[str, Answered] = field(default_factory=lambda: MappingProxyType({}))
    rounds: tuple[RoundRecord, ...] = ()
    paused: bool = False
    ended: Control | None = None
    releases: tuple[Released, ...] = ()
    extended_to: int | None = None
    """Training rounds in all, where a control gave the run more than its plan says."""
    roll_back: Place | None = None
    """The newest control that took rounds back."""

    @property
    def run(self) -> str:
        return self.statement.run

    @property
    def current(self) -> RoundRecord | None:
        """The newest round, open or closed."""
        return self.rounds[-1] if self.rounds else None

    @property
    def open_round(self) -> RoundRecord | None:
        """The round that is open, if one is."""
        return self.rounds[-1] if self.rounds and self.rounds[-1].closed is None else None

    @property
    def rounds_planned(self) -> int:
        """Training rounds that the run is to commit: the plan's, or as a control extended them."""
        return self.extended_to or self.statement.plan.rounds

    @property
    def standing(self) -> tuple[RoundRecord, ...]:
        """Rounds that were not rolled back: those that the run's model descends from, and the open one."""
        return tuple(record for record in self.rounds if not record.rolled_back)

    @property
    def newest_closed(self) -> RoundRecord | None:
        """The newest closed round that was not rolled back."""
        standing = (record for record in reversed(self.rounds) if not record.rolled_back)
        return next((record for record in standing if record.closed is not None), None)

    @property
    def tip(self) -> Place:
        """What the next round or control names as its parent: the newest round-closed or roll-back, or the plan."""
        closed = next((record.closed_place for record in reversed(self.rounds) if record.closed_place), self.place)
        return self.roll_back if self.roll_back is not None and self.roll_back.index > closed.index else closed

    @property
    def model(self) -> BlobRef:
        """The newest committed model."""
        newest = self.newest_closed
        return newest.closed.outputs.model if newest and newest.closed else self.statement.initial.model

    @property
    def server_state(self) -> BlobRef | None:
        """The newest server optimizer state."""
        newest = self.newest_closed
        return newest.closed.outputs.server_state if newest and newest.closed else None

    @property
    def accepted(self) -> Mapping[str, Answer]:
        """Acceptances by institution."""
        return {name: entry.answer for name, entry in self.answers.items() if entry.answer.accept}

    @property
    def protocol_version(self) -> int:
        """What the run is conducted in: the oldest that an acceptance answered, or the offer's newest where nobody has."""
        answered = [answer.protocol_version for answer in self.accepted.values()]
        return min(answered, default=self.statement.protocol_versions.most)

    def committed(self, task: str = "train") -> tuple[RoundRecord, ...]:
        """Rounds of that task that changed or measured the model, but for those that were rolled back."""
        return tuple(record for record in self.ever_committed(task) if not record.rolled_back)

    def ever_committed(self, task: str = "train") -> tuple[RoundRecord, ...]:
        """The same, and those that were rolled back since: what the ledger tells of can be checked for ever."""
        return tuple(
            record
            for record in self.rounds
            if record.closed is not None and record.closed.outcome == "committed" and record.opened.task == task
        )

    def with_round(self, record: RoundRecord) -> RunRecord:
        """The run with the round of that number replaced, or with one more; rounds are numbered from 1 without gaps."""
        before, after = self.rounds[: record.number - 1], self.rounds[record.number :]
        return replace(self, rounds=(*before, record, *after))


@dataclass(frozen=True, slots=True)
class LedgerState:
    """The fold of a ledger's first `size` statements."""

    genesis: Genesis
    genesis_place: Place
    size: int
    roster: Roster | None = None
    roster_place: Place | None = None
    runs: Mapping[str, RunRecord] = field(default_factory=lambda: MappingProxyType({}))
    refusals: Mapping[tuple[str, str | None, int | None, str], Place] = field(
        default_factory=lambda: MappingProxyType({})
    )
    refusal_list: tuple[tuple[Place, Refusal], ...] = ()
    departures: Mapping[str, Departure] = field(default_factory=lambda: MappingProxyType({}))
    places: Layered[Place] = field(default_factory=Layered)
    lineages: tuple[Lineage, ...] = ()

    @property
    def lineage(self) -> int:
        """How many entries there are up to the statement that began the newest lineage; 0: there is one lineage alone."""
        return self.lineages[-1].place.index + 1 if self.lineages else 0

    def member(self, name: str) -> Member | None:
        """The roster's member of that name, whatever its status."""
        return self.roster.member(name) if self.roster else None

    @property
    def active_trainers(self) -> tuple[str, ...]:
        """Names of members that train, ascending."""
        members = self.roster.members if self.roster else ()
        return tuple(
            member.name
            for member in members
            if member.status == "active" and "trainer" in member.roles and member.name not in self.departures
        )

    @property
    def active_names(self) -> frozenset[str]:
        """All who are members now, and have not said that they leave."""
        members = self.roster.members if self.roster else ()
        active = (member.name for member in members if member.status == "active")
        return frozenset(active).difference(self.departures)

    def is_active(self, name: str) -> bool:
        """Whether that institution is a member now, and has not said that it leaves."""
        member = self.member(name)
        return member is not None and member.status == "active" and name not in self.departures

    @property
    def active_runs(self) -> tuple[RunRecord, ...]:
        """Runs that have not ended, oldest first."""
        return tuple(run for run in self.runs.values() if run.ended is None)

    def round_by_opening(self, digest: str) -> tuple[RunRecord, RoundRecord] | None:
        """The run and round that this round-opened statement opened."""
        for run in self.runs.values():
            for record in reversed(run.rounds):
                if record.place.digest == digest:
                    return run, record
        return None
