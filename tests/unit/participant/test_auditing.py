"""An audit: what is recomputed, signed once, sent again after a crash, and what cannot be had."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import CoordinatorUnreachable, RoleMissing, TwoHistories
from common.ledger.state import RoundRecord, RunRecord
from common.statements.kinds import RoundOutputs, SealedInput
from participant.auditing import attestation_slot, expect_auditor
from tests.support.auditors import Auditor
from tests.support.coordinators import Coordinator, InlineEngine
from tests.unit.coordinator.test_downlink import Lying

Start = Callable[..., Auditor]


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    made = Coordinator(tmp_path / "coordinator")
    yield made
    made.close()


@pytest.fixture
def start(tmp_path: Path, coordinator: Coordinator) -> Start:
    """After a run to its end, whose plan names the auditor unless another audience is given."""

    def begin(**plan: object) -> Auditor:
        auditor = Auditor(tmp_path / "auditor", coordinator)
        coordinator.start_run(**{"rounds": 3, "delta_audience": ["court-auditor"]} | plan)
        coordinator.play()
        auditor.catch_up()
        return auditor

    return begin


def results(auditor: Auditor, first: int = 1, last: int | None = None) -> list[tuple[int, str]]:
    return [(each.round, each.result) for each in auditor.audit(first, last)]


def left_over(auditor: Auditor) -> list[str]:
    """What of blobs lies in the auditor's home."""
    return [path.name for path in auditor.home.rglob("*.blob")] + [path.name for path in auditor.home.rglob("*.part")]


def test_every_committed_round_is_recomputed_and_attested(start: Start, coordinator: Coordinator) -> None:
    auditor = start()
    found = auditor.audit()
    assert [(each.round, each.result, each.text) for each in found] == [(n, "equal", "attested") for n in (1, 2, 3)]
    assert [each.index for each in found] == [coordinator.state.size - 3 + n for n in range(3)]
    for record in coordinator.run.committed():
        said = record.attestations["court-auditor"].attestation
        assert record.closed is not None
        assert (said.result, said.model) == ("equal", record.closed.outputs.model)
    assert left_over(auditor) == [], "deltas of others do not stay"
    booked = auditor.journal.egress()
    assert [entry.kind for entry in booked] == ["attestation"] * 3, "nothing else left the house"


@pytest.mark.parametrize("plan", [{"downlink": {"type": "int8"}}, {"server_optimizer": {"type": "adam"}}])
def test_every_output_is_recomputed_from_the_server_state(
    start: Start, coordinator: Coordinator, plan: dict[str, object]
) -> None:
    auditor = start(**plan)
    assert results(auditor) == [(1, "equal"), (2, "equal"), (3, "equal")]
    assert left_over(auditor) == []
    assert all("court-auditor" in record.attestations for record in coordinator.run.committed())


@pytest.mark.parametrize("name", ["applied_delta", "server_state"])
def test_an_equal_model_beside_another_output_is_told_and_not_attested(
    start: Start, coordinator: Coordinator, name: str
) -> None:
    ports = replace(coordinator.engine._ports, aggregator=Lying(coordinator, name))
    coordinator.engine = InlineEngine(ports)
    auditor = start(downlink={"type": "int8"}, rounds=1)
    (found,) = auditor.audit()
    assert (found.result, found.index) == ("different", None)
    assert found.text.startswith(f"no attestation: the model is equal, but the inputs give {name} blake3:")
    assert coordinator.run.committed()[0].attestations == {}


def test_a_second_audit_says_what_is_known_and_fetches_nothing(start: Start, coordinator: Coordinator) -> None:
    auditor = start()
    auditor.audit()
    auditor.catch_up()
    calls, size = dict(auditor.link.calls), coordinator.state.size
    assert [(each.result, each.text) for each in auditor.audit()] == [("equal", "attested before")] * 3
    assert (coordinator.state.size, auditor.link.calls["download"]) == (size, calls["download"])


def test_an_audit_may_be_of_some_rounds(start: Start, coordinator: Coordinator) -> None:
    auditor = start()
    assert results(auditor, 2, 2) == [(2, "equal")]
    auditor.catch_up()
    assert results(auditor, 2) == [(2, "equal"), (3, "equal")]
    assert [bool(record.attestations) for record in coordinator.run.committed()] == [False, True, True]


def test_a_round_that_was_committed_with_another_model_is_attested_as_different(
    start: Start, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = coordinator.aggregation.aggregate

    def without_south(run: RunRecord, current: RoundRecord, inputs: Sequence[SealedInput]) -> RoundOutputs:
        return honest(run, current, inputs[:-1] if current.number == 2 else inputs)

    monkeypatch.setattr(coordinator.aggregation, "aggregate", without_south)
    auditor = start()
    found = auditor.audit()
    assert [each.result for each in found] == ["equal", "different", "equal"]
    said = coordinator.run.rounds[1].attestations["court-auditor"].attestation
    assert (said.result, found[1].text) == ("different", f"attested: the inputs give {said.model}")
    auditor.catch_up()
    assert auditor.audit()[1].result == "different", "known from the ledger"


def test_what_was_signed_before_a_crash_is_sent_as_it_is(start: Start, coordinator: Coordinator) -> None:
    auditor = start()
    auditor.link.failures["submit"] = [CoordinatorUnreachable("No answer.")]
    with pytest.raises(CoordinatorUnreachable):
        auditor.audit()
    place = coordinator.run.rounds[0].closed_place
    assert place is not None
    signed = auditor.journal.signed(attestation_slot(place))
    assert signed is not None, "journalled before it is sent"
    assert (coordinator.run.rounds[0].attestations, auditor.journal.egress()) == ({}, [])
    calls = auditor.link.calls["download"]
    assert results(auditor, 1, 1) == [(1, "equal")]
    assert coordinator.run.rounds[0].attestations["court-auditor"].place.digest == signed.digest
    assert auditor.link.calls["download"] == calls, "and not recomputed"


def test_a_reply_that_was_lost_makes_no_second_attestation(start: Start, coordinator: Coordinator) -> None:
    auditor = start()
    first = auditor.audit()
    assert auditor.audit() == first, "its own copy does not know of them yet: the same bytes give the same index"


def test_an_auditor_whom_the_plan_does_not_name_attests_nothing(start: Start, coordinator: Coordinator) -> None:
    auditor = start(delta_audience=["somebody-else"])
    found = auditor.audit()
    assert [each.result for each in found] == ["unknown"] * 3
    assert "the delta of south not visible to court-auditor" in found[0].text
    assert auditor.link.calls["download"] == 0, "no model is fetched in vain"
    assert auditor.link.calls["expect_readable"] == 3, "one question a round"


def test_rounds_that_are_not_retained_are_named_and_the_others_attested(start: Start) -> None:
    auditor = start(retention={"delta_rounds": 2})
    found = auditor.audit()
    assert [each.result for each in found] == ["unknown", "unknown", "equal"], "the evaluation is one of the two newest"
    assert "the delta of south not retained by the coordinator" in found[0].text


def test_an_audit_goes_on_without_a_coordinator_only_as_far_as_what_is_held(start: Start) -> None:
    auditor = start()
    auditor.link.failures["expect_readable"] = [CoordinatorUnreachable("No answer from there.")]
    found = auditor.audit()
    assert [each.result for each in found] == ["unknown"] * 3
    assert auditor.said == ["going on with what is held here: No answer from there. (coordinator-unreachable)"]
    assert auditor.link.calls["expect_readable"] == 1


def test_catching_up_takes_as_many_replies_as_it_needs(start: Start, coordinator: Coordinator, tmp_path: Path) -> None:
    start()
    other = Auditor(tmp_path / "other", coordinator, "uni-auditor")
    other.link.most_entries = 3
    other.catch_up()
    assert other.mirror.state.size == coordinator.state.size


def test_a_ledger_that_went_back_ends_the_audit(
    start: Start, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    auditor = start()
    honest = auditor.link.follow

    def shorter(**arguments: int) -> object:
        found = honest(from_index=arguments["from_index"], wait_seconds=0)
        return type(found)(found.first_index, (), 4)

    monkeypatch.setattr(auditor.link, "follow", shorter)
    with pytest.raises(TwoHistories, match="ledger has 4 entries"):
        auditor.catch_up()


def test_only_an_auditor_may(start: Start) -> None:
    state = start().mirror.state
    expect_auditor(state, "court-auditor")
    with pytest.raises(
        RoleMissing, match=r"north takes part as trainer, evaluator; what an auditor recomputed counts"
    ) as caught:
        expect_auditor(state, "north")
    assert "--role auditor" in caught.value.fix
    with pytest.raises(RoleMissing, match=r"stranger is no active member of hospitals\."):
        expect_auditor(state, "stranger")
