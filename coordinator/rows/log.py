"""What the log signed and computed: tiles follow from the envelopes, checkpoints are of their tree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.errors import RefusalError
from common.ledger.heads import log_key, tree_of
from common.ledger.notes import parse_note, read_checkpoint
from common.ledger.state import LedgerState
from common.verify.report import Finding, Outcome
from coordinator.rows.reading import failed, raw
from coordinator.store import tables
from coordinator.store.database import Database
from coordinator.store.tree import LedgerTree, Tile, envelope_hash


def check_tiles(database: Database, state: LedgerState) -> Iterator[Finding]:
    """Every completed tile is there and is what the envelopes give; no other is."""
    tree, stored = LedgerTree(), {(row.level, row.position): row for row in database.all_rows(tables.tiles)}
    while rows := database.envelopes(tree.size):
        if rows[0].index != tree.size or rows[-1].index != tree.size + len(rows) - 1:
            return  # the ledger's own check names the row that is missing
        tree, completed = tree.grown([envelope_hash(raw(row.envelope)) for row in rows])
        for tile in completed:
            yield from _tile(tile, stored.pop((tile.level, tile.position), None))
    for level, position in sorted(stored, key=str):
        yield failed(f"Tile {position} of level {level} stands there, and the ledger is too short to have it.")


def _tile(expected: Tile, found: Any) -> Iterator[Finding]:
    where = f"Tile {expected.position} of level {expected.level} of the ledger's tree"
    if found is None:
        yield failed(f"{where} is not there.", expected=expected.root.hex())
    elif (raw(found.root), raw(found.hashes)) != (expected.root, expected.hashes):
        yield failed(
            f"{where} is not made from the envelopes beside it.", None, expected.root.hex(), raw(found.root).hex()
        )


def check_checkpoints(database: Database, state: LedgerState) -> Iterator[Finding]:
    """Each is signed by the log, of the ledger's own tree, under its own size. Cosignatures are for `verify` to check."""
    stored = database.all_rows(tables.checkpoints)
    if not stored:
        return
    log, tree = log_key(state.genesis), tree_of(_envelopes(database))
    for row in stored:
        try:
            head = read_checkpoint(parse_note(raw(row.note)), log)
        except RefusalError as err:
            yield failed(f"The checkpoint kept of {row.size} entries is not the log's: {err.message} ({err.code})")
            continue
        if head.size != row.size:
            yield failed("A checkpoint is kept under another size than its own.", None, head.size, row.size)
        if head.size > tree.size:
            yield failed("A checkpoint is of a longer ledger than the table holds.", None, tree.size, head.size)
        elif tree.head(head.size) != head:
            text = (
                f"The log signed two histories of {head.size:,} entries: one of its checkpoints is not of this ledger."
            )
            yield failed(text, max(0, head.size - 1), tree.head(head.size).root.hex(), head.root.hex())


def check_genesis_file(path: Path, database: Database) -> Iterator[Finding]:
    """The coordinator starts from this file: it is entry 0, byte for byte."""
    first = next(_envelopes(database), b"")
    if path.exists() and path.read_bytes() != first:
        yield failed(f"{path.name} is not the ledger's entry 0.", 0, f"{len(first)} bytes, those of entry 0", "others")


def check_head(path: Path, database: Database, state: LedgerState) -> Iterator[Finding]:
    """The largest checkpoint that was ever signed, kept beside the database: the ledger here has all of it, unaltered."""
    if not path.exists():
        return
    try:
        head = read_checkpoint(parse_note(path.read_bytes()), log_key(state.genesis))
    except (OSError, RefusalError) as err:
        text = f"{path.name} cannot be read, so it guards against no backup that is too old: {err}"
        yield Finding(Outcome.GAPS, text)
        return
    tree = tree_of(_envelopes(database))
    if head.size > tree.size:
        text = f"The log signed {head.size:,} entries, as {path.name} shows: the ledger's table is an older one."
        yield failed(text, tree.size, head.size, tree.size)
    elif tree.head(head.size) != head:
        text = f"The log signed two histories of {head.size:,} entries: {path.name} is of another one than the table."
        yield failed(text, max(0, head.size - 1), tree.head(head.size).root.hex(), head.root.hex())


def _envelopes(database: Database) -> Iterator[bytes]:
    """As far as they stand in their places; the ledger's own check names the first that does not."""
    index = 0
    while rows := database.envelopes(index):
        for row in rows:
            if row.index != index:
                return
            yield raw(row.envelope)
            index += 1
