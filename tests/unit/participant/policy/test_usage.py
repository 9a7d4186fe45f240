"""What a run has used here: hours by device, bytes of that run alone, and a round's time scaled from another run's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from participant.memory.journal import Egress, Journal, SignedSlot
from participant.memory.records import Records, Work
from participant.policy import Usage, UsageCounter, expected_usage, usage_of
from participant.tasks import answer_slot, contribution_slot
from tests.support.coordinators import Coordinator
from tests.support.participants import RUN
from tests.support.plans import a_plan
from tests.support.statements import a_blob_ref, a_plan_statement

AT = "2026-11-21T22:12:00.000Z"


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    made = Records(tmp_path / "journal.sqlite")
    yield made
    made.close()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "journal.sqlite")
    yield made
    made.close()


def test_a_run_that_was_never_worked_on_has_used_nothing(
    coordinator: Coordinator, records: Records, journal: Journal
) -> None:
    coordinator.open_round()
    assert usage_of(coordinator.run, records, journal) == Usage()


def test_hours_are_counted_by_device_and_rounds_once(
    coordinator: Coordinator, records: Records, journal: Journal
) -> None:
    record = coordinator.open_round()
    for work in (
        Work(RUN, 1, AT, 1800, "NVIDIA H100", tokens=32),
        Work(RUN, 1, AT, 3600, "NVIDIA H100", tokens=32),
        Work(RUN, 2, AT, 900, "cpu"),
        Work("other-0a1b2c", 1, AT, 7200, "NVIDIA H100", tokens=64),
    ):
        records.worked(work)
    usage = usage_of(coordinator.run, records, journal)
    assert (usage.gpu_hours, usage.cpu_hours, usage.rounds, usage.device) == (1.5, 0.25, 2, "cpu")
    assert usage.seconds_per_round == 5400  # of the newest round that trained, its two stretches together
    assert usage.traffic_bytes == record.opened.inputs.model.size + coordinator.run.statement.initial.tokenizer.size


def test_with_a_downlink_models_after_the_first_count_as_what_came_of_them(
    coordinator: Coordinator, records: Records, journal: Journal
) -> None:
    """Of this model one applied delta is smaller, two are not."""
    coordinator.start_run(rounds=4, downlink={"type": "int8"})
    run = coordinator.play()
    model, tokenizer = run.model.size, run.statement.initial.tokenizer.size
    outputs = run.rounds[0].closed.outputs if run.rounds[0].closed else None
    assert outputs is not None
    assert outputs.applied_delta is not None
    applied = outputs.applied_delta.size
    for number in (1, 2, 4, 5):
        records.worked(Work(RUN, number, AT, 1, "cpu"))
    assert usage_of(run, records, journal).traffic_bytes == tokenizer + model + applied + model + applied


def test_bytes_that_left_are_counted_for_the_run_that_they_belong_to(
    coordinator: Coordinator, records: Records, journal: Journal
) -> None:
    record = coordinator.open_round()
    north, ref = coordinator["north"], a_blob_ref("delta of north")
    for slot, statement in (
        (answer_slot(coordinator.run), north.an_answer()),
        (contribution_slot(record), north.contribution(ref)),
    ):
        journal.sign(SignedSlot(slot, statement.digest, statement.envelope, b"", b"", AT))
        journal.book(Egress(AT, "statement", 100, statement.digest, "coordinator"))
    for digest, size in ((ref.root, 4000), (ref.root, 500), ("ab" * 32, 10**9)):
        journal.book(Egress(AT, "delta", size, digest, "coordinator"))
    assert usage_of(coordinator.run, records, journal).traffic_bytes == 100 + 100 + 4000 + 500


def test_expected_hours_are_those_used_and_those_of_the_rounds_to_come() -> None:
    usage = Usage(gpu_hours=2, rounds=4, seconds_per_round=1800, device="A GPU")
    assert usage.expected_hours(10, gpu=True) == 5
    assert usage.expected_hours(3, gpu=True) == 2
    assert usage.expected_hours(10, gpu=False) is None
    assert Usage().expected_hours(10, gpu=True) is None


def test_a_new_plans_round_is_scaled_by_parameters_and_tokens(coordinator: Coordinator, records: Records) -> None:
    coordinator.open_round()
    runs = coordinator.state.runs
    old = coordinator.run.statement
    assert expected_usage(old, runs, records) == Usage()
    records.worked(Work(RUN, 1, AT, 10, "cpu", tokens=old.plan.local.tokens_per_round))
    records.worked(Work(RUN, 2, AT, 99, "cpu"))  # an evaluation tells nothing about training
    records.worked(Work("gone-0a1b2c", 1, AT, 99, "cpu", tokens=64))  # and neither does a run that nobody knows
    new = a_plan_statement(
        plan=a_plan(local={"steps": 6, "batch_size": 2, "sequence_length": 16}),
        manifest=[{"name": "embedding", "shape": (2, sum(tensor.elements for tensor in old.manifest))}],
    )
    expected = expected_usage(new, runs, records)
    assert expected == Usage(seconds_per_round=60.0, device="cpu")  # twice the parameters, three times the steps


def test_a_counter_that_is_asked_each_round_counts_as_one_that_is_asked_once(
    coordinator: Coordinator, records: Records, journal: Journal
) -> None:
    counter, count = UsageCounter(records, journal), 0
    coordinator.open_round(rounds=4)
    for _ in range(4):
        north, record = coordinator["north"], coordinator.run.open_round
        assert record is not None
        ref = north.send(north.delta())
        signed = north.contribution(ref)
        journal.sign(SignedSlot(contribution_slot(record), signed.digest, signed.envelope, b"", b"", AT))
        journal.book(Egress(AT, "delta", 1000, ref.root, "here"))
        journal.book(Egress(AT, "contribution", 7, signed.digest, "here"))
        journal.book(Egress(AT, "delta", 5, "ab" * 32, "here"))  # of another run
        for name in ("east", "north", "south"):
            coordinator[name].contribute()
        coordinator.advance()
        count += 7
        usage = counter.of(coordinator.run)
        assert usage == usage_of(coordinator.run, records, journal)
    assert usage.traffic_bytes >= count + 1000


def test_what_was_read_of_a_run_is_not_read_again(
    coordinator: Coordinator, records: Records, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter, read = UsageCounter(records, journal), list[str]()
    coordinator.open_round(rounds=6)
    real = journal.signed

    def signed(slot: str) -> SignedSlot | None:
        read.append(slot)
        return real(slot)

    monkeypatch.setattr(journal, "signed", signed)
    for _ in range(5):
        for name in ("east", "north", "south"):
            coordinator[name].contribute()
        coordinator.advance()
        read.clear()
        counter.of(coordinator.run)
        assert len(read) <= 3 + (len(coordinator.run.rounds) == 2)  # the answer, the round before, the open one
