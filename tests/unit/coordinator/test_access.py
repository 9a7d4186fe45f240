"""Blobs are readable and writable by statement, never by knowing a digest."""

from __future__ import annotations

import pytest

from common.blobs.reference import BlobRef
from common.errors import (
    BadBlobReference,
    BlobTooLarge,
    MissingBlob,
    NotAuthorised,
    NotInCohort,
    RoleMissing,
    RoundNotOpen,
    TooManyRequests,
    WrongParent,
)
from common.ledger.state import Place
from coordinator.access import MAX_BLOBS_A_ROUND
from coordinator.ports import UploadPurpose
from tests.support.coordinators import Coordinator
from tests.support.participants import RUN
from tests.support.statements import a_blob_ref


def can_read(coordinator: Coordinator, name: str, ref: BlobRef) -> bool:
    member = coordinator.state.member(name)
    assert member is not None
    try:
        coordinator.access.check_read(member, ref)
    except NotAuthorised as err:
        assert err.message == f"No statement gives {name} the blob {ref}."  # noqa: PT017  both outcomes are right
        return False
    return True


def delta_of(coordinator: Coordinator, name: str, number: int = 1) -> BlobRef:
    return coordinator.run.rounds[number - 1].contributions[name].contribution.blobs["delta"]


# --- reading ---------------------------------------------------------------------------------------------------------


def test_models_and_tokenizer_of_a_run_are_readable_by_those_who_take_part(coordinator: Coordinator) -> None:
    coordinator.start_run(rounds=2)
    run = coordinator.play()
    refs = [run.statement.initial.tokenizer, run.model, *(record.opened.inputs.model for record in run.rounds)]
    for name in ("north", "south", "operator"):
        assert all(can_read(coordinator, name, ref) for ref in refs)


def test_whoever_has_not_answered_may_look_before_answering(coordinator: Coordinator) -> None:
    coordinator.start_run()
    assert can_read(coordinator, "north", coordinator.run.statement.initial.model)


def test_whoever_refused_the_plan_reads_nothing_of_it(coordinator: Coordinator) -> None:
    coordinator.start_run()
    coordinator["north"].answer(accept=False, reasons=("budget",))
    assert not can_read(coordinator, "north", coordinator.run.statement.initial.model)
    assert not can_read(coordinator, "north", coordinator.run.statement.initial.tokenizer)


def test_a_delta_is_readable_by_its_contributor_alone(coordinator: Coordinator) -> None:
    coordinator.start_run(rounds=1)
    coordinator.play()
    ref = delta_of(coordinator, "north")
    readers = [name for name in ("east", "north", "operator", "south") if can_read(coordinator, name, ref)]
    assert readers == ["north"]


def test_a_delta_is_readable_by_the_plans_audience(coordinator: Coordinator) -> None:
    coordinator.enrol("auditor-1", roles=("auditor",))
    coordinator.enrol("auditor-2", roles=("auditor",))
    coordinator.open_round(delta_audience=["auditor-1"], quorum=1)
    coordinator["north"].contribute()
    assert can_read(coordinator, "auditor-1", delta_of(coordinator, "north"))
    assert not can_read(coordinator, "auditor-2", delta_of(coordinator, "north"))
    assert can_read(coordinator, "auditor-2", coordinator.run.model)


def test_an_auditor_whom_the_plan_names_reads_all_that_a_recomputation_needs(coordinator: Coordinator) -> None:
    """Also once the run has ended; the files go when retention says so, the right to them does not."""
    for name in ("auditor-1", "auditor-2"):
        coordinator.enrol(name, roles=("auditor",))
    auditors = [coordinator.participants.pop(name) for name in ("auditor-1", "auditor-2")]
    coordinator.start_run(rounds=3, delta_audience=["auditor-1"], retention={"delta_rounds": 2})
    run = coordinator.play()
    assert [auditor.member.roles for auditor in auditors] == [("auditor",)] * 2
    for record in run.committed():
        assert record.closed is not None
        models = [record.opened.inputs.model, record.closed.outputs.model]
        assert all(can_read(coordinator, name, ref) for ref in models for name in ("auditor-1", "auditor-2"))
        deltas = [delta_of(coordinator, name, record.number) for name in ("east", "north", "south")]
        assert [can_read(coordinator, "auditor-1", ref) for ref in deltas] == [True] * 3
        assert [can_read(coordinator, "auditor-2", ref) for ref in deltas] == [False] * 3
    assert can_read(coordinator, "auditor-1", run.statement.initial.tokenizer)


def test_naming_anothers_delta_as_ones_own_does_not_make_it_readable(coordinator: Coordinator) -> None:
    """Digests stand in the ledger for all to see; south repeats north's in a contribution of its own."""
    coordinator.open_round(rounds=2)
    coordinator["north"].contribute()
    stolen, metrics = delta_of(coordinator, "north"), coordinator["south"].metrics()
    repeating = coordinator["south"].contribution(stolen, metrics)
    with pytest.raises(MissingBlob, match=r"names blake3:.*, whose bytes south has not sent itself\."):
        coordinator["south"].submit(repeating, metrics)
    coordinator.ledger.take(repeating)  # in a ledger of an older release it may stand
    assert delta_of(coordinator, "south") == stolen
    assert not can_read(coordinator, "south", stolen)
    assert can_read(coordinator, "north", stolen)


def test_naming_anothers_delta_in_a_later_run_does_not_make_it_readable_either(coordinator: Coordinator) -> None:
    coordinator.start_run(rounds=1)
    coordinator.play()
    stolen = delta_of(coordinator, "north")
    later = coordinator.draft(delta_audience=["south"]).model_copy(update={"run": "later-1"})
    coordinator.desk.start_run(later.model_dump_json().encode())
    assert not can_read(coordinator, "south", stolen)


def test_a_delta_is_not_made_readable_by_starting_a_run_from_it(coordinator: Coordinator) -> None:
    """An operator reads every model; were a delta a plan's initial model, it would be one."""
    coordinator.start_run(rounds=1)
    coordinator.play()
    stolen = delta_of(coordinator, "north")
    draft = coordinator.draft().model_copy(update={"run": "later-1", "manifest": coordinator.run.statement.manifest})
    for field in ("model", "tokenizer"):
        initial = draft.initial.model_copy(update={field: stolen})
        spoiled = draft.model_copy(update={"initial": initial})
        with pytest.raises(
            NotAuthorised, match=rf"The plan's initial {field}, .*, is what north contributed to {RUN}\."
        ):
            coordinator.desk.start_run(spoiled.model_dump_json().encode())
        plan = coordinator.ledger.append(spoiled.model_copy(update={"run": f"by-{field}"}), roster_place(coordinator))
        assert plan.index == coordinator.state.size - 1, "even if the plan were in the ledger"
    assert [name for name in ("east", "operator", "north") if can_read(coordinator, name, stolen)] == ["north"]


def test_contributing_a_models_digest_neither_opens_nor_closes_it(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=2)
    north = coordinator["north"]
    model = coordinator.run.statement.initial.model
    coordinator.ledger.take(north.contribution(model))
    assert all(can_read(coordinator, name, model) for name in ("south", "operator"))
    later = coordinator.draft().model_copy(update={"run": "later-1"})
    assert coordinator.desk.start_run(later.model_dump_json().encode()) == "later-1"


def roster_place(coordinator: Coordinator) -> Place:
    assert coordinator.state.roster_place is not None
    return coordinator.state.roster_place


def test_knowing_a_digest_gives_nobody_a_blob(coordinator: Coordinator) -> None:
    coordinator.start_run()
    for name in ("north", "operator"):
        assert not can_read(coordinator, name, a_blob_ref("unknown"))


# --- writing ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def wanted(coordinator: Coordinator) -> BlobRef:
    """What north may send: right in every way."""
    coordinator.open_round()
    return a_blob_ref("delta", size=len(coordinator["north"].delta()))


def write(coordinator: Coordinator, name: str, ref: BlobRef, **purpose: str) -> None:
    member = coordinator.state.member(name)
    assert member is not None
    if not purpose:
        purpose = {"round_opened": coordinator.run.rounds[-1].place.digest}
    coordinator.access.check_write(member, ref, UploadPurpose(**purpose))


def test_a_member_of_the_cohort_may_send_a_delta_of_the_right_size(coordinator: Coordinator, wanted: BlobRef) -> None:
    write(coordinator, "north", wanted)


def test_those_send_who_have_not_contributed(coordinator: Coordinator, wanted: BlobRef) -> None:
    record = coordinator.run.rounds[-1]
    assert coordinator.access.senders(UploadPurpose(round_opened=record.place.digest)) == len(record.missing) > 1
    assert coordinator.access.senders(UploadPurpose(round_opened="ab" * 32)) == 1
    assert coordinator.access.senders(UploadPurpose(plan="tiny")) == 1


def test_another_size_is_refused(coordinator: Coordinator, wanted: BlobRef) -> None:
    for size in (wanted.size - 1, wanted.size + 1, 2**44):
        ref = a_blob_ref("delta", size=size)
        with pytest.raises(
            BlobTooLarge, match=rf"The delta has {size:,} bytes, by the plan's manifest it has {wanted.size}\."
        ):
            write(coordinator, "north", ref)


def test_another_algorithm_is_refused(coordinator: Coordinator, wanted: BlobRef) -> None:
    with pytest.raises(BadBlobReference, match=r"The blob's algorithm is sha256, this consortium's blake3\."):
        write(coordinator, "north", wanted.model_copy(update={"algorithm": "sha256"}))


def test_a_round_that_nobody_opened_takes_nothing(coordinator: Coordinator, wanted: BlobRef) -> None:
    for digest in ("ab" * 32, "", coordinator.run.place.digest):
        with pytest.raises(WrongParent, match=rf"No round was opened by statement {digest[:16]}…\."):
            write(coordinator, "north", wanted, round_opened=digest)


def test_whoever_is_not_in_the_cohort_sends_nothing(coordinator: Coordinator, wanted: BlobRef) -> None:
    for name in ("operator", coordinator.enrol("west").name):
        with pytest.raises(NotInCohort, match=rf"{name} is not in the cohort of round 1 of {RUN}\."):
            write(coordinator, name, wanted)


def test_a_sealed_round_takes_nothing(coordinator: Coordinator, wanted: BlobRef) -> None:
    coordinator.ledger.seal(coordinator.run.rounds[0].place.digest, "deadline-passed")
    with pytest.raises(RoundNotOpen, match=rf"Round 1 of {RUN} takes no more contributions: [a-z-]+\."):
        write(coordinator, "north", wanted)


def test_a_closed_round_takes_nothing(coordinator: Coordinator, wanted: BlobRef) -> None:
    opened = coordinator.run.rounds[0].place.digest
    coordinator.play()
    with pytest.raises(RoundNotOpen, match=rf"Round 1 of {RUN} takes no more contributions: [a-z-]+\."):
        write(coordinator, "north", wanted, round_opened=opened)


def test_an_evaluation_takes_no_blobs(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=1)
    for participant in coordinator.participants.values():
        participant.contribute()
    coordinator.advance()
    with pytest.raises(BlobTooLarge, match=rf"Round 2 of {RUN} measures the model; it takes no blobs\."):
        write(coordinator, "north", a_blob_ref("delta", size=400))


def test_so_many_different_deltas_a_round_and_no_more(coordinator: Coordinator, wanted: BlobRef) -> None:
    refs = [a_blob_ref(f"delta {number}", size=wanted.size) for number in range(MAX_BLOBS_A_ROUND + 1)]
    for ref in [*refs[:MAX_BLOBS_A_ROUND], *refs[:MAX_BLOBS_A_ROUND]]:
        write(coordinator, "north", ref)
    for _ in range(2):
        with pytest.raises(TooManyRequests, match=r"north began 4 different blobs for one round already\."):
            write(coordinator, "north", refs[-1])
    write(coordinator, "north", refs[0])
    write(coordinator, "south", refs[-1])


def test_what_was_begun_for_rounds_that_are_over_is_forgotten(coordinator: Coordinator) -> None:
    coordinator.start_run(rounds=3)
    coordinator.play()
    assert len(coordinator.access._begun) == 1


def test_plan_blobs_are_the_operators_to_send_up_to_a_size(coordinator: Coordinator) -> None:
    write(coordinator, "operator", a_blob_ref("model", size=2**20), plan=RUN)
    with pytest.raises(BlobTooLarge, match=r"A blob of 1,048,577 bytes for a plan, at most 1,048,576\."):
        write(coordinator, "operator", a_blob_ref("model", size=2**20 + 1), plan=RUN)
    with pytest.raises(RoleMissing, match=r"north has roles trainer, evaluator; plans are sent by an operator\."):
        write(coordinator, "north", a_blob_ref("model"), plan=RUN)
