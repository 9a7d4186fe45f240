"""llmasos-participant checkpoint: who cosigned, what is handed on, and a fork that is found past the coordinator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import UnknownObject
from common.ledger.heads import log_key, tree_of
from common.ledger.notes import parse_note
from common.ledger.receipts import parse_receipt, verify_receipt
from common.statements.kinds import Role
from common.terminal import WIDTH
from common.wire.messages import LedgerEntries, LogHead
from participant.commands import checkpoints as module
from participant.memory.journal import Journal, SignedSlot
from participant.memory.mirror import Mirror
from participant.witnessing import Witnessing, WitnessingPorts
from tests.support.coordinators import NAMES, Coordinator
from tests.support.participant_homes import ParticipantHome
from tests.support.signing_log import SigningLog

Output = pytest.CaptureFixture[str]
ROLES: tuple[Role, ...] = ("trainer", "evaluator", "witness")


class Home:
    """North's home folder, its copy of the ledger in it, and the coordinator's log in the test's hands."""

    def __init__(self, folder: Path) -> None:
        self.coordinator = Coordinator(folder / "coordinator", names=())
        for name in NAMES:
            self.coordinator.enrol(name, ROLES)
        self.coordinator.start_run()
        for name in NAMES:
            self.coordinator[name].answer()
        self.folder, self.log = folder, SigningLog(self.coordinator)
        self.home = ParticipantHome(folder / "home", self.coordinator)
        self.home.follow()
        place = self.coordinator.run.answers["north"].place
        with closing(Journal(self.home.layout.journal)) as journal:
            slot = SignedSlot(
                "answer/x", place.digest, self.coordinator.envelopes()[place.index], b"", b"", "2026-01-01"
            )
            journal.sign(slot)

    @property
    def size(self) -> int:
        return self.coordinator.state.size

    def hear(self, checkpoint: bytes, *cosigned: bytes) -> None:
        """As the daemon does."""
        with closing(Journal(self.home.layout.journal)) as journal:
            mirror = Mirror(journal, self.coordinator.genesis)
            clock, key = self.coordinator.clock, self.coordinator["north"].key
            witnessing = Witnessing(WitnessingPorts("operator", mirror, journal, lambda: key, clock))
            witnessing.heard(LedgerEntries(self.size, (), self.size, checkpoint=checkpoint, cosigned=cosigned))

    def file(self, note: bytes) -> str:
        (self.folder / "note").write_bytes(note)
        return str(self.folder / "note")

    def run(self, *words: str) -> int:
        return self.home.run("checkpoint", *words)

    def conflicting(self) -> list[bytes]:
        with closing(Journal(self.home.layout.journal)) as journal:
            return journal.conflicting()


@pytest.fixture
def north(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.delenv("LLMASOS_HOME", raising=False)
    made = Home(tmp_path)
    yield made
    made.coordinator.close()


def test_compare_says_which_witnesses_cosigned_and_who_else_signed(north: Home, capsys: Output) -> None:
    north.coordinator.enrol("vienna", ("viewer",))
    north.home.follow()
    note = north.log.cosigned(None, "east", "south", "vienna")
    assert north.run("compare", north.file(note)) == 0
    text = capsys.readouterr().out
    assert f"The same history: {north.size} entries, signed by hospitals.llmasos/ledger." in text
    assert "Cosigned by 2 of 3 witnesses.\n  east, at 2026-01-01T00:00:00.000Z\n  south, at 2026-01-01" in text
    assert "Also signed by others, whose keys are not known here: hospitals.llmasos/vienna." in text
    assert north.run("compare", north.file(note), "--format", "json") == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["result"], sorted(data["cosigned_by"]), data["witnesses"]) == ("same", ["east", "south"], 3)


def test_compare_refuses_a_note_whose_cosignature_does_not_verify(north: Home, capsys: Output) -> None:
    note = parse_note(north.log.cosigned(None, "south"))
    last = note.signatures[-1]
    forged = note.with_signature(replace(last, signature=last.signature[:-1] + bytes([last.signature[-1] ^ 1])))
    assert north.run("compare", north.file(forged.encode())) == 3
    assert "bad-signature" in capsys.readouterr().err
    assert north.conflicting() == []


def test_a_fork_that_came_by_mail_is_kept_with_all_its_cosignatures(north: Home, capsys: Output) -> None:
    fork = north.log.cosigned(5, "east", "south", root=bytes(32))
    assert north.run("compare", north.file(fork)) == 3
    err = capsys.readouterr().err
    assert "error [two-histories]: The coordinator signed two histories of 5 entries" in err
    assert bytes(32).hex() in err
    assert tree_of(north.coordinator.envelopes()).head(5).root.hex() in err
    assert "Witnesses that cosigned the other one: east, south." in err
    assert "llmasos-participant evidence export FILE" in err
    assert north.conflicting() == [fork]


def test_status_says_that_two_histories_were_shown(north: Home, capsys: Output) -> None:
    assert north.home.run("status") == 0
    assert "TWO HISTORIES" not in capsys.readouterr().out
    north.run("compare", north.file(north.log.checkpoint(5, bytes(32))))
    capsys.readouterr()
    assert north.home.run("status") == 0
    text = capsys.readouterr().out
    assert "TWO HISTORIES were shown. Type:" in text
    assert "evidence export FILE" in text
    assert "does not start: two histories were shown" in text
    assert max(map(len, text.splitlines())) <= WIDTH


def test_acknowledged_histories_hold_nothing_and_stay_as_evidence(
    north: Home, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert north.run("acknowledge", "--yes") == 0
    assert capsys.readouterr().out == "Nothing to acknowledge.\n"
    fork = north.log.checkpoint(5, bytes(32))
    north.run("compare", north.file(fork))
    capsys.readouterr()
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    assert north.run("acknowledge") == 1
    assert f"5 entries, root {bytes(32).hex()}, seen at" in capsys.readouterr().err
    assert north.run("acknowledge", "--yes") == 0
    assert "1 checkpoints acknowledged and kept. Start the daemon again" in capsys.readouterr().out
    assert north.conflicting() == [fork]
    assert north.home.run("status") == 0
    assert "TWO HISTORIES" not in capsys.readouterr().out


def test_compare_without_a_file_asks_the_coordinator(
    north: Home, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = north.size
    north.coordinator.enrol("vienna", ("viewer",))
    tree = tree_of(north.coordinator.envelopes())
    replies = [
        LogHead(north.log.checkpoint(), tuple(tree.consistency_proof(before))),
        LogHead(north.log.checkpoint(), (bytes(32),)),
        LogHead(north.log.checkpoint(before, bytes(32))),
    ]
    monkeypatch.setattr(module, "_newest_of_the_coordinator", lambda own: replies.pop(0))
    assert north.run("compare") == 0
    assert (
        f"The same history: {north.size} entries, the first {before} of them the copy here" in capsys.readouterr().out
    )
    assert north.run("compare") == 3
    assert f"The proof that the tree of {before} entries begins the tree of {north.size}" in capsys.readouterr().err
    assert north.run("compare") == 3
    assert "two-histories" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"Dear operator", None], ids=["a letter", "no file"])
def test_what_is_no_checkpoint_says_nothing_of_the_history(north: Home, capsys: Output, content: bytes | None) -> None:
    name = north.file(content) if content is not None else str(north.folder / "absent")
    assert north.run("compare", name) == 2
    assert f"error [usage]: {name} " in capsys.readouterr().err


def test_a_coordinator_that_went_back_has_shown_two_histories(
    north: Home, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = north.log.checkpoint(north.size - 1)

    class Session:
        def head(self, old_size: int = 0) -> LogHead:
            if old_size >= north.size:
                raise UnknownObject("The log is shorter.")
            return LogHead(older)

    monkeypatch.setattr(module, "member_session", lambda *parts: nullcontext(Session()))
    assert north.run("compare") == 3
    assert (
        f"The coordinator's ledger has {north.size - 1} entries, and had {north.size} before" in capsys.readouterr().err
    )
    assert north.conflicting() == [older]


def test_show_prints_the_newest_that_is_held_with_its_cosignatures(north: Home, capsys: Output) -> None:
    assert north.run("show") == 2
    assert "No checkpoint has come to this institution yet" in capsys.readouterr().err
    north.hear(north.log.checkpoint(6))
    assert north.run("show") == 0
    assert capsys.readouterr().out == north.log.checkpoint(6).decode()
    cosigned = north.log.cosigned(None, "east", "south")
    north.hear(north.log.checkpoint(), cosigned)
    assert north.run("show", "--format", "json") == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["size"], sorted(data["cosigned_by"])) == (north.size, ["east", "south"])
    assert data["checkpoint"] == cosigned.decode()
    assert north.run("compare", north.file(data["checkpoint"].encode())) == 0


def test_a_witness_whose_clock_no_calendar_has_spoils_no_command(north: Home, capsys: Output) -> None:
    """A cosignature's time is eight bytes of the witness's choice."""
    note = north.log.note()
    for name, seconds in (("east", 2**62), ("south", 2**63 - 1)):
        note = north.coordinator[name].cosign(note, seconds)
    north.hear(north.log.checkpoint(), note.encode())
    for words in (("show",), ("compare", north.file(note.encode()))):
        assert north.run(*words, "--format", "json") == 0
        times = json.loads(capsys.readouterr().out)["cosigned_by"]
        assert times["east"] == "4,611,686,018,427,387,904 s after 1970"


def test_receipts_carry_a_majoritys_cosignatures_where_there_are_any(
    north: Home, tmp_path: Path, capsys: Output
) -> None:
    cosigned = north.log.cosigned(north.size, "east", "south")
    north.hear(north.log.checkpoint(), cosigned)
    north.coordinator.enrol("vienna", ("viewer",))
    north.home.follow()
    north.hear(north.log.checkpoint())
    assert north.run("receipts", "--out", str(tmp_path / "receipts")) == 0
    text = capsys.readouterr().out
    assert "1 receipts in" in text
    assert "Their checkpoint is cosigned by east, south." in text
    (path,) = (tmp_path / "receipts").glob("*.tlog-proof")
    receipt = parse_receipt(path.read_bytes())
    assert receipt.checkpoint.encode() == cosigned
    verify_receipt(receipt, path.with_suffix(".json").read_bytes(), log_key(north.coordinator.state.genesis))


def test_receipts_under_a_checkpoint_of_another_history_are_not_made(
    north: Home, tmp_path: Path, capsys: Output
) -> None:
    fork = north.file(north.log.checkpoint(north.size, bytes(32)))
    assert north.run("receipts", fork, "--out", str(tmp_path / "receipts")) == 3
    assert "two-histories" in capsys.readouterr().err
    ahead = north.file(north.log.checkpoint(99, bytes(32)))
    assert north.run("receipts", ahead, "--out", str(tmp_path / "receipts")) == 2
    assert f"The checkpoint has 99 entries, the copy here {north.size}" in capsys.readouterr().err
    assert not (tmp_path / "receipts").exists()
