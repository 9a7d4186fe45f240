"""Runs with a downlink at the coordinator: what rounds leave, who may read it, how long it stays, and that it is verified."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import tensors
from common.blobs.reader import BlobReader
from common.blobs.reference import BlobRef, DigestName
from common.blobs.store import FolderBlobStore
from common.blobs.writer import BlobWriter
from common.codecs import CODECS
from common.errors import LedgerConflict, MissingBlob, NotAuthorised
from common.evidence.select import Holdings, select
from common.ledger.downlink import way_to
from common.ledger.state import RoundRecord, RunRecord
from common.statements.kinds import RoundClosed, RoundOutputs, SealedInput
from common.verify.blobs import named_blobs
from common.verify.report import Outcome
from common.verify.rounds import check_rounds
from coordinator.rounds.engine import sealed_inputs
from coordinator.rounds.ports import Step
from tests.support.blobs import put_blob, read_blob
from tests.support.coordinators import Coordinator, Crash, CrashAt, InlineEngine
from tests.support.participants import MANIFEST
from tests.support.server_states import slots_of, state_blob
from tests.unit.common.reduce.test_downlink import Made, plain, printed

INT8 = {"type": "int8"}
ELEMENTS = tensors.trainable_elements(MANIFEST)
STATE_BYTES = len(state_blob({"residual": np.zeros(ELEMENTS, np.float32)}, 65_472))
APPLIED_BYTES = CODECS["int8"].encoded_size(MANIFEST)


def played(coordinator: Coordinator, **plan: Any) -> RunRecord:
    coordinator.start_run(**{"rounds": 3, "downlink": INT8} | plan)
    return coordinator.play()


def outputs_of(run: RunRecord, number: int) -> RoundOutputs:
    closed = run.rounds[number - 1].closed
    assert closed is not None
    return closed.outputs


def by_the_page(coordinator: Coordinator, record: RoundRecord) -> Made:
    """A round by the program in docs/protocol.md."""
    plan, blobs = coordinator.run.statement.plan, coordinator.blobs
    contributions = {
        name: (entry.contribution.weight.num_tokens, read_blob(blobs, entry.contribution.blobs["delta"]))  # type: ignore[union-attr]
        for name, entry in record.contributions.items()
    }
    state = record.opened.inputs.server_state
    return Made(
        *printed()["outputs"](
            read_blob(blobs, record.opened.inputs.model),
            contributions,
            plain(MANIFEST),
            plan.model_dump(mode="json"),
            None if state is None else read_blob(blobs, state),
        )
    )


@pytest.mark.parametrize(("downlink", "uplink"), [("int8", "int8"), ("int4", "float32"), ("float32", "bfloat16")])
def test_every_committed_round_is_the_documented_one(coordinator: Coordinator, downlink: str, uplink: str) -> None:
    run = played(
        coordinator,
        downlink={"type": downlink},
        codec={"type": uplink},
        server_optimizer={"type": "sgd", "learning_rate": "0.7"},
    )
    assert len(run.committed("train")) == 3
    for record in run.committed("train"):
        expected, outputs = by_the_page(coordinator, record), outputs_of(run, record.number)
        assert read_blob(coordinator.blobs, outputs.model) == expected.model
        if outputs.applied_delta is not None and coordinator.blobs.contains(outputs.applied_delta):
            assert read_blob(coordinator.blobs, outputs.applied_delta) == expected.applied
        assert (outputs.server_state is None) == (expected.state is None) == (downlink == "float32")
        if expected.state is not None and outputs.server_state is not None:
            assert read_blob(coordinator.blobs, outputs.server_state) == expected.state
    assert [record.opened.inputs.server_state for record in run.rounds] == [
        None,
        *(outputs_of(run, number).server_state for number in (1, 2, 3)),
    ]


def test_an_evaluation_and_an_abandoned_round_hand_the_state_on(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=2, downlink=INT8)
    for participant in coordinator.participants.values():
        participant.contribute()
    coordinator.advance()
    coordinator.clock.advance(seconds=4000)  # round 2: nobody
    coordinator.advance()
    first, second = outputs_of(coordinator.run, 1), outputs_of(coordinator.run, 2)
    assert second == replace_outputs(first, applied_delta=None)
    run = coordinator.play()
    third, evaluated = outputs_of(run, 3), outputs_of(run, 4)
    assert run.rounds[2].opened.inputs.server_state == first.server_state
    assert evaluated == replace_outputs(third, applied_delta=None)
    assert third.applied_delta is not None


def replace_outputs(outputs: RoundOutputs, **changes: Any) -> RoundOutputs:
    return outputs.model_copy(update=changes)


def test_without_a_downlink_nothing_is_left_besides_the_model(coordinator: Coordinator) -> None:
    run = played(coordinator, downlink=None)
    for number in (1, 2, 3, 4):
        assert outputs_of(run, number) == RoundOutputs(model=outputs_of(run, number).model)


# --- crashes ----------------------------------------------------------------------------------------------------------


def test_a_kill_between_writing_and_closing_changes_no_output(tmp_path: Path) -> None:
    def run_through(folder: str, steps: CrashAt | None) -> list[RoundOutputs]:
        coordinator = Coordinator(tmp_path / folder, steps=steps)
        try:
            if steps is None:
                played(coordinator)
            else:
                with pytest.raises(Crash):
                    played(coordinator)
                coordinator.restart()
                coordinator.play()
            return [outputs_of(coordinator.run, number) for number in (1, 2, 3, 4)]
        finally:
            coordinator.close()

    undisturbed = run_through("undisturbed", None)
    assert run_through("killed", CrashAt(Step.MODEL_WRITTEN, 2)) == undisturbed


@pytest.mark.parametrize("survives", [0, 1, 2])
def test_a_kill_between_two_blobs_changes_no_output(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch, survives: int
) -> None:
    """Killed when so many of the three blobs were durable."""
    coordinator.open_round(rounds=1, downlink=INT8)
    for participant in coordinator.participants.values():
        participant.contribute()
    install, made = FolderBlobStore._install, []

    def dies(store: FolderBlobStore, path: Path, ref: BlobRef, leaves: bytes) -> None:
        if len(made) == survives:
            raise Crash("between two blobs")
        made.append(ref)
        install(store, path, ref, leaves)

    monkeypatch.setattr(FolderBlobStore, "_install", dies)
    with pytest.raises(Crash):
        coordinator.advance()
    monkeypatch.undo()
    coordinator.restart()
    coordinator.advance()
    outputs = outputs_of(coordinator.run, 1)
    assert len(outputs.blobs) == 3
    assert all(coordinator.blobs.contains(ref) for ref in outputs.blobs)
    assert set(made) <= set(outputs.blobs)


def test_a_server_state_that_is_gone_abandons_the_round_and_is_named(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=2, downlink=INT8)
    for _ in range(2):
        for participant in coordinator.participants.values():
            participant.contribute()
        if coordinator.run.rounds[-1].number == 2:
            state = coordinator.run.rounds[-1].opened.inputs.server_state
            assert state is not None
            coordinator.blobs.delete(state)
        coordinator.advance()
    closed = coordinator.run.rounds[1].closed
    assert closed is not None
    assert (closed.outcome, closed.reason) == ("abandoned", "missing-blob")


# --- rules of the ledger ----------------------------------------------------------------------------------------------


def a_ref(name: str, size: int) -> BlobRef:
    return BlobRef(algorithm="blake3", size=size, root=format(sum(name.encode()), "064x"))


MODEL, APPLIED, STATE = a_ref("model", 400), a_ref("applied", APPLIED_BYTES), a_ref("state", STATE_BYTES)
WRONG: Sequence[tuple[str, dict[str, str] | None, dict[str, BlobRef], str]] = (
    ("no applied delta", INT8, {"server_state": STATE}, "applied_delta of None bytes, by its plan 256"),
    ("no server_state", INT8, {"applied_delta": APPLIED}, rf"server_state of None bytes, by its plan {STATE_BYTES}"),
    (
        "an applied delta of another size",
        INT8,
        {"applied_delta": a_ref("x", 255), "server_state": STATE},
        "applied_delta of 255 bytes, by its plan 256",
    ),
    (
        "a server_state of another size",
        INT8,
        {"applied_delta": APPLIED, "server_state": APPLIED},
        "server_state of 256 bytes",
    ),
    (
        "a server_state that nothing was dropped into",
        {"type": "float32"},
        {"applied_delta": STATE, "server_state": STATE},
        rf"server_state of {STATE_BYTES} bytes, by its plan None",
    ),
    ("an applied delta without a downlink", None, {"applied_delta": APPLIED}, "256 bytes, by its plan None"),
    ("a server_state without a downlink", None, {"server_state": STATE}, "bytes, by its plan None"),
)


@pytest.mark.parametrize(("claim", "downlink", "beside", "message"), WRONG, ids=[row[0] for row in WRONG])
def test_a_commit_has_exactly_the_outputs_of_its_plan(
    coordinator: Coordinator, claim: str, downlink: dict[str, str] | None, beside: dict[str, BlobRef], message: str
) -> None:
    coordinator.open_round(rounds=1, downlink=downlink)
    for participant in coordinator.participants.values():
        participant.contribute()
    record = coordinator.run.rounds[0]
    with pytest.raises(LedgerConflict, match=f"Round 1 closes with .*{message}"):
        coordinator.append(closing(record, "committed", RoundOutputs(model=MODEL, **beside)), record.place.digest)


def closing(record: RoundRecord, outcome: Any, outputs: RoundOutputs) -> RoundClosed:
    return RoundClosed(
        run=record.opened.run,
        round=record.number,
        outcome=outcome,
        reason="test",
        rule="weighted-mean",
        inputs=sealed_inputs(record, used=outcome == "committed"),
        outputs=outputs,
    )


@pytest.mark.parametrize("what", ["applied_delta", "server_state"])
def test_an_abandoned_round_makes_nothing(coordinator: Coordinator, what: str) -> None:
    record = coordinator.open_round(rounds=1, downlink=INT8)
    outputs = RoundOutputs(model=record.opened.inputs.model, **{what: STATE})
    with pytest.raises(LedgerConflict, match=re.escape("(abandoned, train) may not change the server_state")):
        coordinator.append(closing(record, "abandoned", outputs), record.place.digest)


# --- who reads, and how long ------------------------------------------------------------------------------------------


def can_read(coordinator: Coordinator, name: str, ref: BlobRef) -> bool:
    member = coordinator.state.member(name)
    assert member is not None
    try:
        coordinator.access.check_read(member, ref)
    except NotAuthorised:
        return False
    return True


def test_members_read_applied_deltas_and_the_plans_auditors_the_server_state(coordinator: Coordinator) -> None:
    for name in ("auditor-1", "auditor-2"):
        coordinator.enrol(name, roles=("auditor",))
    auditors = {name: coordinator.participants.pop(name) for name in ("auditor-1", "auditor-2")}
    coordinator.start_run(rounds=2, downlink=INT8, delta_audience=["auditor-1"], quorum=2)
    coordinator["south"].answer(accept=False, reasons=("budget",))
    coordinator.participants.pop("south")
    run = coordinator.play()
    coordinator.participants |= auditors
    everybody = ("auditor-1", "auditor-2", "east", "north", "operator", "south")
    for number in (1, 2):
        outputs = outputs_of(run, number)
        assert outputs.applied_delta is not None
        assert outputs.server_state is not None
        readers = [name for name in everybody if can_read(coordinator, name, outputs.applied_delta)]
        assert readers == ["auditor-1", "auditor-2", "east", "north", "operator"]
        assert [name for name in everybody if can_read(coordinator, name, outputs.server_state)] == ["auditor-1"]


def test_naming_a_server_state_as_ones_delta_opens_nothing_and_closes_nothing(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=2, downlink=INT8)
    for participant in coordinator.participants.values():
        participant.contribute()
    coordinator.advance()
    outputs = outputs_of(coordinator.run, 1)
    assert outputs.server_state is not None
    assert outputs.applied_delta is not None
    repeating = coordinator["south"].contribution(outputs.server_state)
    with pytest.raises(MissingBlob):
        coordinator["south"].submit(repeating, coordinator["south"].metrics())
    coordinator.ledger.take(repeating)
    coordinator.ledger.take(coordinator["north"].contribution(outputs.applied_delta))
    assert not can_read(coordinator, "south", outputs.server_state)
    assert can_read(coordinator, "east", outputs.applied_delta)
    draft = coordinator.draft().model_copy(update={"run": "later-1"})
    initial = draft.initial.model_copy(update={"model": outputs.server_state})
    roster = coordinator.state.roster_place
    assert roster is not None
    coordinator.append(draft.model_copy(update={"initial": initial}), roster.digest)
    assert not can_read(coordinator, "south", outputs.server_state), "nor does a plan that begins from it"


def test_what_is_of_use_to_nobody_goes(coordinator: Coordinator) -> None:
    """Of a model of 412 bytes, one applied delta of 256 is smaller; two are not."""
    coordinator.open_round(rounds=4, downlink=INT8, retention={"delta_rounds": 1})
    for _ in range(3):
        for participant in coordinator.participants.values():
            participant.contribute()
        coordinator.advance()
    made = [outputs_of(coordinator.run, number) for number in (1, 2, 3)]
    assert 2 * APPLIED_BYTES > made[0].model.size > APPLIED_BYTES
    there = [[coordinator.blobs.contains(ref) for ref in outputs.blobs] for outputs in made]
    assert there == [[False] * 3, [True, True, False], [True] * 3], "model, server_state, applied delta"
    run = coordinator.play()
    coordinator.aggregation.expire(coordinator.state)
    newest = outputs_of(run, 4)
    assert newest.applied_delta is not None
    assert not coordinator.blobs.contains(newest.applied_delta), "the run has ended"
    assert coordinator.blobs.contains(newest.model)


def test_applied_deltas_of_no_use_go_where_everything_else_is_kept(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=4, downlink=INT8)
    for number in (1, 2, 3):
        for participant in coordinator.participants.values():
            participant.contribute()
        coordinator.advance()
        made = [outputs_of(coordinator.run, each) for each in range(1, number + 1)]
        there = [[coordinator.blobs.contains(ref) for ref in outputs.blobs] for outputs in made]
        assert there == [[True, True, False]] * (number - 1) + [[True] * 3], "model, server_state, applied delta"


def test_all_outputs_are_written_over_spare_files_of_their_size(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, retire = FolderBlobStore.writer, FolderBlobStore.retire
    asked, retired = list[int](), list[int]()

    def writer(store: FolderBlobStore, algorithm: DigestName, *, about: int = 0) -> BlobWriter:
        asked.append(about)
        return real(store, algorithm, about=about)

    def watched(store: FolderBlobStore, ref: BlobRef) -> None:
        retired.append(ref.size)
        retire(store, ref)

    coordinator.open_round(rounds=4, downlink=INT8, retention={"delta_rounds": 1})
    for _ in range(2):
        for participant in coordinator.participants.values():
            participant.contribute()
        asked.clear()
        with monkeypatch.context() as patch:
            patch.setattr(FolderBlobStore, "writer", writer)
            patch.setattr(FolderBlobStore, "retire", watched)
            coordinator.advance()
        made = outputs_of(coordinator.run, len(coordinator.run.rounds) - 1)
        assert sorted(asked) == sorted(ref.size for ref in made.blobs)
    assert APPLIED_BYTES in retired


def test_with_the_default_retention_all_that_recomputation_needs_stays(coordinator: Coordinator) -> None:
    run = played(coordinator)
    check = check_rounds(run, coordinator.blobs, lambda *_: None)
    assert (check.examined, check.findings) == ("3 of 3 recomputed here, equal in every bit", ())
    assert way_to(run, run.model, lambda ref: ref == run.rounds[2].opened.inputs.model) == (
        run.rounds[2].opened.inputs.model,
        (outputs_of(run, 3).applied_delta,),
    )
    assert way_to(run, run.model, lambda ref: ref == run.statement.initial.model) is None, "not smaller than the model"
    assert way_to(run, run.model, lambda ref: False) is None


# --- verification -----------------------------------------------------------------------------------------------------


class Without:
    """The coordinator's blobs but some."""

    def __init__(self, blobs: FolderBlobStore, lacking: Collection[BlobRef]) -> None:
        self._blobs, self._lacking = blobs, lacking

    def contains(self, ref: BlobRef) -> bool:
        return ref not in self._lacking and self._blobs.contains(ref)

    def open(self, ref: BlobRef) -> BlobReader:
        if ref in self._lacking:
            raise MissingBlob(f"{ref} is not here")
        return self._blobs.open(ref)


def test_a_round_whose_server_state_is_not_held_is_a_gap(coordinator: Coordinator) -> None:
    run = played(coordinator)
    state = run.rounds[1].opened.inputs.server_state
    assert state is not None
    check = check_rounds(run, Without(coordinator.blobs, {state}), lambda *_: None)
    assert check.examined == "2 of 3 recomputed here, equal in every bit"
    (finding,) = check.findings
    assert finding.outcome is Outcome.GAPS
    assert finding.text == f"Round 2 of {run.run} was not recomputed: the server_state not held here."


class Lying:
    """Commits another output than its inputs give."""

    def __init__(self, coordinator: Coordinator, name: str) -> None:
        self._coordinator, self._name = coordinator, name

    def aggregate(self, run: RunRecord, current: RoundRecord, inputs: Sequence[SealedInput]) -> RoundOutputs:
        outputs = self._coordinator.aggregation.aggregate(run, current, inputs)
        content = bytearray(read_blob(self._coordinator.blobs, getattr(outputs, self._name)))
        content[-40] ^= 1
        return outputs.model_copy(update={self._name: put_blob(self._coordinator.blobs, bytes(content))})

    def rule(self, run: RunRecord) -> str:
        return self._coordinator.aggregation.rule(run)

    def expire(self, state: object) -> None:
        pass


@pytest.mark.parametrize("name", ["applied_delta", "server_state", "model"])
def test_each_output_is_held_against_the_recomputed_one(coordinator: Coordinator, name: str) -> None:
    ports = replace(coordinator.engine._ports, aggregator=Lying(coordinator, name))
    coordinator.engine = InlineEngine(ports)
    coordinator.open_round(rounds=1, downlink=INT8)
    run = coordinator.play()
    check = check_rounds(run, coordinator.blobs, lambda *_: None)
    (finding,) = check.findings
    assert finding.outcome is Outcome.FAILED
    assert finding.text == f"Round 1 of {run.run} was committed with another {name} than its contributions give."
    assert finding.signer == "coordinator"


def test_every_blob_that_a_round_names_is_looked_at(coordinator: Coordinator) -> None:
    run = played(coordinator, rounds=1)
    named = {what: ref for what, _, ref in named_blobs(run)}
    outputs = outputs_of(run, 1)
    where = f"round 1 of {run.run}"
    assert named[f"The applied delta of {where}"] == outputs.applied_delta
    assert named[f"The server_state of {where}"] == outputs.server_state


def test_residuals_are_of_the_sizes_that_encoding_drops(coordinator: Coordinator) -> None:
    run = played(coordinator, rounds=1)
    state = outputs_of(run, 1).server_state
    assert state is not None
    residual = slots_of(read_blob(coordinator.blobs, state), ELEMENTS)[1]["residual"]
    assert 0 < np.abs(residual).max() < 0.03 / 127


# --- evidence ---------------------------------------------------------------------------------------------------------


def test_evidence_with_deltas_holds_the_states_that_rounds_started_from_for_who_may_read_them(
    coordinator: Coordinator,
) -> None:
    run = played(coordinator, delta_audience=["north"])
    states = {ref for record in run.committed("train") if (ref := record.opened.inputs.server_state) is not None}
    assert len(states) == 2
    for institution, may in ((None, True), ("north", True), ("south", False)):
        found = select(Holdings(coordinator.envelopes(), institution=institution, blobs=coordinator.blobs))
        assert states.isdisjoint(found.contents.blobs) != may
        lacking = "" if institution != "south" else "the server_state"
        assert all(lacking in text for text in found.absent[1:])
        assert bool(found.absent) != may
