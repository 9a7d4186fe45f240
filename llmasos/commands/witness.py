"""`llmasos witness ADDRESS`: cosign a consortium's checkpoints from outside, whoever you are."""

from __future__ import annotations

import base64
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from common.clock import SystemClock, rfc3339
from common.daemon import stop_event
from common.errors import (
    CoordinatorUnreachable,
    StorageFailure,
    TooManyRequests,
    TwoHistories,
    WrongFingerprint,
)
from common.homes import HomeLock, private_folder
from common.identity.invitation import open_genesis
from common.ledger.notes import Note, verify_cosignature
from common.statements.kinds import Genesis
from common.terminal import FormatOption, OutputFormat, Terminal
from common.verify.output import parse_fingerprint
from common.wire.session import log_head
from llmasos.witness import Ask, Witness, vkey

FORK_EXIT_CODE = 1


def witness(
    address: Annotated[
        str, typer.Argument(help="The coordinator's enrolment listener, HOST:PORT.", show_default=False)
    ],
    genesis: Annotated[Path, typer.Option(help="The consortium's genesis.json.", show_default=False)],
    home: Annotated[Path, typer.Option(help="Folder of the witness's key and of what it saw.", show_default=False)],
    name: Annotated[
        str | None, typer.Option(help="What it is called, such as witness.example.org; once.", show_default=False)
    ] = None,
    every: Annotated[float, typer.Option(min=1.0, max=86_400.0, help="Seconds between two looks.")] = 60.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
    fingerprint: Annotated[
        str | None,
        typer.Option(help="The consortium's fingerprint, as you know it from elsewhere.", show_default=False),
    ] = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Witness a ledger from outside: cosign its checkpoints, as long as each one goes on from the one before.

    HOME/checkpoint holds the newest with its cosignature. Give it to members: llmasos-participant checkpoint compare FILE.
    Exit 1: two histories; both notes are in HOME/conflict-*.note. It runs until SIGTERM or Ctrl-C.
    """
    trusted, terminal = _genesis(genesis, fingerprint), Terminal(output)
    with HomeLock(private_folder(home)):
        try:
            looking = Witness(home, trusted, SystemClock(), name)
            terminal.progress(f"verifier key: {vkey(looking.key)}")
            _watch(looking, _asking(address, trusted), terminal, None if once else every)
        except TwoHistories as err:
            typer.echo(f"error [{err.code}]: {err.message}\n  fix: {err.fix}", err=True)
            raise typer.Exit(FORK_EXIT_CODE) from err


def _watch(looking: Witness, ask: Ask, terminal: Terminal, every: float | None) -> None:
    """Look again and again, until the process is to end; once, where `every` is None."""
    stopping = threading.Event() if every is None else stop_event()
    while not stopping.is_set():
        try:
            note = looking.look(ask)
            if note is not None:
                _put_out(looking, note, terminal)
            elif every is None:
                terminal.progress("nothing new since the last look")
        except (CoordinatorUnreachable, TooManyRequests) as err:
            if every is None:
                raise
            terminal.progress(f"{err.message} It is asked again in {every:g} s.")
        if every is None or stopping.wait(every):
            return


def _put_out(looking: Witness, note: Note, terminal: Terminal) -> None:
    assert looking.seen is not None
    at = rfc3339(datetime.fromtimestamp(verify_cosignature(note, looking.key), UTC))
    size, root, text = looking.seen.size, looking.seen.root, note.encode().decode()
    human = f"{at}  {size} entries, root {base64.b64encode(root).decode()}"
    data = {"size": size, "root": root.hex(), "at": at, "checkpoint": text, "vkey": vkey(looking.key)}
    terminal.result(human, data=data, quiet=text.rstrip("\n"))


def _asking(address: str, genesis: Genesis) -> Ask:
    return lambda old_size: log_head(
        address, consortium=genesis.consortium, ca_pem=genesis.ca_certificate.encode(), old_size=old_size
    )


def _genesis(path: Path, fingerprint: str | None) -> Genesis:
    """
    Raises:
        StorageFailure: the file cannot be read.
        WrongFingerprint: it is another consortium's.
    """
    try:
        envelope = path.read_bytes()
    except OSError as err:
        raise StorageFailure(f"{path} cannot be read: {err.strerror}.", "Ask a member for its genesis.json.") from err
    statement, genesis = open_genesis(envelope)
    known = parse_fingerprint(fingerprint)
    if known is not None and known != statement.digest:
        raise WrongFingerprint(
            f"{path} has the fingerprint {statement.digest}, expected {known}.",
            "Ask for the genesis.json of the consortium that you mean to witness.",
        )
    return genesis
