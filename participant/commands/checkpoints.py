"""llmasos-participant checkpoint: compare signed heads of the ledger by other ways, and keep receipts."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from common.errors import LedgerConflict, MalformedStatement, UsageError
from common.homes import atomic_write, private_folder
from common.identity.invitation import open_genesis
from common.ledger.heads import log_key, receipt_of, tree_of
from common.ledger.merkle import TreeHead
from common.ledger.notes import Note, NoteKey, parse_note, read_checkpoint
from common.ledger.receipts import verify_receipt
from common.ledger.tree import StoredTree
from common.statements.envelope import parse
from common.terminal import FormatOption, HomeOption, OutputFormat, Terminal, new_app, resolve_home
from participant.config import HomeLayout, load_config
from participant.memory.journal import Journal

app = new_app("checkpoint", "Signed heads of the ledger: compare them, keep receipts.")

FileArgument = Annotated[
    Path, typer.Argument(help="A checkpoint, as `llmasos-coordinator checkpoint` prints it; - is stdin.")
]
AHEAD_EXIT_CODE = 4


@dataclass(frozen=True, slots=True)
class _Compared:
    """A checkpoint whose signature holds, beside the own copy of the ledger."""

    note: Note
    head: TreeHead
    envelopes: list[bytes]
    tree: StoredTree
    layout: HomeLayout
    log: NoteKey


@app.command()
def compare(checkpoint: FileArgument, home: HomeOption = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """Whether a checkpoint is of the very history that this institution saw.

    Exit 0: it is; 4: it is of a longer ledger than the copy here, so nothing is known yet; 1: two histories were shown.
    """
    found = _compared(checkpoint, home)
    ours = min(found.head.size, found.tree.size)
    data = {"size": found.head.size, "root": found.head.root.hex(), "own_entries": found.tree.size}
    if ours < found.head.size:
        text = (
            f"The checkpoint has {found.head.size} entries, the copy here {ours}: compare again when it has caught up."
        )
        Terminal(output).result(text, data={**data, "result": "ahead"}, quiet="ahead")
        raise typer.Exit(AHEAD_EXIT_CODE)
    own = found.tree.head(found.head.size)
    if own != found.head:
        raise LedgerConflict(
            f"Two histories of {found.head.size} entries: the checkpoint's root is {found.head.root.hex()}, "
            f"the copy here gives {own.root.hex()}.",
            "Keep the checkpoint, and export yours: llmasos-participant evidence export. See docs/operations.md#two-histories.",
        )
    text = f"The same history: {found.head.size} entries, signed by {found.log.name}."
    Terminal(output).result(text, data={**data, "result": "same"}, quiet="same")


@app.command()
def receipts(
    checkpoint: FileArgument,
    folder: Annotated[Path, typer.Option("--out", help="New folder; one file a statement.")],
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Keep the proof that own statements are in the ledger of a checkpoint (C2SP tlog-proof), beside each statement."""
    found = _compared(checkpoint, home)
    if folder.exists():
        raise UsageError(f"{folder} exists already.", "Name a folder that does not exist yet.")
    if found.head.size > found.tree.size or found.tree.head(found.head.size) != found.head:
        raise LedgerConflict("The checkpoint is not of the copy here.", "See: llmasos-participant checkpoint compare.")
    written = 0
    for index, envelope in _own(found):
        receipt = receipt_of(found.tree, index, found.note, found.head.size)
        verify_receipt(receipt, envelope, found.log)
        name = f"{index:06d}-{parse(envelope).kind}"
        atomic_write(private_folder(folder) / f"{name}.json", envelope)
        atomic_write(folder / f"{name}.tlog-proof", receipt.encode())
        written += 1
    text = f"{written} receipts in {folder}, for statements up to entry {found.head.size - 1}."
    Terminal(output).result(text, data={"receipts": written, "folder": str(folder)}, quiet=str(written))


def _own(found: _Compared) -> list[tuple[int, bytes]]:
    """Index and envelope of what this institution signed, as far as the checkpoint goes."""
    journal = Journal(found.layout.journal)
    try:
        signed = {each.digest for each in journal.all_signed()}
    finally:
        journal.close()
    entries = enumerate(found.envelopes[: found.head.size])
    return [(index, envelope) for index, envelope in entries if parse(envelope).digest in signed]


def _compared(checkpoint: Path, home: Path | None) -> _Compared:
    """
    Raises:
        MalformedStatement, BadSignature: it is no checkpoint that this consortium's log signed.
    """
    layout = HomeLayout(resolve_home(home, "participant"))
    load_config(layout.home)
    note = parse_note(_read(checkpoint))
    log = log_key(open_genesis(layout.genesis.read_bytes())[1])
    head = read_checkpoint(note, log)
    journal = Journal(layout.journal)
    try:
        envelopes = journal.ledger()
    finally:
        journal.close()
    return _Compared(note, head, envelopes, tree_of(envelopes), layout, log)


def _read(path: Path) -> bytes:
    if str(path) == "-":
        return sys.stdin.buffer.read(1024 * 1024)
    try:
        return path.read_bytes()
    except OSError as err:
        raise MalformedStatement(
            f"{path} cannot be read: {err.strerror}.", "Name the file that holds the checkpoint."
        ) from err
