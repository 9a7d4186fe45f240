"""Verification of an honest ledger, and of every ledger that is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from common.errors import UnknownObject
from common.ledger.state import RoundRecord, RunRecord
from common.statements.kinds import RoundOutputs, SealedInput
from common.verify.material import Material, Own
from common.verify.report import Outcome, Report
from common.verify.verify import verify
from tests.support.coordinators import Coordinator
from tests.support.participants import RUN

Spoil = Callable[[list[bytes]], list[bytes]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinator]:
    """A run of three rounds and its evaluation, all deltas kept."""
    coordinator = Coordinator(tmp_path_factory.mktemp("verify") / "coordinator")
    coordinator.start_run(rounds=3)
    for participant in coordinator.participants.values():
        participant.answer()
    coordinator.play()
    yield coordinator
    coordinator.close()


def material(coordinator: Coordinator, **changes: object) -> Material:
    fields = {"envelopes": coordinator.envelopes(), "blobs": coordinator.blobs, "fingerprint": fingerprint(coordinator)}
    return Material(**fields | changes)  # type: ignore[arg-type]


def fingerprint(coordinator: Coordinator) -> str:
    return coordinator.state.genesis_place.digest


def own(coordinator: Coordinator, name: str = "north", **changed: str) -> Own:
    signed = {
        f"contribution/{record.place.digest}": record.contributions[name].place.digest
        for record in coordinator.run.rounds
    }
    return Own(name, signed | changed)


def failures(report: Report) -> list[tuple[str, int | None, str]]:
    return [
        (check.name, finding.leaf, finding.text)
        for check in report.checks
        for finding in check.findings
        if finding.outcome is Outcome.FAILED
    ]


def test_an_honest_run_is_verified_in_every_part(finished: Coordinator) -> None:
    keys = {name: finished[name].key.public.public for name in finished.participants}
    report = verify(material(finished, own=own(finished), pins=keys), run=RUN)
    assert failures(report) == []
    assert report.outcome is Outcome.VERIFIED, [check.findings for check in report.checks]
    names = ["genesis", "history", "keys", "witnesses", "times", "own", "blobs", "rounds", "lineage"]
    assert [check.name for check in report.checks] == names
    assert report.checks[7].examined == "3 of 3 recomputed here, equal in every bit"
    assert report.as_json()["result"] == "verified"
    assert verify(material(finished), run=RUN[:6]).root == report.root


def test_without_blobs_or_a_fingerprint_there_are_gaps_with_names(finished: Coordinator) -> None:
    report = verify(material(finished, blobs=None, fingerprint=None))
    assert report.outcome is Outcome.GAPS
    texts = [finding.text for check in report.checks for finding in check.findings]
    assert texts[0] == "The fingerprint was not compared with one that is known from elsewhere."
    assert any("Round 2 of tiny-0a1b2c was not recomputed: the base model, the delta of east" in text for text in texts)


def test_without_pins_a_key_is_whom_the_operator_calls_so(finished: Coordinator) -> None:
    report = verify(material(finished, pins={}))
    texts = [finding.text for check in report.checks for finding in check.findings]
    assert "Keys that the operator calls north: they were not compared with one that is known." in texts
    wrong = verify(material(finished, pins={"north": "00" * 32}))
    assert ("keys", None, "north has another key here.") in failures(wrong)


def test_another_fingerprint_is_another_consortium(finished: Coordinator) -> None:
    found = failures(verify(material(finished, fingerprint="00" * 32)))
    assert found[0][:2] == ("genesis", 0)


def test_no_such_run_names_those_that_are_there(finished: Coordinator) -> None:
    with pytest.raises(UnknownObject, match="0 runs of this ledger begin with 'other'; runs here: tiny-0a1b2c"):
        verify(material(finished), run="other")


# --- a coordinator that edits its own ledger --------------------------------------------------------------------------


def cut(index: int) -> Spoil:
    return lambda entries: entries[:index] + entries[index + 1 :]


def swapped(index: int) -> Spoil:
    return lambda entries: [*entries[:index], entries[index + 1], entries[index], *entries[index + 2 :]]


def flipped(index: int, byte: int) -> Spoil:
    def spoil(entries: list[bytes]) -> list[bytes]:
        changed = bytearray(entries[index])
        changed[byte] ^= 1
        return [*entries[:index], bytes(changed), *entries[index + 1 :]]

    return spoil


EDITS: dict[str, Spoil] = {
    "the genesis is gone": lambda entries: entries[1:],
    "a roster is gone": cut(2),
    "an answer is gone": cut(7),
    "two entries changed places": swapped(8),
    "an entry stands twice": lambda entries: [*entries[:9], entries[8], *entries[9:]],
    "a bit of an envelope was flipped": flipped(10, 40),
    "an entry is no statement": lambda entries: [*entries[:5], b"{}", *entries[6:]],
    "an entry is empty": lambda entries: [*entries[:5], b"", *entries[6:]],
}


@pytest.mark.parametrize("claim", EDITS)
def test_an_edited_ledger_fails_with_the_leaf(finished: Coordinator, claim: str) -> None:
    entries = finished.envelopes()
    assert len(entries) > 20
    report = verify(material(finished, envelopes=EDITS[claim](entries)))
    assert report.outcome is Outcome.FAILED
    assert failures(report)[0][1] is not None


def test_an_empty_ledger_fails(finished: Coordinator) -> None:
    assert verify(Material(())).outcome is Outcome.FAILED


def test_every_bit_of_an_entry_counts(finished: Coordinator) -> None:
    entries = finished.envelopes()
    for position in range(0, len(entries[12]) * 8, 97):
        changed = bytearray(entries[12])
        changed[position // 8] ^= 1 << position % 8
        report = verify(material(finished, blobs=None, envelopes=[*entries[:12], bytes(changed), *entries[13:]]))
        assert report.outcome is Outcome.FAILED, position


# --- one's own part ---------------------------------------------------------------------------------------------------


def test_a_contribution_that_the_journal_does_not_know_fails(finished: Coordinator) -> None:
    report = verify(material(finished, own=Own("north", {})))
    assert [entry[0] for entry in failures(report)] == ["own"] * 4


def test_two_contributions_in_one_slot_show(finished: Coordinator) -> None:
    slot = f"contribution/{finished.run.rounds[1].place.digest}"
    (found,) = failures(verify(material(finished, own=own(finished, **{slot: "11" * 32}))))
    assert "two were signed" in found[2]


# --- blobs that were changed ------------------------------------------------------------------------------------------


def test_a_delta_that_was_changed_on_disk_fails_the_round(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path / "coordinator")
    coordinator.start_run(rounds=1)
    for participant in coordinator.participants.values():
        participant.answer()
    coordinator.play()
    ref = coordinator.run.rounds[0].contributions["north"].contribution.blobs["delta"]
    path = coordinator.blobs.path(ref)
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    found = failures(verify(material(coordinator)))
    assert [(name, "cannot be recomputed" in text) for name, _, text in found] == [("rounds", True)]
    coordinator.close()


# --- a coordinator that signs what is not so --------------------------------------------------------------------------


def played(coordinator: Coordinator, rounds: int = 2) -> Report:
    coordinator.start_run(rounds=rounds)
    for participant in coordinator.participants.values():
        participant.answer()
    coordinator.play()
    report = verify(material(coordinator))
    coordinator.close()
    return report


def test_a_model_that_the_contributions_do_not_give_fails_its_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator = Coordinator(tmp_path / "coordinator")
    honest = coordinator.aggregation.aggregate

    def swapped_in_round_two(run: RunRecord, current: RoundRecord, inputs: Sequence[SealedInput]) -> RoundOutputs:
        return honest(run, current, inputs) if current.number == 1 else RoundOutputs(model=current.opened.inputs.model)

    monkeypatch.setattr(coordinator.aggregation, "aggregate", swapped_in_round_two)
    ((name, leaf, text),) = failures(played(coordinator))
    assert (name, text) == (
        "rounds",
        "Round 2 of tiny-0a1b2c was committed with another model than its contributions give.",
    )
    assert leaf == coordinator.run.rounds[1].closed_place.index  # type: ignore[union-attr]


def test_a_contribution_left_out_of_the_sum_fails_its_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coordinator = Coordinator(tmp_path / "coordinator")
    honest = coordinator.aggregation.aggregate
    monkeypatch.setattr(
        coordinator.aggregation, "aggregate", lambda run, current, inputs: honest(run, current, inputs[:-1])
    )
    assert [entry[0] for entry in failures(played(coordinator))] == ["rounds", "rounds"]
