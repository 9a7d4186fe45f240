"""llmasos-coordinator checkpoint: the ledger's signed head, to be compared by other ways than through the coordinator."""

from __future__ import annotations

from common.errors import NotInitialised
from common.identity.invitation import open_genesis
from common.identity.keys import SigningKey
from common.identity.passphrase import read_passphrase
from common.ledger.heads import signed_checkpoint, tree_of
from common.terminal import FormatOption, HomeOption, OutputFormat, Terminal, resolve_home
from coordinator.commands.verifying import stored_envelopes
from coordinator.config import HomeLayout
from coordinator.store.database import Database, file_url


def checkpoint(home: HomeOption = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """Print a signed checkpoint of the ledger (C2SP tlog-checkpoint), on the coordinator's machine.

    Send it to institutions by mail or read it out; each compares it with its own copy: llmasos-participant checkpoint compare.
    """
    from coordinator.app import load_config

    layout = HomeLayout(resolve_home(home, "coordinator"))
    passphrase = read_passphrase(load_config(layout.home).identity.passphrase_file)
    if not layout.state.exists():
        raise NotInitialised(f"{layout.home} holds no coordinator's ledger.", "Name its home folder with --home.")
    genesis = open_genesis(layout.genesis.read_bytes())[1]
    database = Database(file_url(layout.state))
    try:
        tree = tree_of(stored_envelopes(database))
    finally:
        database.close()
    note = signed_checkpoint(tree, genesis, SigningKey.load(layout.log_key, passphrase))
    text = note.encode().decode()
    head = tree.head()
    data = {"origin": genesis.log.origin, "size": head.size, "root": head.root.hex(), "checkpoint": text}
    Terminal(output).result(text.rstrip("\n"), data=data, quiet=text.rstrip("\n"))
