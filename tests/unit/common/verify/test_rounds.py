"""Rounds: recomputed here, attested by an auditor, or neither; and what contradicts what."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from common.blobs.reader import BlobReader
from common.blobs.reference import BlobRef
from common.errors import MissingBlob
from common.ledger.state import RoundRecord, RunRecord
from common.statements.kinds import Attestation, RoundOutputs, SealedInput
from common.verify.material import Blobs
from common.verify.report import Check, Finding, Outcome
from common.verify.rounds import Fetching, check_rounds
from tests.support.coordinators import Coordinator
from tests.support.participants import RUN
from tests.support.statements import a_blob_ref

AUDITORS = ("court-auditor", "uni-auditor")
OTHER = a_blob_ref("another model")


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    """A run of three rounds, and two auditors."""
    made = Coordinator(tmp_path / "coordinator")
    for name in AUDITORS:
        made.enrol(name, roles=("auditor",))
    yield made
    made.close()


def played(coordinator: Coordinator, audience: Sequence[str] = AUDITORS) -> None:
    auditors = {name: coordinator.participants.pop(name) for name in AUDITORS}  # they answer no plan
    coordinator.start_run(rounds=3, delta_audience=tuple(audience))
    coordinator.play()
    coordinator.participants |= auditors


def attest(coordinator: Coordinator, number: int, name: str = "court-auditor", model: BlobRef | None = None) -> int:
    """As `audit` does; with a model, that one is found instead of the committed one."""
    record = coordinator.run.rounds[number - 1]
    assert record.closed is not None
    assert record.closed_place is not None
    committed = record.closed.outputs.model
    found = model or committed
    said = Attestation(
        institution=name, run=RUN, round=number, result="equal" if found == committed else "different", model=found
    )
    return coordinator[name].submit(coordinator[name].sign(said, "round-closed", record.closed_place.digest))


class Part:
    """The coordinator's blobs without the deltas of some rounds: what an institution may hold."""

    def __init__(self, coordinator: Coordinator, without: Collection[int] = ()) -> None:
        self._blobs = coordinator.blobs
        self.hidden = {
            entry.contribution.blobs["delta"]
            for record in coordinator.run.committed()
            if record.number in without
            for entry in record.contributions.values()
        }

    def contains(self, ref: BlobRef) -> bool:
        return ref not in self.hidden and self._blobs.contains(ref)

    def open(self, ref: BlobRef) -> BlobReader:
        return self._blobs.open(ref)


def checked(coordinator: Coordinator, blobs: Blobs | None) -> Check:
    return check_rounds(coordinator.run, blobs, lambda run, number: None)


def texts(check: Check, outcome: Outcome) -> list[str]:
    return [finding.text for finding in check.findings if finding.outcome is outcome]


def test_a_round_that_cannot_be_recomputed_here_rests_on_an_auditor_who_is_named(coordinator: Coordinator) -> None:
    played(coordinator)
    attest(coordinator, 2)
    check = checked(coordinator, Part(coordinator, without={2, 3}))
    assert check.examined == "1 of 3 recomputed here, equal in every bit; 1 attested by court-auditor; 1 neither"
    assert texts(check, Outcome.GAPS) == [
        f"Round 3 of {RUN} was not recomputed: the delta of east, the delta of north, the delta of south not held here."
    ]
    attest(coordinator, 3, "uni-auditor")
    check = checked(coordinator, Part(coordinator, without={2, 3}))
    assert check.outcome is Outcome.VERIFIED
    assert check.examined == (
        "1 of 3 recomputed here, equal in every bit; 2 attested by court-auditor, uni-auditor; 0 neither"
    )


def test_an_auditor_whom_no_institution_accepted_stands_in_for_nothing(coordinator: Coordinator) -> None:
    """The operator gives the role to whom it wants, also after the run; the plan is what all trainers accepted."""
    played(coordinator, audience=("uni-auditor",))
    coordinator.enrol("late-auditor", roles=("auditor",))
    for name in ("court-auditor", "late-auditor"):
        attest(coordinator, 2, name)
    check = checked(coordinator, Part(coordinator, without={2}))
    assert check.examined == "2 of 3 recomputed here, equal in every bit"
    (text,) = texts(check, Outcome.GAPS)
    assert text.endswith(
        "not held here. court-auditor, late-auditor attests it, "
        "to whom the plan that institutions accepted shows no delta."
    )
    attest(coordinator, 2, "uni-auditor")
    check = checked(coordinator, Part(coordinator, without={2}))
    assert (check.outcome, check.examined) == (
        Outcome.VERIFIED,
        "2 of 3 recomputed here, equal in every bit; 1 attested by uni-auditor; 0 neither",
    )


def test_a_delta_that_is_too_long_for_the_plan_fails_the_round_that_used_it(coordinator: Coordinator) -> None:
    """It gives the very model that was committed: a coordinator that looks away is found by the bound alone."""
    played(coordinator)
    run = coordinator.run
    plan = run.statement.plan.model_copy(update={"max_delta_l2": Decimal("0.000000001")})
    strict = replace(run, statement=run.statement.model_copy(update={"plan": plan}))
    check = check_rounds(strict, coordinator.blobs, lambda run, number: None)
    assert check.examined == "0 of 3 recomputed here, equal in every bit"
    found = texts(check, Outcome.FAILED)
    assert len(found) == 3
    assert found[0].startswith(f"Round 1 of {RUN} cannot be recomputed: The delta's L2 norm is ")
    assert found[0].endswith("the plan's max_delta_l2 is 1e-09. (delta-too-long)")


def test_what_was_recomputed_here_needs_no_auditor(coordinator: Coordinator) -> None:
    played(coordinator)
    attest(coordinator, 1)
    check = checked(coordinator, coordinator.blobs)
    assert (check.outcome, check.examined) == (Outcome.VERIFIED, "3 of 3 recomputed here, equal in every bit")


def test_an_auditor_who_found_another_model_fails_the_round_by_name(coordinator: Coordinator) -> None:
    played(coordinator)
    leaf = attest(coordinator, 2, model=OTHER)
    attest(coordinator, 2, "uni-auditor")
    check = checked(coordinator, Part(coordinator, without={1, 2, 3}))
    (finding,) = [each for each in check.findings if each.outcome is Outcome.FAILED]
    committed = coordinator.run.rounds[2].opened.inputs.model
    text = f"court-auditor recomputed round 2 of {RUN} and found another model than was committed."
    assert finding == Finding(Outcome.FAILED, text, leaf, str(OTHER), str(committed), "court-auditor")


def test_an_auditor_whom_ones_own_recomputation_contradicts_is_shown_as_such(coordinator: Coordinator) -> None:
    played(coordinator)
    attest(coordinator, 2, model=OTHER)
    (text,) = texts(checked(coordinator, coordinator.blobs), Outcome.FAILED)
    assert text.endswith("than was committed. Recomputed here it is the one that was committed.")


def test_an_auditor_who_attests_what_is_not_so_is_shown_beside_the_round(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = coordinator.aggregation.aggregate

    def swapped_in_round_two(run: RunRecord, current: RoundRecord, inputs: Sequence[SealedInput]) -> RoundOutputs:
        return honest(run, current, inputs) if current.number != 2 else RoundOutputs(model=current.opened.inputs.model)

    monkeypatch.setattr(coordinator.aggregation, "aggregate", swapped_in_round_two)
    played(coordinator)
    attest(coordinator, 2)
    check = checked(coordinator, coordinator.blobs)
    assert [(each.text, each.signer) for each in check.findings] == [
        (f"Round 2 of {RUN} was committed with another model than its contributions give.", "coordinator"),
        (f"court-auditor attests round 2 of {RUN} as equal, which it is not.", "court-auditor"),
    ]
    assert check.examined == "2 of 3 recomputed here, equal in every bit"


def test_what_was_deleted_while_it_was_read_is_a_gap_and_no_failure(coordinator: Coordinator) -> None:
    played(coordinator)

    class Vanishing(Part):
        def open(self, ref: BlobRef) -> BlobReader:
            raise MissingBlob("Blob is not in the blob folder.")

    check = checked(coordinator, Vanishing(coordinator))
    assert [each.outcome for each in check.findings] == [Outcome.GAPS] * 3
    assert "given up while they were read" in check.findings[0].text


# --- blobs that can be brought ----------------------------------------------------------------------------------------


class Bringing(Part):
    """Brings the deltas of a round when it is asked to, unless it says why not."""

    def __init__(self, coordinator: Coordinator, without: Collection[int], why: str = "") -> None:
        super().__init__(coordinator, without)
        self.away, self.why, self.asked = set(self.hidden), why, 0

    def bring(self, refs: Sequence[BlobRef]) -> Mapping[BlobRef, str]:
        self.asked += 1
        if self.why:
            return {ref: self.why for ref in refs if ref in self.away}
        self.hidden -= set(refs)
        return {}

    def let_go(self) -> None:
        self.hidden |= self.away


def test_what_can_be_brought_is_recomputed_round_by_round(coordinator: Coordinator) -> None:
    played(coordinator)
    blobs = Bringing(coordinator, {1, 2, 3})
    assert isinstance(blobs, Fetching)
    check = checked(coordinator, blobs)
    assert (check.outcome, blobs.asked) == (Outcome.VERIFIED, 3)
    assert blobs.hidden == blobs.away, "nothing is kept of it"


def test_what_cannot_be_brought_says_why(coordinator: Coordinator) -> None:
    played(coordinator)
    check = checked(coordinator, Bringing(coordinator, {3}, "not retained by the coordinator"))
    assert texts(check, Outcome.GAPS) == [
        f"Round 3 of {RUN} was not recomputed: the delta of east, the delta of north, the delta of south "
        "not retained by the coordinator."
    ]
