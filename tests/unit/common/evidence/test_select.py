"""What goes into a bundle: whole runs, who may sign, own measurements, notes for and against; nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from common.blobs.reference import BlobRef
from common.blobs.store import FolderBlobStore
from common.errors import BadSignature, LedgerConflict, UsageError
from common.evidence.format import Measured, claimed_head
from common.evidence.select import Holdings, Selection, select
from common.identity.keys import SigningKey
from common.ledger.notes import cosign, parse_note
from common.verify.report import Outcome
from tests.support.coordinators import Coordinator
from tests.support.evidence import (
    MadeLedger,
    a_ledger,
    bundle,
    failures,
    gaps,
    present,
    report_on,
)


def chosen(ledger: MadeLedger, *notes: bytes, first: int = 0, last: int | None = None) -> Selection:
    return select(Holdings(ledger.entries, notes or [ledger.checkpoint(ledger.size)]), first, last)


def verified(selection: Selection, ledger: MadeLedger, folder: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """Failures, and the checks that have gaps."""
    path = folder / f"{len(list(folder.iterdir()))}.evidence"
    path.write_bytes(bundle(selection))
    report = report_on(path, ledger.fingerprint, ledger.pins)
    return failures(report), [check.name for check in report.checks if check.outcome is Outcome.GAPS]


def test_everything_is_shown_by_default(ledger: MadeLedger, tmp_path: Path) -> None:
    found = chosen(ledger)
    assert (found.first, found.last, found.withheld, found.covered) == (0, 34, 0, 35)
    assert found.runs == ("alpha", "beta", "gamma")
    assert present(bundle(found)) == set(range(35))
    assert verified(found, ledger, tmp_path) == ([], ["witnesses", "rounds", "rounds", "rounds"])


@pytest.mark.parametrize("run", ["alpha", "beta", "gamma"])
def test_a_run_is_shown_whole_up_to_the_ranges_end_and_others_not_at_all(
    ledger: MadeLedger, tmp_path: Path, run: str
) -> None:
    span = ledger.spans[run]
    found = chosen(ledger, first=span[-3], last=span[-2])
    assert present(bundle(found)) == {0, 1, *span[:-1]}
    assert (found.runs, found.withheld) == ((run,), 35 - 2 - len(span) + 1)
    failed, open_checks = verified(found, ledger, tmp_path)
    assert failed == []
    assert open_checks == ["history", "witnesses", "rounds", "lineage"]


def test_a_range_over_two_runs_shows_both(ledger: MadeLedger) -> None:
    found = chosen(ledger, first=ledger.spans["alpha"][-1], last=ledger.spans["beta"][0])
    assert present(bundle(found)) == {0, 1, *ledger.spans["alpha"], ledger.spans["beta"][0]}


def test_rosters_and_leaves_are_shown_wherever_they_stand(tmp_path: Path) -> None:
    ledger = a_ledger("alpha")
    ledger.roster(roles=("trainer",))
    ledger.run("beta")
    ledger.leave("south")
    found = chosen(ledger, first=0, last=5)
    assert present(bundle(found)) == {*range(6), 13, 25}
    assert verified(found, ledger, tmp_path)[0] == []


def test_a_range_that_is_none_is_named(ledger: MadeLedger) -> None:
    for first, last in ((3, 2), (0, 35), (-1, 3), (35, None)):
        with pytest.raises(UsageError, match=r"is none of this ledger, which has entries 0 to 34"):
            chosen(ledger, first=first, last=last)
    with pytest.raises(UsageError, match="not even a genesis"):
        select(Holdings([]))


def test_a_ledger_that_breaks_a_rule_is_not_exported(ledger: MadeLedger) -> None:
    with pytest.raises(LedgerConflict):
        select(Holdings([*ledger.entries[:16], *ledger.entries[17:]]))


# --- what checkpoints cover -------------------------------------------------------------------------------------------


def test_without_a_checkpoint_everything_can_be_shown_and_nothing_withheld(ledger: MadeLedger, tmp_path: Path) -> None:
    found = select(Holdings(ledger.entries))
    (tmp_path / "bundle").write_bytes(bundle(found))
    report = report_on(tmp_path / "bundle", ledger.fingerprint, ledger.pins)
    assert failures(report) == []
    assert ("evidence", "Entries 0 to 34 are in no checkpoint in this file: signatures alone say that nothing after was "
            "left out.") in gaps(report)  # fmt: skip
    with pytest.raises(UsageError, match="Entry 2 would be withheld, and no checkpoint that is held here covers it"):
        select(Holdings(ledger.entries), 13)
    assert select(Holdings(ledger.entries), 0, 20).withheld == 0


def test_what_lies_beyond_the_largest_checkpoint_is_shown_or_the_range_is_refused(ledger: MadeLedger) -> None:
    note = ledger.checkpoint(24)
    found = chosen(ledger, note, first=24)
    assert (found.covered, present(bundle(found))) == (24, {0, 1, *range(24, 35)})
    assert chosen(ledger, note, first=0, last=20).withheld == 24 - 21
    interleaved = a_ledger()
    interleaved.run("alpha", between=lambda: interleaved.run("beta"))
    with pytest.raises(UsageError, match=r"Entry 8 would be withheld.* the largest has 8 entries") as caught:
        chosen(interleaved, interleaved.checkpoint(8), first=20)
    assert "--to 7" in caught.value.fix


@pytest.mark.parametrize(("size", "sizes"), [(19, [19, 35]), (8, [35]), (30, [35])])
def test_a_checkpoint_that_contributions_name_goes_in_where_only_withheld_entries_are_around_it(
    tmp_path: Path, size: int, sizes: list[int]
) -> None:
    ledger = a_ledger()
    ledger.run("alpha", between=lambda: (ledger.run("beta"), ledger.run("gamma")), names=size)
    found = chosen(ledger, first=ledger.size - 1)
    assert found.runs == ("alpha",)
    assert present(bundle(found)) == {*range(8), *range(30, 35)}
    assert [claimed_head(parse_note(each)).size for each in found.contents.checkpoints] == sizes
    failed, open_checks = verified(found, ledger, tmp_path)
    assert (failed, open_checks) == ([], ["history", "witnesses", "rounds"])


def test_a_named_checkpoint_that_cannot_be_compared_is_a_gap_and_no_crash(tmp_path: Path) -> None:
    ledger = a_ledger()
    ledger.run("alpha", between=lambda: (ledger.run("beta"), ledger.run("gamma")), names=19)
    contents = chosen(ledger, first=ledger.size - 1).contents
    (tmp_path / "bundle").write_bytes(bundle(replace(contents, checkpoints=contents.checkpoints[1:])))
    report = report_on(tmp_path / "bundle", ledger.fingerprint, ledger.pins)
    assert failures(report) == []
    assert any(
        "of 19 entries was not compared: entries before its end are withheld." in text for _, text in gaps(report)
    )


# --- notes ------------------------------------------------------------------------------------------------------------


def test_notes_of_one_tree_become_one_and_strangers_signatures_are_left_out(ledger: MadeLedger) -> None:
    notes = [ledger.checkpoint(35, "south"), ledger.checkpoint(35, "north"), ledger.checkpoint(35)]
    stranger = cosign(parse_note(notes[-1]), "hospitals.llmasos/stranger", SigningKey.generate(), seconds=1)
    notes.append(stranger.encode())
    (note,) = chosen(ledger, *notes).contents.checkpoints
    names = [each.name for each in parse_note(note).signatures]
    assert names == ["hospitals.llmasos/ledger", "hospitals.llmasos/north", "hospitals.llmasos/south"]


def test_a_witness_counts_as_of_the_checkpoints_roster() -> None:
    ledger = a_ledger("alpha")
    ledger.roster(roles=("trainer",))
    before, after = chosen(ledger, ledger.checkpoint(13, "north"), ledger.checkpoint(14, "north")).contents.checkpoints
    assert (len(parse_note(before).signatures), len(parse_note(after).signatures)) == (2, 1)


def test_a_note_that_the_log_did_not_sign_stops_the_export(ledger: MadeLedger) -> None:
    with pytest.raises(BadSignature, match=r"not signed by hospitals\.llmasos/ledger"):
        chosen(ledger, ledger.checkpoint(35, key=SigningKey.generate()))


def test_a_note_beyond_the_ledger_that_is_held_says_nothing_and_two_prove_two_histories(ledger: MadeLedger) -> None:
    beyond = [ledger.checkpoint(50, root=bytes([index]) * 32) for index in (1, 2)]
    newest = ledger.checkpoint(35)
    assert chosen(ledger, newest, beyond[0]).contents.conflicting == ()
    found = chosen(ledger, newest, *beyond).contents
    assert (set(found.conflicting), len(found.checkpoints)) == (set(beyond), 1)
    fork = ledger.checkpoint(20, root=bytes(32))
    assert chosen(ledger, newest, fork).contents.conflicting == (fork,)


# --- measurements, models and deltas ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Coordinator:
    coordinator = Coordinator(tmp_path_factory.mktemp("select") / "coordinator")
    coordinator.start_run(rounds=2)
    for participant in coordinator.participants.values():
        participant.answer()
    coordinator.play()
    return coordinator


def delta(coordinator: Coordinator, name: str, number: int = 1) -> BlobRef:
    return coordinator.run.rounds[number - 1].contributions[name].contribution.blobs["delta"]


def taken(coordinator: Coordinator, reader: str | None, first: int = 0, last: int | None = None) -> Selection:
    holdings = Holdings(coordinator.envelopes(), institution=reader, blobs=coordinator.blobs)
    return select(holdings, first, last)


def test_an_institution_takes_out_its_own_deltas_and_the_models(finished: Coordinator) -> None:
    found = taken(finished, "north")
    rounds = finished.run.committed()
    models = {finished.run.statement.initial.model, *(each.closed.outputs.model for each in rounds if each.closed)}
    assert set(found.contents.blobs) == {delta(finished, "north", 1), delta(finished, "north", 2), *models}
    assert found.deltas == {"north": 2}
    assert found.absent == tuple(
        f"round {number} of tiny-0a1b2c: the delta of east, the delta of south not visible here" for number in (1, 2)
    )
    assert [ref.root for ref in found.contents.blobs] == sorted(ref.root for ref in found.contents.blobs)


def test_the_coordinator_takes_out_all_of_the_rounds_that_the_range_closes(finished: Coordinator) -> None:
    assert taken(finished, None).deltas == {"east": 2, "north": 2, "south": 2}
    closed = finished.run.rounds[0].closed_place
    assert closed is not None
    assert taken(finished, None, 0, closed.index).deltas == {"east": 1, "north": 1, "south": 1}
    assert taken(finished, None, 0, closed.index - 1).deltas == {}


def test_an_auditor_of_the_plan_takes_out_what_it_may_read(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path / "coordinator")
    coordinator.start_run(rounds=1, delta_audience=("south",))
    for participant in coordinator.participants.values():
        participant.answer()
    coordinator.play()
    assert taken(coordinator, "south").deltas == {"east": 1, "north": 1, "south": 1}
    assert taken(coordinator, "east").deltas == {"east": 1}
    coordinator.close()


def test_what_is_not_held_is_named(finished: Coordinator, tmp_path: Path) -> None:
    empty = FolderBlobStore(tmp_path / "blobs")
    found = select(Holdings(finished.envelopes(), institution="north", blobs=empty))
    assert (found.contents.blobs, found.deltas) == ((), {})
    assert found.absent[0] == (
        "round 1 of tiny-0a1b2c: a model, the delta of north not held here; the delta of east, the delta of south not "
        "visible here"
    )
    assert len(found.absent) == 2


def test_measurements_go_in_with_their_contributions_only(finished: Coordinator) -> None:
    places = [record.contributions["north"].place for record in finished.run.rounds]
    metrics = {place.digest: Measured(place.digest, bytes(32), b"{}") for place in places} | {
        "ab" * 32: Measured("ab" * 32, bytes(32), b"{}")
    }
    holdings = Holdings(finished.envelopes(), metrics=metrics)
    assert [each.contribution for each in select(holdings).contents.metrics] == sorted(each.digest for each in places)
    early = select(holdings, 0, places[0].index).contents.metrics
    assert [each.contribution for each in early] == [places[0].digest]
