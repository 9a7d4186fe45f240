"""Databases that older releases made, brought up to date in place, in the transaction that opens them.

1 → 2   certificates: what was issued stood only in the invitation that was redeemed for it
2 → 3   tiles: the ledger's tree, from the stored envelopes; the index over digests goes
"""

from __future__ import annotations

from sqlalchemy import Connection, insert, select, update

from common.identity.certificates import certificate_id
from coordinator.store import tables
from coordinator.store.inserting import keep_tiles
from coordinator.store.tree import TILE_HASHES, LedgerTree, envelope_hash

_COLUMNS = '"index", digest, kind, appended_at, envelope'


def bring_up_to_date(connection: Connection, version: int) -> None:
    """Make the tables that are missing in a database of that version, and fill them from what it holds."""
    if version < 3:
        connection.exec_driver_sql("ALTER TABLE ledger RENAME TO ledger_before_3")
    tables.metadata.create_all(connection)
    if version < 2:
        _certificates_of_invitations(connection)
    if version < 3:
        _ledger_without_index(connection)
        _tiles_of_envelopes(connection)
    if version < tables.SCHEMA_VERSION:
        connection.execute(update(tables.schema).values(version=tables.SCHEMA_VERSION))


def _certificates_of_invitations(connection: Connection) -> None:
    redeemed = select(tables.invitations).where(tables.invitations.c.certificate_pem.is_not(None))
    for row in connection.execute(redeemed).all():
        connection.execute(
            insert(tables.certificates).values(
                serial=certificate_id(row.certificate_pem).serial,
                institution=row.institution,
                pem=row.certificate_pem,
                roster_index=row.roster_index,
            )
        )


def _ledger_without_index(connection: Connection) -> None:
    """The same rows in a table that has no index over digests."""
    connection.exec_driver_sql(
        f'INSERT INTO ledger ({_COLUMNS}) SELECT {_COLUMNS} FROM ledger_before_3 ORDER BY "index"'
    )
    connection.exec_driver_sql("DROP TABLE ledger_before_3")


def _tiles_of_envelopes(connection: Connection) -> None:
    """The tree of what stands in the ledger, a tile's envelopes in memory at a time.

    Where a row is missing the tree ends; whoever replays the ledger says which one it is.
    """
    index, tree = tables.ledger.c.index, LedgerTree()
    while True:
        page = select(index, tables.ledger.c.envelope).where(index >= tree.size).order_by(index).limit(TILE_HASHES)
        rows = connection.execute(page).all()
        dense = [envelope for at, (found, envelope) in enumerate(rows, start=tree.size) if found == at]
        tree, tiles = tree.grown([envelope_hash(raw(envelope)) for envelope in dense])
        keep_tiles(connection, tiles)
        if len(dense) < TILE_HASHES:
            return


def raw(value: object) -> bytes:
    """A column's bytes: SQLite gives back whatever type a hand wrote."""
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")
