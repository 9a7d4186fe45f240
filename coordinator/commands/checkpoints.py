"""llmasos-coordinator checkpoint: the ledger's signed head, to be compared by other ways than through the coordinator."""

from __future__ import annotations

from pathlib import Path

from common.errors import HomeLocked
from common.homes import HomeLock
from common.identity.invitation import open_genesis
from common.identity.keys import SigningKey
from common.identity.passphrase import read_passphrase
from common.ledger.heads import log_key, signed_checkpoint
from common.ledger.notes import Note, NoteKey, parse_note, read_checkpoint
from common.terminal import FormatOption, HomeOption, OutputFormat, Terminal, resolve_home
from coordinator.commands.connection import consortium_genesis, operator_session
from coordinator.config import HomeLayout
from coordinator.log import HeadFile, expect_log_key
from coordinator.recovery.backing_up import expect_recovered
from coordinator.store.database import Database, file_url
from coordinator.store.tiles import Tiles, rebuilt


def checkpoint(home: HomeOption = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """Print the newest checkpoint of the ledger (C2SP tlog-checkpoint), with the cosignatures on it that are known.

    Asks the running coordinator; where none runs on this home, signs what its database holds. Send it to institutions by mail
    or read it out; each compares it with its own copy: llmasos-participant checkpoint compare.
    """
    layout = HomeLayout(resolve_home(home, "coordinator"))
    if not layout.state.exists():
        note, log = _asked(layout.home)
    else:
        note, log = newest_checkpoint(layout)
    head = read_checkpoint(note, log)
    text = note.encode().decode()
    data = {
        "origin": log.name,
        "size": head.size,
        "root": head.root.hex(),
        "checkpoint": text,
        "cosigned_by": [each.name for each in note.signatures if (each.name, each.key_id) != (log.name, log.id)],
    }
    Terminal(output).result(text.rstrip("\n"), data=data, quiet=text.rstrip("\n"))


def newest_checkpoint(layout: HomeLayout) -> tuple[Note, NoteKey]:
    """The newest checkpoint of a coordinator's home, and the key of its log.

    Raises:
        TwoHistories: the database does not continue what was signed before.
        CoordinatorUnreachable: a coordinator runs here and does not answer.
    """
    try:
        with HomeLock(layout.home):
            return _signed_here(layout)
    except HomeLocked:
        return _asked(layout.home)  # a coordinator runs here, and it alone may sign for its database


def _asked(home: Path) -> tuple[Note, NoteKey]:
    """The running coordinator's, under the operator's certificate."""
    with operator_session(home) as session:
        return parse_note(session.head().checkpoint), log_key(consortium_genesis(home))


def _signed_here(layout: HomeLayout) -> tuple[Note, NoteKey]:
    """Signed with the home's key, once the database is found to continue what was signed before.

    Raises:
        TwoHistories: it does not.
    """
    from coordinator.app import load_config

    expect_recovered(layout.home)
    passphrase = read_passphrase(load_config(layout.home).identity.passphrase_file)
    genesis = open_genesis(layout.genesis.read_bytes())[1]
    key, file = SigningKey.load(layout.log_key, passphrase), HeadFile(layout.log_head)
    log = expect_log_key(genesis, key)
    database = Database(file_url(layout.state))
    try:
        tree = Tiles(database).of(rebuilt(database))  # by the envelopes: what is signed here, no replay has checked
        signed = file.check(tree, log)
        note = signed_checkpoint(tree, genesis, key)
        known = database.checkpoint(tree.size)
    finally:
        database.close()
    if tree.size > signed:
        file.write(note)
    return _with_cosignatures(note, known), log


def _with_cosignatures(note: Note, kept: bytes | None) -> Note:
    stored = parse_note(kept) if kept is not None else note
    return stored if stored.text == note.text else note
