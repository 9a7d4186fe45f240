"""Witnessing: what is cosigned, what counts as covered, and how two histories are found however they are shown."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from common.clock import rfc3339
from common.errors import (
    BadSignature,
    CoordinatorUnreachable,
    LedgerConflict,
    LLMasOSError,
    MalformedStatement,
    TwoHistories,
)
from common.identity.keys import SigningKey
from common.ledger.heads import log_key
from common.ledger.notes import (
    Note,
    NoteKey,
    NoteSignature,
    checkpoint_text,
    parse_note,
    read_checkpoint,
    sign_note,
    verify_cosignature,
)
from common.ledger.state import RoundRecord
from common.ledger.witnesses import majority, witness_key
from common.statements.kinds import Role, Roster
from common.wire.messages import LedgerEntries
from participant.memory.checkpoints import MAX_AHEAD
from participant.memory.journal import Journal, KeptCheckpoint
from participant.memory.mirror import Mirror
from participant.witnessing import Witnessing, WitnessingPorts
from tests.support.coordinators import NAMES, Coordinator
from tests.support.signing_log import SigningLog

WITNESS: tuple[Role, ...] = ("trainer", "evaluator", "witness")
EXPORT = "llmasos-participant evidence export FILE"


class Scene:
    """A coordinator whose log is in the test's hands, and one member's witnessing over its own copy."""

    def __init__(self, folder: Path, witnesses: Sequence[str] = NAMES, name: str = "north") -> None:
        self.coordinator = Coordinator(folder / "coordinator", names=())
        for each in NAMES:
            self.coordinator.enrol(each, WITNESS if each in witnesses else WITNESS[:2])
        for each in witnesses[len(NAMES) :]:
            self.coordinator.enrol(each, ("witness",))
        self.log, self.name, self._path = SigningLog(self.coordinator), name, folder / "journal.sqlite"
        self.key: Callable[[], SigningKey] = lambda: self.coordinator[name].key
        self.open()

    def to_sign(self) -> SigningKey:
        return self.key()

    def open(self) -> None:
        self.journal = Journal(self._path)
        self.mirror = Mirror(self.journal, self.coordinator.genesis)
        self.witnessing = Witnessing(
            WitnessingPorts(self.name, self.mirror, self.journal, self.to_sign, self.coordinator.clock)
        )

    def close(self) -> None:
        self.journal.close()
        self.coordinator.close()

    def restart(self) -> None:
        """Everything from disk again."""
        self.journal.close()
        self.open()

    def hear(
        self, checkpoint: bytes = b"", *cosigned: bytes, until: int | None = None, size: int | None = None
    ) -> bool:
        """A reply of Follow, whose entries go to the mirror: up to `until`, and with `size` as the ledger's."""
        own = self.mirror.state.size
        envelopes = tuple(self.coordinator.envelopes()[own:until])
        if envelopes:
            self.mirror.admit(own, envelopes)
        total = self.coordinator.state.size if size is None else size
        return self.witnessing.heard(LedgerEntries(own, envelopes, total, checkpoint=checkpoint, cosigned=cosigned))

    def follow(self) -> bool:
        """An honest reply."""
        return self.hear(self.log.checkpoint(), *self.log.reply(0, cosigned_size=self.witnessing.covered).cosigned)

    def open_round(self) -> RoundRecord:
        """A round that is open, in the coordinator's ledger."""
        return self.coordinator.open_round()

    @property
    def size(self) -> int:
        return self.coordinator.state.size


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.close()


# --- cosigning --------------------------------------------------------------------------------------------------------


def test_the_checkpoint_of_exactly_the_own_copy_is_cosigned_under_the_members_key(scene: Scene) -> None:
    assert scene.hear(scene.log.checkpoint())
    waiting = scene.witnessing.waiting
    assert waiting is not None
    assert waiting.size == scene.size
    member = scene.coordinator.state.member("north")
    assert member is not None
    key = witness_key(scene.coordinator.state.genesis, member)
    note = scene.log.note().with_signature(NoteSignature(key.name, key.id, waiting.signature))
    assert key.name == "hospitals.llmasos/north"
    assert verify_cosignature(note, key) == int(scene.coordinator.clock.now().timestamp())


def test_the_same_checkpoint_is_cosigned_once_and_goes_again_when_the_connection_was_cut(scene: Scene) -> None:
    scene.hear(scene.log.checkpoint())
    cosignature = scene.witnessing.waiting
    assert cosignature is not None
    scene.witnessing.sent(cosignature)
    assert not scene.hear(scene.log.checkpoint())
    assert scene.witnessing.waiting is None
    scene.witnessing.cut_off()
    assert scene.witnessing.waiting == cosignature


def test_a_checkpoint_that_is_older_than_the_copy_is_compared_and_not_cosigned(scene: Scene) -> None:
    assert scene.hear(scene.log.checkpoint(3))
    assert scene.witnessing.waiting is None
    assert scene.witnessing.checkpoint_for(2) == scene.log.checkpoint(3).decode()
    assert scene.witnessing.checkpoint_for(3) is None


def test_who_is_no_witness_compares_and_signs_nothing(tmp_path: Path) -> None:
    scene = Scene(tmp_path, witnesses=("south",))
    scene.follow()
    assert scene.witnessing.waiting is None
    assert scene.journal.checkpoints() == [scene.log.checkpoint()]
    with pytest.raises(TwoHistories):
        scene.hear(scene.log.checkpoint(scene.size, root=bytes(32)))
    scene.close()


def test_the_copy_is_on_disk_before_a_cosignature_is_made(scene: Scene) -> None:
    durable: list[int] = []
    key = scene.key

    def watched() -> SigningKey:
        durable.append(len(scene.journal.ledger()))
        return key()

    scene.key = watched
    scene.hear(scene.log.checkpoint())
    assert durable == [scene.size]


def test_while_a_new_key_may_count_or_not_nothing_is_cosigned_and_afterwards_under_the_new_one(scene: Scene) -> None:
    def open_question() -> SigningKey:
        raise CoordinatorUnreachable("A new signing key was offered.")

    key, scene.key = scene.key, open_question
    scene.hear(scene.log.checkpoint())
    assert scene.witnessing.waiting is None
    scene.key = SigningKey.generate  # a key that the roster does not name
    scene.hear(scene.log.checkpoint())
    assert scene.witnessing.waiting is None
    scene.key = key
    scene.hear(scene.log.checkpoint())
    assert scene.witnessing.waiting is not None


def test_after_a_rotation_the_old_keys_cosignatures_count_no_more_and_the_new_one_signs(scene: Scene) -> None:
    record = scene.open_round()
    scene.log.cosign("east")
    scene.follow()
    scene.hear(b"", scene.log.cosigned(None, "east"))
    assert scene.witnessing.standing(record).cosigned == 2  # east's and north's own
    scene.coordinator["north"].rotate()
    scene.hear()
    assert scene.witnessing.standing(record).cosigned == 1
    scene.hear(scene.log.checkpoint())
    assert scene.witnessing.standing(record).cosigned == 2
    scene.restart()
    assert scene.witnessing.standing(record).cosigned == 2


# --- covered ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_a_round_may_be_acted_on_from_the_majority_on_and_not_before(tmp_path: Path, count: int) -> None:
    names = ("north", "south", "east", "dublin", "essen")[:count]
    scene = Scene(tmp_path, witnesses=(*[each for each in NAMES if each in names], *names[3:]), name="operator")
    record = scene.open_round()
    scene.follow()
    for signed in range(count + 1):
        if signed:
            scene.log.cosign(names[signed - 1])
        scene.hear(scene.log.checkpoint(), *(note for note in _all_notes(scene, names[:signed])))
        standing = scene.witnessing.standing(record)
        assert (standing.cosigned, standing.witnesses, standing.needed) == (signed, count, majority(count))
        assert standing.may_act == (signed >= majority(count))
        assert (scene.witnessing.covered > record.place.index) == standing.may_act
    scene.close()


def _all_notes(scene: Scene, names: Sequence[str]) -> list[bytes]:
    return [scene.log.cosigned(None, name) for name in names]


def test_without_a_witness_there_is_nothing_to_wait_for(tmp_path: Path) -> None:
    scene = Scene(tmp_path, witnesses=())
    record = scene.open_round()
    scene.hear()
    standing = scene.witnessing.standing(record)
    assert (standing.may_act, standing.needed, scene.witnessing.covered) == (True, 0, 0)
    scene.close()


def test_cosignatures_of_different_sizes_add_up(scene: Scene) -> None:
    record = scene.open_round()
    opening = record.place.index
    scene.hear()
    scene.hear(b"", scene.log.cosigned(opening, "south"), scene.log.cosigned(opening + 1, "east"))
    assert scene.witnessing.covered == opening
    assert not scene.witnessing.standing(record).may_act
    scene.hear(scene.log.checkpoint())  # and north's own
    assert scene.witnessing.covered == opening + 1
    assert scene.witnessing.standing(record).may_act


def test_a_strangers_cosignature_counts_for_nothing(scene: Scene) -> None:
    record = scene.open_round()
    scene.coordinator.enrol("west", ("trainer",))
    scene.hear(b"", scene.log.cosigned(None, "west", "south"))
    standing = scene.witnessing.standing(record)
    assert (standing.cosigned, standing.may_act) == (1, False)


def test_a_new_witness_counts_from_the_roster_on_that_names_it(scene: Scene) -> None:
    record = scene.open_round()
    scene.hear(b"", scene.log.cosigned(None, "south", "east"))
    assert scene.witnessing.standing(record).may_act
    for name in ("oslo", "paris"):
        scene.coordinator.enrol(name, ("witness",))
    scene.hear()
    standing = scene.witnessing.standing(record)
    assert (standing.cosigned, standing.witnesses, standing.needed, standing.may_act) == (2, 5, 3, False)
    scene.log.cosign("oslo")
    scene.hear(b"", scene.log.cosigned(None, "oslo"))
    assert scene.witnessing.standing(record).may_act


def test_a_witness_that_rotates_to_a_key_with_the_same_short_id_stops_nobody(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four bytes: it finds such a key in 2^32 tries. Its old words count no more, and the others go on."""
    monkeypatch.setattr(NoteKey, "id", property(lambda key: hashlib.sha256(key.name.encode()).digest()[:4]))
    record = scene.open_round()
    scene.hear(b"", scene.log.cosigned(None, "south", "east"))
    assert scene.witnessing.standing(record).may_act
    roster, place = scene.coordinator.state.roster, scene.coordinator.state.roster_place
    assert roster is not None
    assert place is not None
    scene.coordinator["south"].key = SigningKey.generate()
    changed = {"signing_key": scene.coordinator["south"].key.public}
    members = tuple(each.model_copy(update=changed) if each.name == "south" else each for each in roster.members)
    scene.coordinator.ledger.append(Roster(version=roster.version + 1, members=members), place)
    scene.hear()
    assert scene.witnessing.standing(record).cosigned == 1
    scene.restart()
    assert scene.witnessing.standing(record).cosigned == 1
    scene.hear(b"", scene.log.cosigned(None, "south"))
    assert scene.witnessing.standing(record).may_act


def test_what_is_covered_and_what_shows_it_outlives_the_process(scene: Scene) -> None:
    record = scene.open_round()
    scene.log.cosign("east", "south")
    scene.follow()
    covered = scene.witnessing.covered
    assert covered == scene.size
    scene.restart()
    assert scene.witnessing.covered == covered
    assert scene.witnessing.standing(record).may_act
    assert scene.witnessing.checkpoint_for(record.place.index) == scene.log.checkpoint().decode()


def test_what_a_round_was_waiting_for_is_kept_for_ever(scene: Scene) -> None:
    record = scene.open_round()
    scene.log.cosign("east", "south")
    scene.follow()
    acted_on = scene.journal.checkpoints_of("cosigned")
    assert [each.size for each in acted_on] == [scene.size]
    assert acted_on[0].size > record.place.index
    for name in NAMES:
        scene.coordinator[name].contribute()
    scene.log.cosign("east", "south")
    scene.follow()
    assert scene.journal.checkpoints_of("cosigned") == acted_on
    sizes = [
        read_checkpoint(parse_note(note), log_key(scene.mirror.state.genesis)).size
        for note in scene.journal.checkpoints()
    ]
    assert sizes == sorted(sizes)
    assert sizes[-1] == scene.size
    assert acted_on[0].note in scene.journal.checkpoints()


def test_readers_that_wait_are_woken_when_more_is_covered(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.open_round()
    scene.hear()
    woken: list[int] = []
    monkeypatch.setattr(scene.mirror, "wake", lambda: woken.append(scene.witnessing.covered))
    scene.hear(b"", scene.log.cosigned(None, "south"))
    assert woken == []
    scene.hear(b"", scene.log.cosigned(None, "south", "east"))
    assert woken == [scene.size]  # the size counts already when readers look


# --- two histories ----------------------------------------------------------------------------------------------------

OTHER = bytes(range(32))


def forks(scene: Scene) -> dict[str, tuple[bytes, tuple[bytes, ...], str]]:
    """Checkpoint, cosigned notes, and what is said of them."""
    size, small = scene.size, scene.size - 2
    own, own_small = scene.log.head(size).root.hex(), scene.log.head(small).root.hex()
    true = scene.log.checkpoint()
    fork = scene.log.cosigned(small, "south", "east", root=OTHER)
    other = f"its checkpoint's root is {OTHER.hex()}, the copy here gives"
    return {
        "of the own size": (scene.log.checkpoint(size, OTHER), (), f"two histories of {size} entries: {other} {own}"),
        "of a smaller size": (
            scene.log.checkpoint(small, OTHER),
            (),
            f"two histories of {small} entries: {other} {own_small}",
        ),
        "that witnesses cosigned": (
            true,
            (fork,),
            f"two histories of {small} entries: {other} {own_small}. Witnesses that cosigned the other one: east, south.",
        ),
    }


@pytest.mark.parametrize("claim", ["of the own size", "of a smaller size", "that witnesses cosigned"])
def test_a_checkpoint_of_another_history_ends_following_and_is_kept(scene: Scene, claim: str) -> None:
    checkpoint, cosigned, said = forks(scene)[claim]
    with pytest.raises(TwoHistories) as caught:
        scene.hear(checkpoint, *cosigned)
    assert said in caught.value.message
    assert EXPORT in caught.value.fix
    assert scene.journal.conflicting() == [cosigned[0] if cosigned else checkpoint]
    if not cosigned:
        assert scene.witnessing.waiting is None
    scene.restart()
    assert scene.journal.conflicting() == [cosigned[0] if cosigned else checkpoint]


def test_an_old_checkpoint_that_is_shown_again_is_two_histories_also_after_a_restart(scene: Scene) -> None:
    scene.hear(scene.log.checkpoint())
    before, old = scene.log.head(), scene.log.head(3)
    scene.restart()
    with pytest.raises(TwoHistories) as caught:
        scene.hear(scene.log.checkpoint(3))
    assert caught.value.message == (
        f"The coordinator went back: its checkpoint has 3 entries, root {old.root.hex()}, after it had signed one of "
        f"{before.size}, root {before.root.hex()}."
    )
    assert scene.journal.conflicting() == [scene.log.checkpoint(3)]


def test_a_ledger_that_got_shorter_is_two_histories(scene: Scene) -> None:
    scene.hear(scene.log.checkpoint(), size=100)
    for shorter in (99, 3):
        with pytest.raises(TwoHistories) as caught:
            scene.hear(scene.log.checkpoint(3), size=shorter)
        assert (
            f"ledger has {shorter} entries, and had 100 before; the copy here has {scene.size}" in caught.value.message
        )
        assert scene.log.head().root.hex() in caught.value.message
    assert scene.journal.conflicting() == [scene.log.checkpoint(3)]


def test_a_shorter_ledger_with_a_note_of_nobody_is_two_histories_without_that_note(scene: Scene) -> None:
    scene.hear()
    with pytest.raises(TwoHistories, match=r"restored from an older state"):
        scene.hear(b"no note", size=2)
    assert scene.journal.conflicting() == []


def test_a_checkpoint_ahead_of_the_copy_is_compared_once_the_copy_has_caught_up(scene: Scene) -> None:
    scene.hear(scene.log.checkpoint(), until=3)
    assert scene.witnessing.waiting is None
    assert scene.journal.checkpoints() == []
    scene.hear()
    assert scene.journal.checkpoints() == [scene.log.checkpoint()]
    assert scene.journal.checkpoints_of("ahead") == []


@pytest.mark.parametrize("restarted", [False, True])
def test_a_checkpoint_ahead_of_the_copy_turns_out_to_be_another_history(scene: Scene, restarted: bool) -> None:
    fork = scene.log.checkpoint(scene.size - 1, OTHER)
    scene.hear(fork, until=3)
    if restarted:
        scene.restart()
    with pytest.raises(TwoHistories, match=f"two histories of {scene.size - 1} entries"):
        scene.hear()
    assert scene.journal.conflicting() == [fork]


def test_two_checkpoints_of_one_size_that_nobody_holds_yet_are_two_histories_already(scene: Scene) -> None:
    one, other = scene.log.checkpoint(50, OTHER), scene.log.checkpoint(50, bytes(32))
    scene.hear(one, size=100)
    with pytest.raises(TwoHistories, match=f"root {OTHER.hex()} in one checkpoint, root {bytes(32).hex()} in another"):
        scene.hear(other, size=100)
    assert scene.journal.conflicting() == [one, other]


def test_a_cosigned_note_ahead_of_the_copy_counts_once_it_comes_again(scene: Scene) -> None:
    note = scene.log.cosigned(None, "south", "east")
    scene.hear(b"", note, until=3)
    assert scene.witnessing.covered == 0
    scene.hear(b"", note)
    assert scene.witnessing.covered == scene.size


def test_what_is_remembered_of_the_future_is_bounded(scene: Scene) -> None:
    for size in range(100, 100 + 2 * MAX_AHEAD):
        scene.hear(scene.log.checkpoint(size, OTHER), size=10_000)
    assert len(scene.journal.checkpoints_of("ahead")) == MAX_AHEAD
    with pytest.raises(TwoHistories, match=r"went back"):
        scene.hear(scene.log.checkpoint(), size=10_000)


# --- damage is no fork ------------------------------------------------------------------------------------------------


def damaged(scene: Scene) -> dict[str, tuple[bytes, tuple[bytes, ...], type[LLMasOSError]]]:
    """Checkpoint and cosigned notes that are no evidence of anything."""
    true, origin = scene.log.checkpoint(), scene.coordinator.state.genesis.log.origin
    forged = sign_note(Note(checkpoint_text(origin, scene.log.head())), origin, SigningKey.generate()).encode()
    tail = parse_note(scene.log.cosigned(None, "south"))
    last = tail.signatures[-1]
    broken = replace(last, signature=last.signature[:-1] + bytes([last.signature[-1] ^ 1]))
    return {
        "cut": (true[:-5], (), MalformedStatement),
        "no note": (b"garbage", (), MalformedStatement),
        "under another key": (forged, (), BadSignature),
        "a cosigned one under another key": (true, (forged,), BadSignature),
        "a cosignature that does not verify": (true, (tail.with_signature(broken).encode(),), BadSignature),
    }


@pytest.mark.parametrize(
    "claim",
    ["cut", "no note", "under another key", "a cosigned one under another key", "a cosignature that does not verify"],
)
def test_a_damaged_note_is_named_and_counts_for_nothing(scene: Scene, claim: str) -> None:
    record = scene.open_round()
    checkpoint, cosigned, error = damaged(scene)[claim]
    with pytest.raises(error) as caught:
        scene.hear(checkpoint, *cosigned)
    assert not isinstance(caught.value, LedgerConflict)
    assert scene.journal.conflicting() == []
    assert not scene.witnessing.standing(record).may_act
    scene.log.cosign("east", "south")
    scene.follow()
    assert scene.witnessing.standing(record).may_act


def test_a_journal_whose_checkpoint_was_changed_on_disk_is_a_conflict(scene: Scene) -> None:
    scene.follow()
    now = rfc3339(scene.coordinator.clock.now())
    forged = scene.log.checkpoint(4, OTHER)
    scene.journal.keep_checkpoints("newest", [KeptCheckpoint(4, OTHER.hex(), forged, now)])
    with pytest.raises(
        LedgerConflict, match=r"A checkpoint of 4 entries in the journal is not of the \d+ entries there"
    ):
        scene.restart()
    scene.journal.keep_checkpoints("newest", [KeptCheckpoint(4, OTHER.hex(), b"garbage", now)])
    with pytest.raises(LedgerConflict, match=r"A checkpoint in the journal cannot be: .* \(malformed-statement\)"):
        scene.restart()
