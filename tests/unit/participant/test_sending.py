"""What leaves the house: signed once, journalled before it is sent, sent again as the very bytes, booked when it left."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from common import strict_json
from common.errors import CoordinatorUnreachable, MissingBlob, SlotTaken, StorageFailure
from common.ledger.state import RoundRecord
from common.statements.envelope import parse
from common.statements.kinds import Answer, ClearWeight, Contribution
from participant.bench.worker_protocol import EvaluationSums, Result
from participant.reporter import RoundReporter
from tests.support.agents import Institution
from tests.support.blobs import delta_bytes, random_arrays
from tests.support.participants import MANIFEST

DELTA = delta_bytes(MANIFEST, random_arrays(MANIFEST, seed=5, scale=0.01))
RESULT = Result(
    round=1,
    task="train",
    evaluation=EvaluationSums(loss_sum_fixed=2**20, num_tokens=100),
    delta="delta.safetensors",
    num_tokens=20,
    train_loss_fixed=3 * 2**16,
    deviations=("precision-float32",),
)


def reporter(north: Institution, record: RoundRecord) -> RoundReporter:
    return RoundReporter(north.session, north.run.run, record.number, shows_loss=False)  # type: ignore[arg-type]


def a_delta(folder: Path) -> Path:
    path = folder / "delta.safetensors"
    path.write_bytes(DELTA)
    return path


def test_an_answer_is_signed_under_the_institutions_key_and_names_its_plan(north: Institution) -> None:
    north.coordinator.start_run()
    signed = north.outbox.sign_answer(north.run, accept=False, reasons=("quorum-too-small",))
    statement = parse(signed.envelope)
    assert isinstance(statement.predicate, Answer)
    assert (statement.predicate.institution, statement.predicate.accept) == ("north", False)
    assert statement.predicate.reasons == ("quorum-too-small",)
    assert statement.parent.digest == north.run.place.digest
    assert north.outbox.answered(north.run) == signed
    assert north.session.submitted == []
    assert north.egress() == []
    index = north.outbox.send_answer(north.run, signed)
    assert north.outbox.send_answer(north.run, signed) == index
    assert north.egress() == [("answer", len(signed.envelope))] * 2


def test_two_answers_to_one_plan_cannot_be_signed(north: Institution) -> None:
    north.coordinator.start_run()
    first = north.outbox.sign_answer(north.run, accept=True, reasons=())
    with pytest.raises(SlotTaken, match=r"was signed before"):
        north.outbox.sign_answer(north.run, accept=False, reasons=())
    assert north.outbox.answered(north.run) == first


def test_a_contribution_commits_to_metrics_that_travel_beside_it(north: Institution, tmp_path: Path) -> None:
    record = north.open_round()
    signed = north.outbox.sign_contribution(north.run, record, RESULT, a_delta(tmp_path))
    contribution = parse(signed.envelope).predicate
    assert isinstance(contribution, Contribution)
    assert contribution.metrics_commitment == hashlib.sha256(signed.salt + signed.metrics).hexdigest()
    assert strict_json.loads(signed.metrics, max_bytes=1000) == {
        "evaluation": {"loss_sum_fixed": 2**20, "num_tokens": 100},
        "train_loss_fixed": 3 * 2**16,
    }
    assert contribution.deviations == ("precision-float32",)
    assert contribution.weight.model_dump() == {"mode": "clear", "num_tokens": 20}
    assert north.blobs.path(contribution.blobs["delta"]).read_bytes() == DELTA
    assert not (tmp_path / "delta.safetensors").exists()
    assert north.outbox.blobs_of(record) == {contribution.blobs["delta"].root}


def test_where_the_plan_keeps_metrics_at_home_only_the_commitment_is_made(north: Institution, tmp_path: Path) -> None:
    record = north.open_round(metrics_visibility="none")
    signed = north.outbox.sign_contribution(north.run, record, RESULT, a_delta(tmp_path))
    assert (signed.metrics, signed.salt) == (b"", b"")
    with reporter(north, record) as live:
        north.outbox.send_contribution(record, signed, live)
    contribution = north.run.rounds[0].contributions["north"].contribution
    assert contribution.metrics_commitment is not None


def test_after_a_lost_reply_the_very_bytes_go_again_and_no_blob_twice(north: Institution, tmp_path: Path) -> None:
    record = north.open_round()
    signed = north.outbox.sign_contribution(north.run, record, RESULT, a_delta(tmp_path))
    with reporter(north, record) as live:
        index = north.outbox.send_contribution(record, signed, live)
    north.restart()
    again = north.outbox.contributed(record)
    assert again == signed
    with reporter(north, record) as live:
        assert north.outbox.send_contribution(record, again, live) == index
    assert north.session.submitted == [signed.envelope]
    kinds = [kind for kind, _ in north.egress()]
    assert kinds == ["answer", "delta", "contribution", "contribution"]
    assert ("delta", len(DELTA)) in north.egress()


def test_bytes_that_left_are_booked_also_where_the_transfer_broke_off(north: Institution, tmp_path: Path) -> None:
    record = north.open_round()
    signed = north.outbox.sign_contribution(north.run, record, RESULT, a_delta(tmp_path))
    north.session.failures = [CoordinatorUnreachable("The line is cut.")]
    with reporter(north, record) as live, pytest.raises(CoordinatorUnreachable, match=r"The line is cut"):
        north.outbox.send_contribution(record, signed, live)
    assert north.egress()[1:] == [("delta", len(DELTA))]
    assert record.number == 1
    assert "north" not in north.run.rounds[0].contributions


def test_a_delta_that_was_signed_but_is_gone_says_what_to_do(north: Institution, tmp_path: Path) -> None:
    record = north.open_round()
    signed = north.outbox.sign_contribution(north.run, record, RESULT, a_delta(tmp_path))
    for ref, _ in list(north.blobs.list()):
        if ref.root in north.outbox.blobs_of(record):
            north.blobs.delete(ref)
    with (
        reporter(north, record) as live,
        pytest.raises(MissingBlob, match=r"The delta of round 1, .* was signed .* Restore the participant's blobs"),
    ):
        north.outbox.send_contribution(record, signed, live)
    assert len(north.session.submitted) == 1


def test_without_its_delta_nothing_is_signed(north: Institution, tmp_path: Path) -> None:
    record = north.open_round()
    with pytest.raises(StorageFailure, match=r"missing\.safetensors"):
        north.outbox.sign_contribution(north.run, record, RESULT, tmp_path / "missing.safetensors")
    assert north.outbox.contributed(record) is None


def test_two_threads_that_sign_one_slot_leave_one_statement(north: Institution) -> None:
    north.coordinator.start_run()
    run, failures = north.run, []

    def sign(accept: bool) -> None:
        try:
            north.outbox.sign_answer(run, accept=accept, reasons=())
        except SlotTaken as err:
            failures.append(err)

    threads = [threading.Thread(target=sign, args=(accept,)) for accept in (True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failures) == 1
    assert north.outbox.answered(run) is not None


def test_a_contribution_says_bytes_where_the_worker_counted_them(north: Institution, tmp_path: Path) -> None:
    record = north.open_round(weighting={"type": "bytes"})
    result = RESULT.model_copy(update={"num_bytes": 77})
    signed = north.outbox.sign_contribution(north.run, record, result, a_delta(tmp_path))
    predicate = parse(signed.envelope).predicate
    assert isinstance(predicate, Contribution)
    assert predicate.weight == ClearWeight(num_tokens=20, num_bytes=77)
