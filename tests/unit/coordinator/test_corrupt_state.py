"""A state database with a damaged page: the coordinator starts on the ledger that was written, or ends with a named error."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from pathlib import Path

from common.errors import LLMasOSError
from common.identity.keys import SigningKey
from common.ledger.state import LedgerState
from coordinator.ledger import Ledger
from coordinator.store.database import Database, file_url
from tests.support.coordinators import NAMES, Coordinator

FLIPS = 40


def started(path: Path, coordinator: Coordinator) -> LedgerState | str:
    """The ledger's state as a coordinator finds it at its start, or the code of the error that it ends with."""
    database = None
    try:
        database = Database(file_url(path))
        key = SigningKey.load(coordinator.layout.statement_key)
        return Ledger(database, key, coordinator.clock, coordinator.genesis).state
    except LLMasOSError as err:
        return err.code
    finally:
        if database is not None:
            database.close()


def test_a_flipped_byte_anywhere_is_harmless_or_named(coordinator: Coordinator, tmp_path: Path) -> None:
    coordinator.open_round(rounds=2)
    for name in NAMES:
        coordinator[name].contribute()
    coordinator.advance()
    expected = coordinator.state
    with sqlite3.connect(coordinator.layout.state) as source, sqlite3.connect(tmp_path / "whole.sqlite") as whole:
        source.backup(whole)
        whole.execute("PRAGMA journal_mode=DELETE")
    source.close()
    whole.close()
    content, chance, seen = (tmp_path / "whole.sqlite").read_bytes(), random.Random(7), Counter[str]()
    for number in range(FLIPS):
        damaged = bytearray(content)
        damaged[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path = tmp_path / f"{number}.sqlite"
        path.write_bytes(damaged)
        found = started(path, coordinator)
        assert found == expected or isinstance(found, str), f"flip {number} made another ledger"
        seen[found if isinstance(found, str) else "same"] += 1
    assert seen["same"] > 0, "empty space"
    assert sum(seen.values()) - seen["same"] > FLIPS // 20, seen
