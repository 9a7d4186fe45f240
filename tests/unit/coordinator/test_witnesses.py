"""Witnesses, as the coordinator counts them: whose word is taken, what a majority saw, what is kept of it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from common.errors import BadSignature, MalformedMessage
from common.identity.keys import SigningKey
from common.ledger.heads import log_key
from common.ledger.notes import Note, NoteKey, cosign, parse_note, read_checkpoint
from common.ledger.witnesses import cosigners, covered_size, witnesses_of
from common.statements.kinds import Roster
from common.wire.messages import Cosignature
from coordinator import witnesses as witnesses_module
from tests.support.coordinators import Coordinator
from tests.support.participants import FakeParticipant

WITNESS = ("trainer", "evaluator", "witness")


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    """east, north and south are witnesses, and their first round is open."""
    made = Coordinator(tmp_path / "home", names=())
    for name in ("east", "north", "south"):
        made.enrol(name, WITNESS)
    made.open_round(rounds=2)
    yield made
    made.close()


def cosignature(
    coordinator: Coordinator, name: str, size: int | None = None, key: SigningKey | None = None, seconds: int = 1
) -> Cosignature:
    """That witness's, on the true checkpoint of that size; of now by default."""
    size = coordinator.state.size if size is None else size
    note = cosign(
        coordinator.log.note(size), f"hospitals.llmasos/{name}", key or coordinator[name].key, seconds=seconds
    )
    return Cosignature(size, note.signatures[-1].signature)


def cosigns(coordinator: Coordinator, *names: str, size: int | None = None) -> None:
    for name in names:
        coordinator.witnesses.take(coordinator[name].member, cosignature(coordinator, name, size))


def shown(coordinator: Coordinator, notes: tuple[bytes, ...]) -> int:
    """The covered size that a reader computes from these notes alone."""
    witnesses, sizes = witnesses_of(coordinator.state), dict[str, int]()
    for data in notes:
        note = parse_note(data)
        head = read_checkpoint(note, log_key(coordinator.state.genesis))
        assert head == coordinator.ledger.tree().head(head.size)
        for name in cosigners(note, witnesses):
            sizes[name] = max(head.size, sizes.get(name, 0))
    return covered_size(sizes, len(witnesses))


def opening(coordinator: Coordinator) -> int:
    current = coordinator.run.open_round
    assert current is not None
    return current.place.index


# --- counting --------------------------------------------------------------------------------------------------------


def test_a_majority_covers_what_more_than_half_have_seen(coordinator: Coordinator) -> None:
    size, covered = coordinator.state.size, coordinator.witnesses.covered
    cosigns(coordinator, "north")
    assert (covered(), coordinator.witnesses.notes_beyond(0)) == (0, ())
    cosigns(coordinator, "south", size=size - 2)
    assert covered() == size - 2
    cosigns(coordinator, "east", size=size - 1)
    assert covered() == size - 1
    cosigns(coordinator, "east", "south")
    assert covered() == size


def test_the_fewest_notes_show_what_is_covered(coordinator: Coordinator) -> None:
    size = coordinator.state.size
    cosigns(coordinator, "north")
    cosigns(coordinator, "south", size=size - 2)
    notes = coordinator.witnesses.notes_beyond(0)
    assert shown(coordinator, notes) == size - 2
    assert [int(note.split(b"\n")[1]) for note in notes] == [size - 2, size]
    cosigns(coordinator, "east", size=size - 2)
    assert len(coordinator.witnesses.notes_beyond(0)) == 1, "two witnesses on one note are a majority"
    assert coordinator.witnesses.notes_beyond(size - 2) == ()
    cosigns(coordinator, "south")
    (note,) = coordinator.witnesses.notes_beyond(size - 2)
    assert shown(coordinator, (note,)) == size
    assert note == coordinator.log.head(0).checkpoint, "Head brings the cosignatures too"


def test_a_witness_counts_with_its_largest_tree_whatever_comes_after(coordinator: Coordinator) -> None:
    size = coordinator.state.size
    cosigns(coordinator, "north", "south")
    cosigns(coordinator, "north", "south", size=size - 3)
    coordinator.witnesses.take(coordinator["north"].member, Cosignature(size, bytes(72)))
    assert coordinator.witnesses.covered() == size, "what says no more than before is not even looked at"


def test_more_notes_than_a_reply_takes_show_nothing(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    size = coordinator.state.size
    monkeypatch.setattr(witnesses_module, "MAX_COSIGNED", 1)
    cosigns(coordinator, "north", size=size - 1)
    cosigns(coordinator, "south")
    assert (coordinator.witnesses.covered(), coordinator.witnesses.notes_beyond(0)) == (0, ())
    cosigns(coordinator, "north")
    assert coordinator.witnesses.covered() == size


def test_where_nobody_is_a_witness_nothing_is_covered(tmp_path: Path) -> None:
    made = Coordinator(tmp_path / "alone")
    made.open_round()
    cosigns(made, "north")
    assert (made.witnesses.covered(), made.witnesses.notes_beyond(0)) == (0, ())
    made.close()


# --- whose word ------------------------------------------------------------------------------------------------------


def test_a_cosignature_that_does_not_verify_is_refused(coordinator: Coordinator) -> None:
    north, size = coordinator["north"].member, coordinator.state.size
    of_another = cosignature(coordinator, "north", key=coordinator["south"].key)
    tampered = Cosignature(size, bytes(8) + cosignature(coordinator, "north").signature[8:])
    of_another_tree = Cosignature(size, cosignature(coordinator, "north", size - 1).signature)
    for wrong in (of_another, tampered, of_another_tree, Cosignature(size, b"\xff" * 72)):
        with pytest.raises(
            BadSignature,
            match=rf"The cosignature of north on the checkpoint of {size} entries does not verify under its key",
        ):
            coordinator.witnesses.take(north, wrong)
    cosigns(coordinator, "south")
    assert coordinator.witnesses.covered() == 0


@pytest.mark.parametrize("beyond", [0, 1, 10**9])
def test_a_size_that_the_ledger_does_not_have_is_malformed(coordinator: Coordinator, beyond: int) -> None:
    size = coordinator.state.size
    asked = size + beyond if beyond else 0
    with pytest.raises(MalformedMessage, match=rf"Cosignature\.size: expected 1 to {size}, got {asked:,}\."):
        coordinator.witnesses.take(coordinator["north"].member, Cosignature(asked, bytes(72)))


def test_a_member_that_is_no_witness_is_passed_over(coordinator: Coordinator) -> None:
    cosigns(coordinator, "north")
    operator = coordinator.operator
    coordinator.witnesses.take(operator, Cosignature(coordinator.state.size, bytes(72)))
    coordinator.witnesses.take(operator, Cosignature(10**9, bytes(72)))
    assert coordinator.witnesses.covered() == 0


def change_member(coordinator: Coordinator, name: str, **changes: object) -> None:
    roster, place = coordinator.state.roster, coordinator.state.roster_place
    assert roster is not None
    assert place is not None
    members = tuple(member.model_copy(update=changes) if member.name == name else member for member in roster.members)
    coordinator.ledger.append(Roster(version=roster.version + 1, members=members), place)


def test_who_is_revoked_or_has_another_key_counts_no_more_with_its_old_word(coordinator: Coordinator) -> None:
    size = coordinator.state.size
    cosigns(coordinator, "north", "south")
    assert coordinator.witnesses.covered() == size
    key = SigningKey.generate()
    change_member(coordinator, "north", signing_key=key.public)
    assert coordinator.witnesses.covered() == 0
    coordinator["north"].key = key
    cosigns(coordinator, "north")
    assert coordinator.witnesses.covered() == size, "south's old word and north's new one"
    change_member(coordinator, "south", status="revoked")
    assert coordinator.witnesses.covered() == 0, "one of two is no majority"
    cosigns(coordinator, "east")
    assert coordinator.witnesses.covered() == coordinator.state.size - 1, "north has not seen the newest roster"


def test_a_new_key_with_the_short_id_of_the_old_one_inherits_none_of_its_words(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four bytes: whoever rotates finds such a key in 2^32 tries. Here every key of a name has the same id."""
    monkeypatch.setattr(NoteKey, "id", property(lambda key: sha256(key.name.encode()).digest()[:4]))
    size = coordinator.state.size
    cosigns(coordinator, "north", "south")
    assert coordinator.witnesses.covered() == size
    coordinator["north"].key = SigningKey.generate()
    change_member(coordinator, "north", signing_key=coordinator["north"].key.public)
    assert coordinator.witnesses.covered() == 0, "nobody could verify north's old word under its new key"
    coordinator.restart()
    assert coordinator.witnesses.covered() == 0
    cosigns(coordinator, "north")
    assert coordinator.witnesses.covered() == size, "south's word was in the same note, and still counts"
    assert shown(coordinator, coordinator.witnesses.notes_beyond(0)) == size


def test_a_word_under_a_key_that_was_rotated_meanwhile_is_passed_over_not_refused(coordinator: Coordinator) -> None:
    """The call was on its way when the roster changed, and it is what brings the new roster."""
    north: FakeParticipant = coordinator["north"]
    late = cosignature(coordinator, "north")
    change_member(coordinator, "north", signing_key=SigningKey.generate().public)
    coordinator.witnesses.take(north.member, late)
    newer = cosignature(coordinator, "north", key=north.key)
    with pytest.raises(BadSignature, match="north"):
        coordinator.witnesses.take(north.member, newer)


# --- openings ----------------------------------------------------------------------------------------------------------


def test_an_opening_is_newly_covered_for_those_who_know_of_less(coordinator: Coordinator) -> None:
    newly, at = coordinator.witnesses.newly_covers, opening(coordinator)
    cosigns(coordinator, "north")
    assert not newly(0)
    cosigns(coordinator, "south", size=at)
    assert not newly(0), "a majority saw everything but the opening"
    cosigns(coordinator, "south", size=at + 1)
    assert newly(0)
    assert newly(at)
    assert not newly(at + 1)
    cosigns(coordinator, "east", "south")
    assert not newly(at + 1), "no reply for each further cosignature"


def test_readers_who_wait_wake_when_more_is_covered(coordinator: Coordinator) -> None:
    asked, woken = threading.Event(), threading.Event()

    def covered() -> bool:
        asked.set()
        return coordinator.witnesses.newly_covers(0)

    def wait() -> None:
        coordinator.ledger.slice(coordinator.state.size, max_bytes=1, wait_seconds=60, or_when=covered)
        woken.set()

    reader = threading.Thread(target=wait)
    reader.start()
    assert asked.wait(30)
    cosigns(coordinator, "north")
    assert not woken.is_set()
    cosigns(coordinator, "south")
    assert woken.wait(30)
    reader.join()


# --- kept ------------------------------------------------------------------------------------------------------------


def test_what_covers_an_opening_and_the_end_is_kept_and_no_more(
    coordinator: Coordinator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    kept = coordinator.database.checkpoints
    cosigns(coordinator, "north")
    assert kept() == []
    first = coordinator.state.size
    cosigns(coordinator, "south")
    assert [shown(coordinator, (note,)) for note in kept()] == [first]
    cosigns(coordinator, "east")
    coordinator["north"].contribute()
    cosigns(coordinator, "north", "south", "east")
    assert len(kept()) == 1, "one write for each opening"
    coordinator.play()
    assert coordinator.run.ended is not None
    end = coordinator.state.size
    cosigns(coordinator, "north", "east")
    assert [shown(coordinator, (note,)) for note in kept()] == [first, end]
    events = [record.__dict__ for record in caplog.records if record.message == "checkpoint cosigned by a majority"]
    assert [(event["size"], event["witnesses"]) for event in events] == [(first, 2), (end, 2)]


def test_notes_of_different_sizes_are_kept_together(coordinator: Coordinator) -> None:
    size, at = coordinator.state.size, opening(coordinator)
    cosigns(coordinator, "north", size=at + 1)
    coordinator["south"].contribute()
    cosigns(coordinator, "south")
    assert [int(note.split(b"\n")[1]) for note in coordinator.database.checkpoints()] == [size, size + 1]
    assert shown(coordinator, tuple(coordinator.database.checkpoints())) == size


def test_a_note_that_was_kept_before_loses_no_cosignature(coordinator: Coordinator) -> None:
    size = coordinator.state.size
    stored = cosign(coordinator.log.note(size), "hospitals.llmasos/east", coordinator["east"].key, seconds=1)
    with coordinator.database.transaction() as tx:
        tx.keep_checkpoint(size, stored.encode())
    cosigns(coordinator, "north", "south")
    (note,) = coordinator.database.checkpoints()
    assert set(cosigners(parse_note(note), witnesses_of(coordinator.state))) == {"east", "north", "south"}


def test_a_restart_remembers_what_covered_the_opening(coordinator: Coordinator) -> None:
    size = coordinator.state.size
    cosigns(coordinator, "north", "south")
    coordinator.restart()
    assert coordinator.witnesses.covered() == size
    assert coordinator.witnesses.newly_covers(0)
    assert shown(coordinator, coordinator.witnesses.notes_beyond(0)) == size
    cosigns(coordinator, "north", "south")
    assert len(coordinator.database.checkpoints()) == 1


@pytest.mark.parametrize("note", ["text", 12, b"nonsense", b"a\n99999999\nb\n\n\xe2\x80\x94 c ZGVmZ2hpams=\n", b"\xff"])
def test_a_kept_note_that_is_none_is_said_and_passed_over(
    coordinator: Coordinator, caplog: pytest.LogCaptureFixture, note: bytes | str | int
) -> None:
    cosigns(coordinator, "north", "south")
    covered = coordinator.witnesses.covered()
    with closing(sqlite3.connect(coordinator.layout.state)) as other:
        other.execute("INSERT INTO checkpoints VALUES (3, ?)", (note,))
        other.commit()
    coordinator.restart()
    assert coordinator.witnesses.covered() == covered
    assert [each.levelname for each in caplog.records if each.message == "kept checkpoint unreadable"] == ["WARNING"]


def test_a_kept_cosignature_that_was_altered_counts_for_nothing(
    coordinator: Coordinator, caplog: pytest.LogCaptureFixture
) -> None:
    size = coordinator.state.size
    cosigns(coordinator, "north", "south")
    note = parse_note(coordinator.database.checkpoints()[0])
    forged = tuple(
        each if "east" in each.name or each.name.endswith("ledger") else type(each)(each.name, each.key_id, bytes(72))
        for each in note.signatures
    )
    with coordinator.database.transaction() as tx:
        tx.keep_checkpoint(size, Note(note.text, forged).encode())
    coordinator.restart()
    assert coordinator.witnesses.covered() == 0
    assert "kept checkpoint unreadable" in caplog.text
