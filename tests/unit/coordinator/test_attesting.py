"""Attestations at the coordinator: taken from the auditor who signed them, refused from everybody else, told in logs."""

from __future__ import annotations

import logging

import pytest

from common.blobs.reference import BlobRef
from common.errors import LedgerConflict, SlotTaken, WrongSigner
from common.statements.envelope import Statement
from common.statements.kinds import Attestation
from tests.support.coordinators import Coordinator
from tests.support.participants import RUN, FakeParticipant
from tests.support.statements import a_blob_ref

OTHER = a_blob_ref("another model")


@pytest.fixture
def auditor(coordinator: Coordinator) -> FakeParticipant:
    """After a run of one round that is over."""
    coordinator.start_run(rounds=1)
    coordinator.play()
    return coordinator.enrol("court-auditor", roles=("auditor",))


def attestation(
    coordinator: Coordinator, by: FakeParticipant, model: BlobRef | None = None, **changes: object
) -> Statement:
    record = coordinator.run.rounds[0]
    assert record.closed is not None
    assert record.closed_place is not None
    committed = record.closed.outputs.model
    result = "equal" if model in {None, committed} else "different"
    fields = {"institution": by.name, "run": RUN, "round": 1, "result": result, "model": model or committed}
    return by.sign(Attestation.model_validate(fields | changes), "round-closed", record.closed_place.digest)


def test_an_attestation_enters_the_ledger_after_the_runs_end(
    coordinator: Coordinator, auditor: FakeParticipant, caplog: pytest.LogCaptureFixture
) -> None:
    statement = attestation(coordinator, auditor)
    with caplog.at_level(logging.INFO):
        index = auditor.submit(statement)
    assert coordinator.run.rounds[0].attestations["court-auditor"].place.index == index
    (event,) = [record for record in caplog.records if record.message == "statement accepted"]
    assert (event.__dict__["kind"], event.__dict__["institution"]) == ("attestation", "court-auditor")
    assert auditor.submit(statement) == index, "the same bytes are no error"
    coordinator.restart()
    assert auditor.submit(statement) == index
    assert list(coordinator.run.rounds[0].attestations) == ["court-auditor"]


def test_an_auditor_that_found_another_model_is_an_operators_business(
    coordinator: Coordinator, auditor: FakeParticipant, caplog: pytest.LogCaptureFixture
) -> None:
    auditor.submit(attestation(coordinator, auditor, OTHER))
    (event,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert (event.message, event.__dict__["institution"]) == ("auditor found another model", "court-auditor")
    assert (event.__dict__["run"], event.__dict__["round"]) == (RUN, 1)


def test_a_second_word_on_a_round_is_refused_and_recorded(coordinator: Coordinator, auditor: FakeParticipant) -> None:
    auditor.submit(attestation(coordinator, auditor))
    with pytest.raises(SlotTaken, match="court-auditor has attested round 1"):
        auditor.submit(attestation(coordinator, auditor, OTHER))
    assert coordinator.refusals() == [("court-auditor", None, "slot-taken", "signed-by")]


def test_a_trainer_attests_nothing(coordinator: Coordinator, auditor: FakeParticipant) -> None:
    north = coordinator["north"]
    with pytest.raises(WrongSigner, match=r"north has roles trainer, evaluator; a round is attested by an institution"):
        north.submit(attestation(coordinator, north))


def test_an_auditors_word_comes_on_its_own_connection(coordinator: Coordinator, auditor: FakeParticipant) -> None:
    with pytest.raises(WrongSigner, match=r"A statement of court-auditor came on the connection of north\."):
        coordinator["north"].submit(attestation(coordinator, auditor))


def test_a_word_that_contradicts_itself_is_refused(coordinator: Coordinator, auditor: FakeParticipant) -> None:
    with pytest.raises(LedgerConflict, match="says different and names model"):
        auditor.submit(attestation(coordinator, auditor, result="different"))


def test_the_log_of_a_run_tells_who_attested(coordinator: Coordinator, auditor: FakeParticipant) -> None:
    index = auditor.submit(attestation(coordinator, auditor))
    (line,) = [line for line in coordinator.views.logs(RUN, "court-auditor", follow=False) if line is not None]
    assert (line.event, line.round) == ("attested", 1)
    assert line.text == f"recomputed: equal, model {coordinator.run.model.root[:16]} [ledger {index}]"
