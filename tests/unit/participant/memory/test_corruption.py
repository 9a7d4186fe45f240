"""A journal with a damaged page: the daemon starts on what was written there, or says what is wrong; nothing is signed anew."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from common.errors import LedgerConflict, LLMasOSError, StorageFailure
from participant.memory.journal import Journal, SignedSlot
from participant.memory.mirror import Mirror
from tests.support.agents import Institution
from tests.support.coordinators import Coordinator

FLIPS = 300


class Kept:
    """The journal of an institution that took part in a round."""

    def __init__(self, folder: Path) -> None:
        coordinator = Coordinator(folder / "coordinator")
        north = Institution(folder / "north", coordinator)
        record = north.open_round()
        north.agent.work(north.run, record)
        self.genesis, self.state = coordinator.genesis, north.mirror.state
        self.signed: list[SignedSlot] = north.journal.all_signed()
        north.close()
        coordinator.close()
        with sqlite3.connect(folder / "north" / "journal.sqlite") as connection:
            connection.execute("PRAGMA journal_mode=DELETE")  # all of it in one file
        self.content = (folder / "north" / "journal.sqlite").read_bytes()
        assert len(self.signed) == 2


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    return Kept(tmp_path_factory.mktemp("kept"))


def started(path: Path, content: bytes, kept: Kept) -> str:
    """What a daemon finds at its start: `same`, or the code of the error that it ends with."""
    for stale in path.parent.glob(path.name + "*"):
        stale.unlink()
    path.write_bytes(content)
    try:
        journal = Journal(path)
        try:
            journal.check()
            state = Mirror(journal, kept.genesis).state
            assert state == kept.state
            found = [(each.slot, each.digest, each.envelope) for each in journal.all_signed()]
            assert found == [(each.slot, each.digest, each.envelope) for each in kept.signed]
        finally:
            journal.close()
    except (StorageFailure, LedgerConflict) as err:
        return err.code
    return "same"


def test_a_flipped_byte_anywhere_is_harmless_or_named(kept: Kept, tmp_path: Path) -> None:
    chance, seen = random.Random(7), Counter[str]()
    for _ in range(FLIPS):
        at = chance.randrange(len(kept.content))
        content = bytearray(kept.content)
        content[at] ^= 1 << chance.randrange(8)
        seen[started(tmp_path / "journal.sqlite", bytes(content), kept)] += 1
    assert seen["same"] > 0, "empty space"
    assert seen["storage-failure"] + seen["ledger-conflict"] > FLIPS // 20, seen


@pytest.mark.parametrize("part", ["slot", "envelope"])
def test_a_damaged_slot_is_not_taken_for_one_that_was_never_signed(kept: Kept, tmp_path: Path, part: str) -> None:
    """The slot's name stands in the table and in its index; the envelope in the table alone."""
    wanted = getattr(kept.signed[-1], part)
    needle = wanted.encode() if isinstance(wanted, str) else wanted[100:140]
    places = [at for at in range(len(kept.content)) if kept.content.startswith(needle, at)]
    assert places
    for at in places:
        content = bytearray(kept.content)
        content[at + 5] ^= 1
        assert started(tmp_path / "journal.sqlite", bytes(content), kept) in ("storage-failure", "ledger-conflict")


def test_a_file_that_is_no_journal_says_what_to_do(kept: Kept, tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"x" * 8192)
    with pytest.raises(LLMasOSError, match="is not a database") as caught:
        Journal(path)
    assert "backup" in caught.value.fix
