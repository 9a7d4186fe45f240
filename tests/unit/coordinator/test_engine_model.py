"""The engine beside a small model of a run (tests/support/round_model.py), driven by whatever hypothesis thinks of.

The real ledger, desk, engine, database and blobs; institutions whose messages get lost, come twice, late or in another order,
some of which sign a slot twice; a clock that moves on; an operator who pauses, resumes and aborts; and a coordinator that ends
between any two durable writes. After each step the ledger must say what the model says, and some things must hold whatever the
model says.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from common.blobs.reference import BlobRef
from common.errors import LLMasOSError
from common.ledger.rules import admit, start
from common.ledger.state import RoundRecord, RunRecord
from common.statements.envelope import parse
from common.statements.kinds import Contribution, RoundClosed, RoundOpened, SealedInput
from coordinator.aggregation import Aggregation
from coordinator.ports import Activity, Metrics
from coordinator.rounds.engine import Engine
from coordinator.rounds.phases import RunState
from coordinator.rounds.ports import Step
from coordinator.store.database import Transaction
from tests.support.coordinators import LEASE_SECONDS, NAMES, Coordinator, Crash
from tests.support.knives import Kill, Knife
from tests.support.participants import RUN
from tests.support.round_model import MOST_ABANDONED_IN_A_ROW, Given, Lineage, RunModel, Writes

P = TypeVar("P")

DEADLINE_SECONDS = 600
OTHER_PERPLEXITY = 7.0
"""Held-out perplexity in the second version of a contribution."""

MEMORY = Path("/dev/shm")
"""No power failure here, so nothing is gained by waiting for a disk."""

parsed = cache(parse)
names = st.sampled_from(NAMES)
kills = st.none() | st.builds(
    Kill, survives=st.sampled_from([0, 0, 1, 2]), moment=st.sampled_from(["before-write", "after-write", "at-step"])
)


@dataclass(frozen=True, slots=True)
class Message:
    """A signed contribution on its way."""

    given: Given
    envelope: bytes
    metrics: Metrics


class EngineBesideModel(RuleBasedStateMachine):
    """One run from its plan to its end."""

    models: ClassVar[dict[Lineage, BlobRef]] = {}
    """What each lineage led to, in all examples."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="llmasos-model-", dir=MEMORY if MEMORY.is_dir() else None))
        self.knife = Knife()
        self.coordinator = Coordinator(self.folder / "home", steps=self.knife)
        self.signed: dict[Given, Message] = {}
        self.wire: list[Message] = []
        self.receipts: dict[int, bytes] = {}

    @initialize(quorum=st.integers(1, 3), rounds=st.integers(1, 4), silent=st.sampled_from([*[""] * 9, *NAMES]))
    def plan(self, quorum: int, rounds: int, silent: str) -> None:
        self.coordinator.start_run(quorum=quorum, rounds=rounds, deadline_seconds=DEADLINE_SECONDS)
        self.model = RunModel(
            NAMES, quorum=quorum, rounds=rounds, deadline_seconds=DEADLINE_SECONDS, lease_seconds=LEASE_SECONDS
        )
        for name in NAMES:
            if name != silent:
                self.answer(name, True, None)
        self.advance(None)

    def teardown(self) -> None:
        try:
            if hasattr(self, "model"):
                self.it_ends()
        finally:
            self.coordinator.close()
            shutil.rmtree(self.folder)

    # --- institutions and their network ------------------------------------------------------------------------------

    @precondition(lambda self: len(self.model.answers) < len(NAMES))
    @rule(name=names, accept=st.sampled_from([True, True, True, False]), kill=kills)
    def answer(self, name: str, accept: bool, kill: Kill | None) -> None:
        fields: dict[str, Any] = {} if accept else {"accept": False, "reasons": ("not-interested",)}
        envelope = self.coordinator[name].an_answer(**fields).envelope
        self.both(lambda: self.send(name, envelope, None), self.model.answer(name, accept), kill)

    @precondition(lambda self: self.waits_for(self.model))
    @rule(name=names, version=st.sampled_from([0, 0, 0, 1]))
    def sign(self, name: str, version: int) -> None:
        """For the open round; version 1 is what only a liar, or a home that was restored, signs beside version 0."""
        current = self.model.open_round
        assert current is not None
        if name in current.cohort:
            self.wire.append(self.message(Given(name, current.number, version)))

    @precondition(lambda self: self.wire)
    @rule(which=st.integers(0, 11), again=st.booleans(), kill=kills)
    def deliver(self, which: int, again: bool, kill: Kill | None) -> None:
        """Any message that is on its way, perhaps not for the last time; what is never delivered was lost."""
        message = self.wire[which % len(self.wire)]
        if not again:
            self.wire.remove(message)
        self.contribute(message, kill)

    @precondition(lambda self: self.waits_for(self.model))
    @rule(order=st.permutations(NAMES), twice=st.booleans(), kill=kills)
    def everyone_contributes(self, order: list[str], twice: bool, kill: Kill | None) -> None:
        """Undisturbed, else few examples would come far; the first one perhaps signs its slot twice."""
        slots = self.slots(order)
        if twice:
            slots.insert(1, replace(slots[0], version=1))
        for message in [self.message(each) for each in slots]:
            self.contribute(message, None)
        self.advance(kill)

    @precondition(lambda self: self.waits_for(self.model))
    @rule(order=st.permutations(NAMES), of_leases=st.booleans(), late_after_seal=st.booleans(), kill=kills)
    def some_are_late(self, order: list[str], of_leases: bool, late_after_seal: bool, kill: Kill | None) -> None:
        """One contributes; leases lapse or the deadline passes; then the others' contributions come."""
        first, *others = [self.message(each) for each in self.slots(order)]
        self.contribute(first, None)
        self.advance(None)
        self.pass_time(int(LEASE_SECONDS) + 1 if of_leases else DEADLINE_SECONDS)
        if late_after_seal:
            self.advance(kill)
        for message in others:
            self.contribute(message, None)
        self.advance(None if late_after_seal else kill)

    # --- operator, clock, process ------------------------------------------------------------------------------------

    @precondition(lambda self: self.model.rounds and not self.model.ended)
    @rule(kill=kills)
    def pause_or_resume(self, kill: Kill | None) -> None:
        self.pass_time(1)
        paused = not self.model.paused
        action = "pause" if paused else "resume"
        self.both(lambda: self.coordinator.desk.control_run(RUN, action, ""), self.model.pause(paused), kill)

    @precondition(lambda self: len(self.model.rounds) > 2)
    @rule(kill=kills)
    def abort(self, kill: Kill | None) -> None:
        """Late, since nothing happens afterwards."""
        self.both(lambda: self.coordinator.desk.control_run(RUN, "abort", ""), self.model.abort(), kill)

    @rule(seconds=st.sampled_from([1, 40, int(LEASE_SECONDS) + 1]), heard=st.lists(names, unique=True))
    def pass_time(self, seconds: int, heard: Sequence[str] = ()) -> None:
        """With reports at the end of it."""
        self.coordinator.clock.advance(seconds=seconds)
        self.model.now += seconds
        for name in heard if self.model.current else ():
            activity = Activity(RUN, self.coordinator.run.rounds[-1].number, "training")
            self.coordinator.board.report(self.coordinator[name].member, activity)
            self.model.report(name)

    @rule(kill=kills)
    def advance(self, kill: Kill | None) -> None:
        self.both(self.coordinator.advance, self.model.advance(), kill)

    @rule(kill=kills)
    def pass_the_deadline(self, kill: Kill | None) -> None:
        """No round outlives it, whoever is silent, and however often the coordinator ends on the way."""
        number = len(self.coordinator.run.rounds)
        self.pass_time(DEADLINE_SECONDS)
        self.advance(kill)
        self.advance(None)
        assert all(each.closed is not None for each in self.coordinator.run.rounds[:number])

    @rule()
    def restart(self) -> None:
        before = self.coordinator.state
        self.coordinator.restart()
        self.model.restart()
        assert self.coordinator.state == before, "what was visible was durable"

    # --- what holds after each step ----------------------------------------------------------------------------------

    @invariant()
    def the_ledger_says_what_the_model_says(self) -> None:
        run, model = self.coordinator.run, self.model
        assert {name: each.answer.accept for name, each in run.answers.items()} == model.answers
        assert (run.paused, run.ended.reason if run.ended else "") == (model.paused, model.ended)
        found = [self.seen(record) for record in run.rounds]
        assert found == [
            (each.number, each.task, each.cohort, sorted(each.given.values()), each.sealed, each.outcome, each.reason)
            for each in model.rounds
        ]

    @invariant()
    def nothing_accepted_is_lost(self) -> None:
        stored = self.coordinator.envelopes()
        assert {index: stored[index] for index in self.receipts} == self.receipts
        given = [
            (each.digest, each.predicate) for each in map(parsed, stored) if isinstance(each.predicate, Contribution)
        ]
        for closed in self.predicates(RoundClosed):
            assert {each.contribution for each in closed.inputs} == {
                digest for digest, each in given if each.round == closed.round
            }

    @invariant()
    def no_slot_is_taken_twice(self) -> None:
        slots = Counter((each.round, each.institution) for each in self.predicates(Contribution))
        assert [slot for slot, times in slots.items() if times > 1] == []

    @invariant()
    def rounds_are_numbered_densely_and_closed_once(self) -> None:
        opened = [each.round for each in self.predicates(RoundOpened)]
        closed = [each.round for each in self.predicates(RoundClosed)]
        assert opened == list(range(1, len(opened) + 1))
        assert closed == opened[: len(closed)]
        assert len(opened) - len(closed) in (0, 1)

    @invariant()
    def a_model_comes_of_a_quorum_and_of_its_sealed_sets_alone(self) -> None:
        for record, predicted in zip(self.coordinator.run.rounds, self.model.rounds, strict=True):
            if record.closed is None:
                continue
            trained = record.closed.outcome == "committed" and record.opened.task == "train"
            if trained:
                assert len(record.closed.inputs) >= self.model.quorum
            else:
                assert record.closed.outputs.model == record.opened.inputs.model
            assert self.models.setdefault(predicted.result, record.closed.outputs.model) == record.closed.outputs.model

    def it_ends(self) -> None:
        """Whatever happened, a run that is not paused ends after so many deadlines, and its ledger can be read from disk."""
        if self.model.paused and not self.model.ended:
            self.pause_or_resume(None)
        for _ in range(2 + (MOST_ABANDONED_IN_A_ROW + 1) * (self.model.planned + 1)):
            self.advance(None)
            self.pass_time(DEADLINE_SECONDS)
        self.the_ledger_says_what_the_model_says()
        assert self.coordinator.run.ended is not None
        genesis, *rest = self.coordinator.envelopes()
        state = start(genesis).state
        for envelope in rest:
            state = admit(state, envelope).state
        assert state == self.coordinator.state

    # --- how --------------------------------------------------------------------------------------------------------

    @staticmethod
    def waits_for(model: RunModel) -> bool:
        """Whether a round is open that may be signed for: the blob servicer takes deltas until the seal."""
        current = model.open_round
        return current is not None and not current.sealed

    def message(self, given: Given) -> Message:
        """What an institution's journal keeps: signed once, its delta sent before."""
        if given not in self.signed:
            participant = self.coordinator[given.institution]
            metrics = participant.metrics(OTHER_PERPLEXITY if given.version else None)
            train = participant.round.opened.task == "train"
            ref = participant.send(participant.delta()) if train else None
            other = {"num_tokens": 30} if train and given.version else {}
            self.signed[given] = Message(given, participant.contribution(ref, metrics, **other).envelope, metrics)
        return self.signed[given]

    def slots(self, order: Sequence[str]) -> list[Given]:
        """Of the open round, in that order."""
        current = self.model.open_round
        assert current is not None
        return [Given(name, current.number) for name in order if name in current.cohort]

    def contribute(self, message: Message, kill: Kill | None) -> None:
        given = message.given
        self.both(
            lambda: self.send(given.institution, message.envelope, message.metrics), self.model.contribute(given), kill
        )

    def send(self, name: str, envelope: bytes, metrics: Metrics | None) -> None:
        """Submit; an answer is a promise that is kept for ever."""
        self.receipts[self.coordinator[name].submit(envelope, metrics)] = envelope

    def both(self, really: Callable[[], object], predicted: Writes, kill: Kill | None) -> None:
        """The same here and there: the same refusal or none, or the end of the process at the same write."""
        found = self.attempt(really, kill)
        assert found == predict(predicted, kill)
        if found == "crashed":
            self.coordinator.restart()
            self.model.restart()

    def attempt(self, really: Callable[[], object], kill: Kill | None) -> str:
        with self.knife.drawn(self.coordinator.database, kill):
            try:
                really()
            except LLMasOSError as err:
                return err.code
            except Crash:
                return "crashed"
        return ""

    def seen(self, record: RoundRecord) -> tuple[object, ...]:
        """A round as the model tells it."""
        digests = {parsed(message.envelope).digest: given for given, message in self.signed.items()}
        given = sorted(digests[each.place.digest] for each in record.contributions.values())
        sealed = self.coordinator.ledger.seal_of(record.place.digest) or ""
        outcome, reason = (record.closed.outcome, record.closed.reason) if record.closed else ("", "")
        return (record.number, record.opened.task, record.opened.cohort, given, sealed, outcome, reason)

    def predicates(self, kind: type[P]) -> list[P]:
        """What the database holds, not what the process believes."""
        found = (parsed(envelope).predicate for envelope in self.coordinator.envelopes())
        return [each for each in found if isinstance(each, kind)]


def predict(writes: Writes, kill: Kill | None) -> str:
    """Let the model act until it is killed, if it is."""
    steps, made = {step.value for step in Step}, 0
    try:
        while True:
            write = next(writes)
            if kill is not None and made == kill.survives and (kill.moment != "at-step" or write in steps):
                if kill.moment != "before-write":
                    next(writes, None)
                writes.close()
                return "crashed"
            made += 1
    except StopIteration as end:
        return str(end.value)


BOUNDED = settings(
    max_examples=60,
    stateful_step_count=30,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
"""What fails is not made smaller: that takes minutes. Add Phase.shrink for whoever looks for the cause."""

TestEngineBesideModel = EngineBesideModel.TestCase
TestEngineBesideModel.settings = BOUNDED


# --- the machine can fail ----------------------------------------------------------------------------------------------


def acknowledge_before_it_is_durable(patch: pytest.MonkeyPatch) -> None:
    real = Transaction.append
    patch.setattr(Transaction, "append", lambda tx, row: None if row.kind == "contribution" else real(tx, row))


def seal_in_memory_only(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Transaction, "seal", lambda tx, seal: None)


def take_what_comes_too_late(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Engine, "accepts_contributions", lambda engine, record: True)


def commit_without_quorum(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RunState, "has_quorum", property(lambda state: True))


def wait_for_ever(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("coordinator.rounds.phases.deadline", lambda current: datetime.max.replace(tzinfo=UTC))


def forget_an_input(patch: pytest.MonkeyPatch) -> None:
    real = Aggregation.aggregate
    last: list[SealedInput] = []

    def aggregate(self: Aggregation, run: RunRecord, current: RoundRecord, inputs: Sequence[SealedInput]) -> Any:
        last.append(inputs[0])
        return real(self, run, current, inputs[1:] if len(last) % 2 else inputs)

    patch.setattr(Aggregation, "aggregate", aggregate)


@pytest.mark.parametrize(
    "bug",
    [
        acknowledge_before_it_is_durable,
        seal_in_memory_only,
        take_what_comes_too_late,
        commit_without_quorum,
        wait_for_ever,
        forget_an_input,
    ],
    ids=lambda bug: bug.__name__,
)
def test_a_bug_is_found(bug: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EngineBesideModel, "models", {})
    bug(monkeypatch)
    with pytest.raises(Exception):  # noqa: B017, PT011  whatever an invariant, a rule or the ledger says first
        run_state_machine_as_test(EngineBesideModel, settings=settings(BOUNDED, max_examples=200))  # type: ignore[no-untyped-call]
