"""evidence: one file for anybody, a folder for the own shelf; and what a stranger's machine says of the file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.blobs.store import FolderBlobStore
from common.identity.keys import SigningKey
from common.ledger.heads import signed_checkpoint, tree_of
from common.ledger.merkle import TreeHead
from common.ledger.notes import Note, checkpoint_text, parse_note, sign_note
from common.terminal import WIDTH, exit_code_of
from llmasos.cli import app as llmasos_app
from participant.memory.journal import CheckpointKind, Journal, KeptCheckpoint, SignedSlot
from participant.tasks import contribution_slot
from tests.support.blobs import put_blob, read_blob
from tests.support.coordinators import Coordinator
from tests.support.evidence import present
from tests.support.participant_homes import ParticipantHome
from tests.support.participants import RUN

Output = pytest.CaptureFixture[str]


@pytest.fixture
def home(tmp_path: Path, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> ParticipantHome:
    """North, after a run of two rounds: it holds what it signed, its own first delta, both models and a checkpoint."""
    monkeypatch.delenv("LLMASOS_HOME", raising=False)
    made = ParticipantHome(tmp_path / "home", coordinator)
    coordinator.start_run(rounds=2)
    for participant in coordinator.participants.values():
        participant.answer()
    coordinator.play()
    made.follow()
    journal, envelopes = Journal(made.layout.journal), coordinator.envelopes()
    metrics = coordinator.database.metrics(RUN)
    for record in coordinator.run.rounds:
        place = record.contributions["north"].place
        beside = metrics[place.digest]
        at = "2026-01-01T00:00:00.000Z"
        journal.sign(
            SignedSlot(contribution_slot(record), place.digest, envelopes[place.index], beside.content, beside.salt, at)
        )
    journal.close()
    keep(made, "newest", newest(coordinator))
    store = FolderBlobStore(made.layout.blobs)
    run = coordinator.run
    for ref in (
        run.statement.initial.model,
        run.model,
        run.rounds[0].contributions["north"].contribution.blobs["delta"],
    ):
        assert put_blob(store, read_blob(coordinator.blobs, ref)) == ref
    store.close()
    return made


def newest(coordinator: Coordinator) -> Note:
    key = SigningKey.load(coordinator.layout.log_key)
    return signed_checkpoint(tree_of(coordinator.envelopes()), coordinator.state.genesis, key)


def fork(coordinator: Coordinator, size: int) -> Note:
    origin = coordinator.state.genesis.log.origin
    text = checkpoint_text(origin, TreeHead(size, bytes(32)))
    return sign_note(Note(text), origin, SigningKey.load(coordinator.layout.log_key))


def keep(home: ParticipantHome, kind: CheckpointKind, note: Note) -> None:
    size = int(note.text.split("\n")[1])
    journal = Journal(home.layout.journal)
    journal.keep_checkpoints(kind, [KeptCheckpoint(size, "", note.encode(), "2026-01-01T00:00:00.000Z")])
    journal.close()


def verify(*words: str) -> int:
    return exit_code_of(llmasos_app, ["verify", *words])


def pins(coordinator: Coordinator) -> list[str]:
    return [f"--pin={name}={each.key.public.public}" for name, each in coordinator.participants.items()]


# --- exporting --------------------------------------------------------------------------------------------------------


def test_everything_of_the_own_copy_goes_in_and_own_measurements(
    home: ParticipantHome, coordinator: Coordinator, tmp_path: Path, capsys: Output
) -> None:
    file = tmp_path / "north.evidence"
    assert home.run("evidence", "export", str(file)) == 0
    text = capsys.readouterr().out
    assert f"Evidence: {file}" in text
    assert f"{coordinator.state.size} of {coordinator.state.size} entries, 0 withheld as hashes" in text
    assert "Own measurements beside 3 contributions" in text
    assert f"llmasos verify {file.name} --fingerprint HEX" in " ".join(text.split())
    assert max(len(line) for line in text.splitlines() if str(file) not in line) <= WIDTH
    assert file.stat().st_mode & 0o777 == 0o600
    data = file.read_bytes()
    assert present(data) == set(range(coordinator.state.size))
    assert b"\nblob " not in data
    assert home.run("evidence", "export", str(file)) == 2
    assert "exists already" in capsys.readouterr().err
    assert file.read_bytes() == data


def test_a_range_is_named_and_what_is_withheld_is_counted(
    home: ParticipantHome, coordinator: Coordinator, tmp_path: Path, capsys: Output
) -> None:
    closed = coordinator.run.rounds[0].closed_place
    assert closed is not None
    file = tmp_path / "north.evidence"
    words = ("--from", "3", "--to", str(closed.index), "--format", "json")
    assert home.run("evidence", "export", str(file), *words) == 0
    data = json.loads(capsys.readouterr().out)
    later = coordinator.state.size - closed.index - 1
    assert (data["from"], data["to"], data["withheld"], data["metrics"], data["runs"]) == (
        3,
        closed.index,
        later,
        1,
        [RUN],
    )
    assert data["covered"] == data["entries"] == coordinator.state.size
    assert data["digest"] == file.read_text(errors="replace").split()[-1]
    assert home.run("evidence", "export", str(tmp_path / "b"), "--from", "9999") == 2
    assert "is none of this ledger" in capsys.readouterr().err


def test_deltas_are_those_that_are_held_and_visible(home: ParticipantHome, tmp_path: Path, capsys: Output) -> None:
    file = tmp_path / "north.evidence"
    assert home.run("evidence", "export", str(file), "--with-deltas") == 0
    flat = " ".join(capsys.readouterr().out.split())
    assert "Deltas of north: 1. Whoever gets this file can read them." in flat
    assert f"Not in it, round 2 of {RUN}: " in flat
    assert "the delta of north not held here; the delta of east, the delta of south not visible here" in flat
    assert file.read_bytes().count(b"\nblob blake3 ") == 3


# --- what a stranger finds --------------------------------------------------------------------------------------------


def test_a_machine_that_knows_nothing_else_verifies_it_when_everything_is_gone(
    home: ParticipantHome, coordinator: Coordinator, tmp_path: Path, capsys: Output
) -> None:
    file, bare = tmp_path / "court" / "north.evidence", tmp_path / "nobody"
    file.parent.mkdir()
    bare.mkdir()
    assert home.run("evidence", "export", str(file)) == 0
    fingerprint, known = coordinator.state.genesis_place.digest, pins(coordinator)
    coordinator.close()
    shutil.rmtree(coordinator.layout.home)
    shutil.rmtree(home.layout.home)
    root = str(Path(__file__).parents[4])
    environment = {"HOME": str(bare), "PATH": os.environ["PATH"], "PYTHONPATH": root}
    command = [sys.executable, "-P", "-m", "llmasos.cli", "verify", str(file), "--fingerprint", fingerprint, *known]
    done = subprocess.run(command, cwd=bare, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (4, False), done.stderr
    flat = " ".join(done.stdout.split())
    assert "3 of 3 institutions" in flat
    assert f"3 measurements, 0 blobs, {len(present(file.read_bytes()))} entries in checkpoints" in flat
    assert "Verified, with gaps" in flat
    assert max(map(len, done.stdout.splitlines())) <= WIDTH
    assert not any(bare.iterdir())


def test_without_pins_a_key_is_whom_the_operator_calls_so(
    home: ParticipantHome, tmp_path: Path, capsys: Output
) -> None:
    file, html = tmp_path / "north.evidence", tmp_path / "report.html"
    assert home.run("evidence", "export", str(file)) == 0
    capsys.readouterr()
    assert verify(str(file), "--html", str(html)) == 4
    flat = " ".join(capsys.readouterr().out.split())
    assert "Keys that the operator calls north" in flat
    assert "The fingerprint was not compared" in flat
    assert "Keys that the operator calls north" in html.read_text()
    assert verify(str(file), "--pin", f"north={'00' * 32}") == 1
    assert verify(str(file), "--fingerprint", "00" * 32, "--format", "quiet") == 1
    assert capsys.readouterr().out.rstrip().endswith("failed")
    assert verify(str(file), "--pin", "north=short") == 2


def test_two_histories_are_proven_by_the_file_that_the_error_asks_for(
    home: ParticipantHome, coordinator: Coordinator, tmp_path: Path, capsys: Output
) -> None:
    keep(home, "conflicting", fork(coordinator, 12))
    file = tmp_path / "two-histories.evidence"
    assert home.run("evidence", "export", str(file)) == 0
    assert "Notes that contradict this history, the proof of two histories: 1" in capsys.readouterr().out
    assert verify(str(file), "--fingerprint", coordinator.state.genesis_place.digest) == 1
    flat = " ".join(capsys.readouterr().out.split())
    assert "FAILED Did the log sign one history only?" in flat
    assert "leaf 11: The log signed two histories of 12 entries: this one, and another one." in flat
    assert "signed by log" in flat


def test_a_damaged_file_fails_in_every_format(home: ParticipantHome, tmp_path: Path, capsys: Output) -> None:
    file, html = tmp_path / "north.evidence", tmp_path / "report.html"
    assert home.run("evidence", "export", str(file)) == 0
    capsys.readouterr()
    file.write_bytes(file.read_bytes() + b"\n")
    assert verify(str(file), "--html", str(html)) == 1
    text = capsys.readouterr().out
    assert "does not end in its digest" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "does not end in its digest" in html.read_text()
    assert verify(str(file), "--format", "json") == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["result"], report["checks"][0]["name"]) == ("failed", "evidence")
    assert verify(str(tmp_path / "absent")) == 2


# --- the folder -------------------------------------------------------------------------------------------------------


def test_the_archive_holds_a_bundle_and_files_that_need_no_program(
    home: ParticipantHome, coordinator: Coordinator, tmp_path: Path, capsys: Output
) -> None:
    folder = tmp_path / "shelf"
    assert home.run("evidence", "archive", str(folder)) == 0
    assert "evidence.llmasos" in capsys.readouterr().out
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    for line in lines:
        digest, name = line.split("  ")
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    names = {line.split("  ")[1] for line in lines}
    assert {path.name for path in folder.iterdir()} == names | {"SHA256SUMS"}
    assert verify(str(folder / "evidence.llmasos"), "--fingerprint", coordinator.state.genesis_place.digest) == 4
    assert home.run("evidence", "archive", str(folder)) == 2


def test_a_home_that_has_followed_nothing_yet_has_its_genesis_to_show(
    tmp_path: Path, coordinator: Coordinator, capsys: Output
) -> None:
    fresh = ParticipantHome(tmp_path / "fresh", coordinator)
    file = tmp_path / "genesis.evidence"
    assert fresh.run("evidence", "export", str(file)) == 0
    assert present(file.read_bytes()) == {0}
    assert parse_note(newest(coordinator).encode()).text not in file.read_text()
    assert verify(str(file), "--fingerprint", coordinator.state.genesis_place.digest) == 4
    assert "Entry 0 is in no checkpoint in this file" in " ".join(capsys.readouterr().out.split())
