"""Many rows at once, by the driver itself: SQLAlchemy's own way takes longer for each row than SQLite does."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Dialect, Table, insert

from coordinator.store import tables
from coordinator.store.tree import Tile


def insert_rows(connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows whose values stand in the order of the table's columns."""
    if rows:
        connection.exec_driver_sql(_statement(table, connection.dialect), list(rows))


def keep_tiles(connection: Connection, tiles: Sequence[Tile]) -> None:
    """Write completed tiles of the ledger's tree."""
    insert_rows(connection, tables.tiles, [(tile.level, tile.position, tile.root, tile.hashes) for tile in tiles])


@lru_cache(16)
def _statement(table: Table, dialect: Dialect) -> str:
    return str(insert(table).compile(dialect=dialect))
