"""What only a bundle can get wrong: measurements, blobs, signatures of strangers, and notes that prove two histories."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from common.blobs.store import FolderBlobStore
from common.errors import MalformedStatement
from common.evidence.checks import refused_report
from common.evidence.format import Contents, Measured
from common.evidence.select import Holdings, select
from common.identity.keys import SigningKey
from common.ledger.notes import cosign, parse_note
from common.statements.envelope import parse
from common.statements.kinds import Kind
from common.verify.report import Outcome, Report
from tests.support.blobs import put_blob
from tests.support.evidence import MadeLedger, bundle, failures, gaps, report_on, with_digest


@pytest.fixture
def contents(ledger: MadeLedger) -> Contents:
    """All of the ledger, under a checkpoint that two cosigned."""
    return select(Holdings(ledger.entries, [ledger.checkpoint(35, "north", "south")])).contents


def judged(contents: Contents, ledger: MadeLedger, folder: Path) -> Report:
    (folder / "bundle").write_bytes(bundle(contents))
    return report_on(folder / "bundle", ledger.fingerprint, ledger.pins)


def test_without_pins_or_a_fingerprint_there_are_gaps(contents: Contents, ledger: MadeLedger, tmp_path: Path) -> None:
    judged(contents, ledger, tmp_path)
    report = report_on(tmp_path / "bundle")
    assert failures(report) == []
    texts = [text for _, text in gaps(report)]
    assert "The fingerprint was not compared with one that is known from elsewhere." in texts
    assert "Keys that the operator calls north: they were not compared with one that is known." in texts


def test_another_pin_or_fingerprint_fails(contents: Contents, ledger: MadeLedger, tmp_path: Path) -> None:
    judged(contents, ledger, tmp_path)
    assert [name for name, _ in failures(report_on(tmp_path / "bundle", "00" * 32))] == ["genesis"]
    assert [name for name, _ in failures(report_on(tmp_path / "bundle", pins={"north": "00" * 32}))] == ["keys"]


# --- signatures on checkpoints ----------------------------------------------------------------------------------------


def test_a_strangers_signature_fails(contents: Contents, ledger: MadeLedger, tmp_path: Path) -> None:
    note = parse_note(contents.checkpoints[0])
    strange = cosign(note, "hospitals.llmasos/stranger", SigningKey.generate(), seconds=1)
    found = failures(judged(replace(contents, checkpoints=[strange.encode()]), ledger, tmp_path))
    assert found == [
        (
            "witnesses",
            "hospitals.llmasos/stranger signed the checkpoint of 35 entries and was no witness then: it counts for nothing.",
        )
    ]


def test_another_key_under_a_witness_name_is_a_strangers(
    contents: Contents, ledger: MadeLedger, tmp_path: Path
) -> None:
    note = parse_note(contents.checkpoints[0])
    forged = cosign(note, "hospitals.llmasos/east", SigningKey.generate(), seconds=1)
    (found,) = failures(judged(replace(contents, checkpoints=[forged.encode()]), ledger, tmp_path))
    assert "hospitals.llmasos/east signed the checkpoint of 35 entries" in found[1]


def test_a_checkpoint_that_the_log_did_not_sign_fails(contents: Contents, ledger: MadeLedger, tmp_path: Path) -> None:
    forged = ledger.checkpoint(35, "north", key=SigningKey.generate())
    found = failures(judged(replace(contents, checkpoints=[forged]), ledger, tmp_path))
    assert found[0][0] == "witnesses"
    assert "is not one that this log signed" in found[0][1]


def test_a_checkpoint_of_another_tree_fails(contents: Contents, ledger: MadeLedger, tmp_path: Path) -> None:
    fork = ledger.checkpoint(35, "north", root=bytes(32))
    (found,) = failures(judged(replace(contents, checkpoints=[fork]), ledger, tmp_path))
    assert "The log signed two histories of 35 entries" in found[1]


def test_a_withheld_entrys_hash_that_is_another_fails(ledger: MadeLedger, tmp_path: Path) -> None:
    data = bundle(select(Holdings(ledger.entries, [ledger.checkpoint(35)]), 24))
    last = data.index(b"\n", data.index(b"subtree ")) - 1
    other = b"1" if data[last : last + 1] == b"0" else b"0"
    (tmp_path / "bundle").write_bytes(with_digest(data[:last] + other + data[last + 1 :]))
    found = failures(report_on(tmp_path / "bundle", ledger.fingerprint, ledger.pins))
    assert found[0] == (
        "witnesses",
        "The log signed two histories of 35 entries: a checkpoint held here is of another one than this.",
    )


# --- two histories ----------------------------------------------------------------------------------------------------


def histories(contents: Contents, ledger: MadeLedger, folder: Path, *notes: bytes) -> list[str]:
    report = judged(replace(contents, conflicting=sorted(notes)), ledger, folder)
    assert report.outcome is Outcome.FAILED
    return [text for name, text in failures(report) if name == "histories"]


def test_a_note_of_another_tree_proves_two_histories(contents: Contents, ledger: MadeLedger, tmp_path: Path) -> None:
    fork = ledger.checkpoint(20, "north", root=bytes(32))
    assert histories(contents, ledger, tmp_path, fork) == [
        "The log signed two histories of 20 entries: this one, and another one."
    ]
    report = report_on(tmp_path / "bundle", ledger.fingerprint, ledger.pins)
    (finding,) = next(check for check in report.checks if check.name == "histories").findings
    assert (finding.leaf, finding.signer, finding.got) == (19, "log", "00" * 32)
    assert finding.expected == ledger.head(20).root.hex()


def test_two_notes_beyond_the_history_prove_it_too(contents: Contents, ledger: MadeLedger, tmp_path: Path) -> None:
    notes = [ledger.checkpoint(50, root=bytes([index]) * 32) for index in (1, 2)]
    assert (
        histories(contents, ledger, tmp_path, *notes)
        == ["The log signed two histories of 50 entries, in two notes in this file."] * 2
    )


def test_nobody_is_accused_by_a_history_that_the_log_did_not_sign(
    contents: Contents, ledger: MadeLedger, tmp_path: Path
) -> None:
    """Whoever holds a genuine checkpoint could write a shorter history of genuine entries beside it."""
    shorter = [*ledger.entries[:7], *ledger.entries[8:13]]
    genuine = ledger.checkpoint(12)
    beside = replace(contents, checkpoints=(), envelopes=shorter)
    (found,) = histories(beside, ledger, tmp_path, genuine)
    assert "of which the log signed 0 entries here: whose fault that is this file does not show." in found
    (alone,) = histories(contents, ledger, tmp_path, ledger.checkpoint(50, root=bytes(32)))
    assert "A note of 50 entries is not of this history, of which the log signed 35 entries here" in alone


def test_a_note_that_contradicts_nothing_fails_as_such(contents: Contents, ledger: MadeLedger, tmp_path: Path) -> None:
    (own,) = histories(contents, ledger, tmp_path, ledger.checkpoint(20))
    assert own == "A note of 20 entries is said to contradict this history, and is of it."
    (forged,) = histories(contents, ledger, tmp_path, ledger.checkpoint(20, root=bytes(32), key=SigningKey.generate()))
    assert forged.startswith("A note that is said to contradict this history is not the log's: A note is not signed by")


# --- what else is in the file -----------------------------------------------------------------------------------------


def contribution_of(ledger: MadeLedger) -> str:
    return next(each.digest for each in map(parse, ledger.entries) if each.kind is Kind.CONTRIBUTION)


def test_measurements_that_no_contribution_commits_to_fail(
    contents: Contents, ledger: MadeLedger, tmp_path: Path
) -> None:
    measured = Measured(contribution_of(ledger), bytes(32), b"{}")
    (found,) = failures(judged(replace(contents, metrics=[measured]), ledger, tmp_path))
    assert found == (
        "evidence",
        "The measurements beside the contribution of east are not those that it commits to.",
    )
    stray = Measured("ab" * 32, bytes(32), b"{}")
    (found,) = failures(judged(replace(contents, metrics=[stray]), ledger, tmp_path))
    assert found[1] == "Measurements belong to no contribution in this file."


def test_a_blob_that_no_statement_names_fails(contents: Contents, ledger: MadeLedger, tmp_path: Path) -> None:
    store = FolderBlobStore(tmp_path / "blobs")
    ref = put_blob(store, b"years of work")
    (found,) = failures(judged(replace(contents, blobs=[ref], source=store), ledger, tmp_path))
    assert found[1].startswith("No statement in this file names its blob blake3:")


def test_a_refused_file_has_a_report_too() -> None:
    report = refused_report(MalformedStatement("At byte 7 it is none."))
    assert report.outcome is Outcome.FAILED
    assert failures(report) == [("evidence", "At byte 7 it is none. (malformed-statement)")]
    assert report.as_json()["result"] == "failed"
