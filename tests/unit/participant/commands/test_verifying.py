"""verify and checkpoint: at the coordinator, at an institution, and where the two were shown different things."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from common.identity.keys import SigningKey
from common.ledger.heads import log_key, tree_of
from common.ledger.merkle import TreeHead
from common.ledger.notes import Note, checkpoint_text, sign_note
from common.ledger.receipts import parse_receipt, verify_receipt
from common.terminal import WIDTH, exit_code_of
from coordinator.cli import app as coordinator_app
from participant.memory.journal import Journal, SignedSlot
from participant.tasks import contribution_slot
from tests.support.coordinators import Coordinator
from tests.support.participant_homes import ParticipantHome
from tests.support.participants import RUN

Output = pytest.CaptureFixture[str]


@pytest.fixture
def home(tmp_path: Path, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> ParticipantHome:
    """North, after a run to its end; its journal knows what it signed."""
    monkeypatch.delenv("LLMASOS_HOME", raising=False)
    made = ParticipantHome(tmp_path / "home", coordinator)
    coordinator.start_run(rounds=2)
    for participant in coordinator.participants.values():
        participant.answer()
    coordinator.play()
    made.follow()
    journal, envelopes = Journal(made.layout.journal), coordinator.envelopes()
    for record in coordinator.run.rounds:
        place = record.contributions["north"].place
        slot = contribution_slot(record)
        journal.sign(SignedSlot(slot, place.digest, envelopes[place.index], b"", b"", "2026-01-01T00:00:00.000Z"))
    journal.close()
    return made


@pytest.fixture
def checkpoint(home: ParticipantHome, coordinator: Coordinator, tmp_path: Path, capsys: Output) -> Path:
    """What the operator sends round."""
    assert operator(coordinator, "checkpoint") == 0
    path = tmp_path / "checkpoint"
    path.write_text(capsys.readouterr().out)
    return path


def operator(coordinator: Coordinator, *words: str) -> int:
    return exit_code_of(coordinator_app, [*words, "--home", str(coordinator.layout.home)])


def test_the_coordinators_own_home_is_verified_round_by_round(
    home: ParticipantHome, coordinator: Coordinator, tmp_path: Path, capsys: Output
) -> None:
    html = tmp_path / "report.html"
    assert operator(coordinator, "verify", RUN[:5], "--html", str(html)) == 0
    text = capsys.readouterr().out
    assert "2 of 2 recomputed here, equal in every bit" in text
    assert "\nVerified.\n" in text
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "Verified." in html.read_text()


def test_a_row_edited_by_hand_fails_and_is_named(
    home: ParticipantHome, coordinator: Coordinator, capsys: Output
) -> None:
    with closing(sqlite3.connect(coordinator.layout.state)) as other:
        other.execute("UPDATE ledger SET kind = 'control' WHERE \"index\" = 9")
        other.commit()
    assert operator(coordinator, "verify") == 1
    assert "leaf 9: A row's digest or kind is not its envelope's." in " ".join(capsys.readouterr().out.split())


def test_an_institution_verifies_its_part_and_names_what_it_does_not_hold(
    home: ParticipantHome, capsys: Output
) -> None:
    assert home.run("verify", RUN) == 4
    text = " ".join(capsys.readouterr().out.split())
    assert "ok Are the contributions of north in, unaltered, and weighted as signed? 3 contributions" in text
    assert "Round 1 of tiny-0a1b2c was not recomputed" in text
    assert "Verified, with gaps" in text


def test_with_the_blobs_beside_it_there_is_no_gap(
    home: ParticipantHome, coordinator: Coordinator, capsys: Output
) -> None:
    assert home.run("verify", "--blobs", str(coordinator.layout.blobs), "--format", "json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["result"], report["entries"]) == ("verified", coordinator.state.size)
    assert report["root"] == tree_of(coordinator.envelopes()).head().root.hex()


def test_another_fingerprint_fails(home: ParticipantHome, capsys: Output) -> None:
    assert home.run("verify", "--fingerprint", "00" * 32) == 1
    assert "another consortium's ledger" in " ".join(capsys.readouterr().out.split())


def test_a_checkpoint_of_the_same_history_compares_equal(
    home: ParticipantHome, checkpoint: Path, capsys: Output
) -> None:
    assert home.run("checkpoint", "compare", str(checkpoint)) == 0
    assert "The same history:" in capsys.readouterr().out


def test_a_checkpoint_of_another_history_stops_everything(
    home: ParticipantHome, coordinator: Coordinator, tmp_path: Path, capsys: Output
) -> None:
    genesis, key = coordinator.state.genesis, SigningKey.load(coordinator.layout.log_key)
    origin = genesis.log.origin
    fork = sign_note(Note(checkpoint_text(origin, TreeHead(12, bytes(32)))), origin, key)
    (tmp_path / "fork").write_bytes(fork.encode())
    assert home.run("checkpoint", "compare", str(tmp_path / "fork")) == 3
    err = capsys.readouterr().err
    assert "two-histories" in err
    assert "The coordinator signed two histories of 12 entries" in err
    ahead = sign_note(Note(checkpoint_text(origin, TreeHead(10_000, bytes(32)))), origin, key)
    (tmp_path / "ahead").write_bytes(ahead.encode())
    assert home.run("checkpoint", "compare", str(tmp_path / "ahead")) == 4
    assert "compare again when it has caught up" in capsys.readouterr().out


def test_a_checkpoint_that_the_log_did_not_sign_is_refused(
    home: ParticipantHome, coordinator: Coordinator, tmp_path: Path, capsys: Output
) -> None:
    origin = coordinator.state.genesis.log.origin
    forged = sign_note(Note(checkpoint_text(origin, TreeHead(12, bytes(32)))), origin, SigningKey.generate())
    (tmp_path / "forged").write_bytes(forged.encode())
    assert home.run("checkpoint", "compare", str(tmp_path / "forged")) == 3
    assert "bad-signature" in capsys.readouterr().err
    assert home.run("checkpoint", "compare", str(tmp_path / "absent")) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_receipts_prove_each_own_statement_without_this_program(
    home: ParticipantHome, coordinator: Coordinator, checkpoint: Path, tmp_path: Path, capsys: Output
) -> None:
    folder = tmp_path / "receipts"
    assert home.run("checkpoint", "receipts", str(checkpoint), "--out", str(folder)) == 0
    assert "3 receipts in" in capsys.readouterr().out
    for proof in folder.glob("*.tlog-proof"):
        envelope = proof.with_suffix(".json").read_bytes()
        head = verify_receipt(parse_receipt(proof.read_bytes()), envelope, log_key(coordinator.state.genesis))
        assert head.size == coordinator.state.size
    assert home.run("checkpoint", "receipts", str(checkpoint), "--out", str(folder)) == 2
