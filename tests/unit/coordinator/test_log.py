"""The log: what it signs, when, what it proves, and what it never signs again."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from common.errors import CoordinatorRecovering, LedgerConflict, StorageFailure, TwoHistories, UnknownObject
from common.identity.keys import SigningKey
from common.ledger.heads import expect_seen, log_key, tree_of
from common.ledger.merkle import TreeHead, verify_consistency
from common.ledger.notes import Note, NoteSignature, checkpoint_text, parse_note, read_checkpoint, sign_note
from common.ledger.receipts import parse_receipt, verify_receipt
from common.wire.messages import Cosignature
from coordinator.cosignatures import Cosignatures
from coordinator.log import HeadFile, Log
from coordinator.store.database import Transaction
from coordinator.store.tiles import Tiles
from tests.support.coordinators import Coordinator
from tests.support.participants import RUN


def a_log(coordinator: Coordinator, key: SigningKey | None = None) -> Log:
    """One over the coordinator's ledger and files, as after a restart."""
    key = key or SigningKey.load(coordinator.layout.log_key)
    return Log(coordinator.ledger, key, HeadFile(coordinator.layout.log_head), Cosignatures())


def head_of(coordinator: Coordinator, note: Note) -> TreeHead:
    return read_checkpoint(note, log_key(coordinator.state.genesis))


# --- signing ---------------------------------------------------------------------------------------------------------


def test_every_checkpoint_is_of_all_that_is_durable_under_genesis_log_key(coordinator: Coordinator) -> None:
    coordinator.start_run()
    for _ in range(3):
        note = parse_note(coordinator.log.newest().encode())
        assert head_of(coordinator, note) == tree_of(coordinator.envelopes()).head()
        assert [each.name for each in note.signatures] == ["hospitals.llmasos/ledger"]
        coordinator.desk.control_run(RUN, "pause", "operator")
        coordinator.desk.control_run(RUN, "resume", "operator")
        coordinator.clock.advance(seconds=1)


def test_nothing_is_signed_for_an_append_that_did_not_happen(coordinator: Coordinator) -> None:
    coordinator.start_run()
    before = coordinator.log.newest()

    def die(tx: Transaction) -> None:
        assert coordinator.log.newest() == before, "nothing of a transaction is visible before it is durable"
        raise KeyError("the process died here")

    with pytest.raises(KeyError, match="died here"):
        coordinator.ledger.take(coordinator["north"].an_answer(), die)
    assert coordinator.log.newest() == before
    assert coordinator.ledger.tree().head() == coordinator.ledger.head == head_of(coordinator, before)


def test_a_checkpoint_is_signed_once_for_each_size(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    signed: list[int] = []
    sign = SigningKey.sign

    def counted(key: SigningKey, message: bytes) -> bytes:
        signed.append(int(message.split(b"\n")[1]))
        return sign(key, message)

    monkeypatch.setattr(SigningKey, "sign", counted)
    log, size = a_log(coordinator), coordinator.state.size
    assert signed == [], "not before somebody asks"
    with ThreadPoolExecutor(4) as pool:
        notes = {note.encode() for note in pool.map(lambda _: log.newest(), range(40))}
    assert len(notes) == 1
    assert set(signed) == {size}
    assert len(signed) <= 4
    log.note(2)
    log.note(2)
    assert signed.count(2) == 1


def test_an_earlier_size_gets_the_very_note_that_it_had(coordinator: Coordinator) -> None:
    first = coordinator.log.newest()
    size = coordinator.state.size
    coordinator.start_run()
    assert a_log(coordinator).note(size) == first
    with pytest.raises(IndexError):
        coordinator.log.note(coordinator.state.size + 1)


def test_no_earlier_head_is_signed_that_does_not_lead_to_the_newest_one(coordinator: Coordinator) -> None:
    """Whoever alters a tile beside the running coordinator gets no signature for it."""
    coordinator.start_run()
    while coordinator.state.size < 300:
        coordinator.desk.control_run(RUN, "resume" if coordinator.run.paused else "pause", "operator")
        coordinator.clock.advance(seconds=1)
    log = a_log(coordinator)
    assert head_of(coordinator, log.note(100)).size == 100
    tile = coordinator.database.tile(0, 0)
    assert tile is not None
    with closing(sqlite3.connect(coordinator.layout.state)) as connection, connection:
        connection.execute("UPDATE tiles SET hashes = ?", [bytes(32) + tile.hashes[32:]])
    coordinator.ledger._tiles = Tiles(coordinator.database)  # as if the tile had left memory
    with pytest.raises(
        LedgerConflict, match=r"The proof that the tree of 200 entries begins the tree of 300 leads to root"
    ):
        log.note(200)
    assert head_of(coordinator, log.newest()) == tree_of(coordinator.envelopes()).head()


def test_another_key_than_genesis_names_signs_nothing(coordinator: Coordinator) -> None:
    with pytest.raises(
        StorageFailure, match=r"identity/log\.key\.pem holds key \w{16}…, but genesis names \w{16}… for hospitals"
    ):
        a_log(coordinator, SigningKey.generate())


# --- proofs ----------------------------------------------------------------------------------------------------------


def test_head_proves_that_every_earlier_tree_is_its_beginning(coordinator: Coordinator) -> None:
    coordinator.start_run()
    tree = tree_of(coordinator.envelopes())
    for old_size in range(tree.size + 1):
        answer = coordinator.log.head(old_size)
        new = head_of(coordinator, parse_note(answer.checkpoint))
        verify_consistency(hashlib.sha256, tree.head(old_size), new, answer.consistency)


def test_a_receipt_proves_every_entry(coordinator: Coordinator) -> None:
    coordinator.start_run()
    for index, envelope in enumerate(coordinator.envelopes()):
        receipt = parse_receipt(coordinator.log.receipt(index))
        assert verify_receipt(receipt, envelope, log_key(coordinator.state.genesis)).size == coordinator.state.size


def test_what_is_beyond_the_tree_is_a_typed_error_with_numbers(coordinator: Coordinator) -> None:
    size = coordinator.state.size
    with pytest.raises(UnknownObject, match=rf"The log has {size} entries, so there is no entry {size}\."):
        coordinator.log.receipt(size)
    with pytest.raises(
        UnknownObject, match=rf"The log has {size} entries, so no tree of {size + 1} is its beginning\."
    ) as error:
        coordinator.log.head(size + 1)
    assert "it has gone back" in error.value.fix
    coordinator.log.head(size)


# --- log.head: databases from a backup ----------------------------------------------------------------------------------


def test_beside_a_database_that_is_older_than_log_head_nothing_is_signed(
    coordinator: Coordinator, tmp_path: Path
) -> None:
    coordinator.close()
    shutil.copy(coordinator.layout.state, tmp_path / "backup")
    coordinator.restart()
    coordinator.start_run()
    size = coordinator.state.size
    coordinator.log.newest()
    coordinator.close()
    for left in coordinator.layout.home.glob("state.sqlite*"):
        left.unlink()
    shutil.copy(tmp_path / "backup", coordinator.layout.state)
    coordinator.restart()
    with pytest.raises(
        CoordinatorRecovering, match=rf"has {size - 1} entries, log\.head shows that {size} were signed for"
    ):
        coordinator.log.newest()
    coordinator.ledger.gate.open()  # who signs without a coordinator that could recover, as `checkpoint` does
    with pytest.raises(
        TwoHistories,
        match=rf"The state database holds {size - 1} entries, but log\.head shows that {size} were signed for: "
        r"it was restored from a backup that is too old\.",
    ) as error:
        a_log(coordinator)
    assert f"Restore a backup whose ledger has at least {size} entries" in error.value.fix
    assert "do not remove log.head" in error.value.fix


def test_another_history_of_the_same_length_is_refused(coordinator: Coordinator) -> None:
    key, origin = SigningKey.load(coordinator.layout.log_key), coordinator.state.genesis.log.origin
    other = sign_note(Note(checkpoint_text(origin, TreeHead(3, bytes(32)))), origin, key)
    coordinator.layout.log_head.write_bytes(other.encode())
    with pytest.raises(
        TwoHistories, match=rf"The first 3 entries have root [0-9a-f]{{64}}, but log\.head shows that {'00' * 32}"
    ):
        a_log(coordinator)


def test_a_database_that_went_on_since_the_last_checkpoint_is_fine(coordinator: Coordinator) -> None:
    coordinator.log.newest()
    coordinator.start_run()
    log = a_log(coordinator)
    assert head_of(coordinator, log.newest()).size == coordinator.state.size


def test_the_file_holds_the_largest_checkpoint_before_anybody_sees_it(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not coordinator.layout.log_head.exists()
    note = coordinator.log.newest()
    assert coordinator.layout.log_head.read_bytes() == note.encode()
    assert coordinator.layout.log_head.stat().st_mode & 0o777 == 0o600
    coordinator.log.note(2)
    assert coordinator.layout.log_head.read_bytes() == note.encode(), "an earlier one does not take its place"
    coordinator.start_run()

    def full(file: HeadFile, note: Note) -> None:
        raise StorageFailure("log.head: no space left on device.")

    monkeypatch.setattr(HeadFile, "write", full)
    for _ in range(2):
        with pytest.raises(StorageFailure, match="no space left"):
            coordinator.log.newest()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "A note has no text"), (b"hospitals", "A note has no text"), (b"\xff\n", "A note is not UTF-8 at byte 0")],
)
def test_an_unreadable_file_is_said_and_guards_nothing(
    coordinator: Coordinator, caplog: pytest.LogCaptureFixture, content: bytes, reason: str
) -> None:
    coordinator.layout.log_head.write_bytes(content)
    log = a_log(coordinator)
    records = [record for record in caplog.records if record.message == "log head unreadable"]
    assert [record.levelname for record in records] == ["WARNING"]
    assert reason in str(records[0].__dict__["error"])
    assert log.newest().encode() == coordinator.layout.log_head.read_bytes(), "the next checkpoint mends it"


def test_a_file_under_another_logs_signature_is_unreadable(
    coordinator: Coordinator, caplog: pytest.LogCaptureFixture
) -> None:
    origin = coordinator.state.genesis.log.origin
    other = sign_note(Note(checkpoint_text(origin, TreeHead(10**6, bytes(32)))), origin, SigningKey.generate())
    coordinator.layout.log_head.write_bytes(other.encode())
    a_log(coordinator)
    assert "log head unreadable" in caplog.text


def test_who_is_no_member_gets_heads_and_receipts_without_institutions_names(coordinator: Coordinator) -> None:
    for name in ("lima", "oslo"):
        coordinator.enrol(name, ("witness",))
    size = coordinator.state.size
    for name in ("lima", "oslo"):
        note = coordinator[name].cosign(coordinator.log.note(size), 1)
        cosignature = Cosignature(size, note.signatures[-1].signature)
        coordinator.witnesses.take(coordinator[name].member, cosignature)
    for known, said in (
        (coordinator.log.head(0).checkpoint, coordinator.log.head(0, cosigned=False).checkpoint),
        (coordinator.log.receipt(1), coordinator.log.receipt(1, cosigned=False)),
    ):
        assert b"hospitals.llmasos/lima" in known
        assert known.startswith(said)
        assert b"lima" not in said
        assert b"oslo" not in said


# --- checkpoints in contributions ----------------------------------------------------------------------------------------


def test_what_a_contribution_has_seen_must_be_this_log_of_this_ledger_and_hold_the_opening(
    coordinator: Coordinator,
) -> None:
    opening = coordinator.open_round().place.index
    tree, log = coordinator.ledger.tree(), log_key(coordinator.state.genesis)
    key = SigningKey.load(coordinator.layout.log_key)

    def seen(head: TreeHead, signer: SigningKey = key, origin: str = log.name) -> str:
        return sign_note(Note(checkpoint_text(origin, head)), origin, signer).encode().decode()

    assert expect_seen(seen(tree.head()), log, tree, opening) == tree.head()
    assert expect_seen(seen(tree.head(opening + 1)), log, tree, opening).size == opening + 1
    for checkpoint, reason in (
        ("nonsense", r"is none of hospitals\.llmasos/ledger: A note has no text"),
        (seen(tree.head(), SigningKey.generate()), r"is none of hospitals\.llmasos/ledger: A note is not signed by"),
        (
            seen(tree.head(), origin="other.llmasos/ledger"),
            r"is none of hospitals\.llmasos/ledger: A note is not signed",
        ),
        (
            seen(tree.head(opening)),
            rf"of {opening} entries does not hold the round's opening, which is entry {opening}",
        ),
        (
            parse_note(seen(tree.head()).encode())
            .with_signature(NoteSignature("patient:0815,diagnosis:…", b"\0" * 4, b"any bytes at all"))
            .encode()
            .decode(),
            rf"of {tree.size} entries bears 2 signatures, expected the log's alone\.",
        ),
        (seen(TreeHead(opening + 1, bytes(32))), rf"of {opening + 1} entries has root {'00' * 32}, expected"),
        (
            seen(TreeHead(tree.size + 1, bytes(32))),
            rf"of {tree.size + 1} entries is beyond this ledger, which has {tree.size}",
        ),
    ):
        with pytest.raises(LedgerConflict, match=rf"The contribution's checkpoint {reason}"):
            expect_seen(checkpoint, log, tree, opening)
