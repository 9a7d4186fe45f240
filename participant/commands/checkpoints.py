"""llmasos-participant checkpoint: hold signed heads of the ledger against the own copy, hand them on, and keep receipts."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from common.clock import SystemClock
from common.errors import MalformedStatement, NotInitialised, UnknownObject, UsageError
from common.homes import atomic_write, private_folder
from common.ledger.heads import log_key, receipt_of, tree_of
from common.ledger.merkle import verify_consistency
from common.ledger.notes import Note, NoteKey
from common.ledger.receipts import verify_receipt
from common.ledger.witnesses import cosigners, majority, strangers, witnesses_of
from common.statements.envelope import parse
from common.terminal import FormatOption, HomeOption, OutputFormat, Terminal, new_app, resolve_home
from common.verify.times import moment
from common.wire.messages import LogHead
from participant.commands.connection import member_session
from participant.config import HomeLayout, ParticipantConfig, load_config
from participant.memory.checkpoints import Checkpoint, Checkpoints, by_size
from participant.memory.journal import Journal
from participant.memory.mirror import Mirror

app = new_app("checkpoint", "Signed heads of the ledger: compare them, hand them on, keep receipts.")

COMPARED = "A checkpoint, from wherever it came; - is stdin. None: the coordinator's newest."
RECEIPTED = "A checkpoint; - is stdin. None: the newest here, if possible one that most witnesses cosigned."
AHEAD_EXIT_CODE = 4


@dataclass(frozen=True, slots=True)
class _Own:
    """This institution's side: its verified copy of the ledger, and what it keeps."""

    layout: HomeLayout
    config: ParticipantConfig
    journal: Journal
    mirror: Mirror
    checkpoints: Checkpoints

    @property
    def log(self) -> NoteKey:
        return log_key(self.mirror.state.genesis)

    @property
    def witnesses(self) -> dict[str, NoteKey]:
        return witnesses_of(self.mirror.state)

    def signers(self, note: Note) -> dict[str, Any]:
        """Who cosigned a note, as JSON values: witnesses of the roster, with their times; names of others, unverified."""
        found = cosigners(note, self.witnesses)
        times = {name: moment(seconds) for name, seconds in found.items()}
        return {
            "cosigned_by": times,
            "witnesses": len(self.witnesses),
            "others": strangers(note, self.witnesses, self.log),
        }


@app.command()
def compare(
    checkpoint: Annotated[Path | None, typer.Argument(help=COMPARED, show_default=False)] = None,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Whether a checkpoint is of the very history that this institution saw, and who cosigned it.

    Exit 0: it is; 4: it is of a longer ledger than the copy here, so nothing is known yet; 3: two histories were
    shown, or a signature on it is not what it claims to be, as the error says.
    """
    with _own(home) as own:
        if checkpoint is None:
            asked = _newest_of_the_coordinator(own)
            found = own.checkpoints.read(asked.checkpoint)
        else:
            found = _given(own, checkpoint)
        data = {"size": found.head.size, "root": found.head.root.hex(), "own_entries": own.mirror.state.size}
        data |= own.signers(found.note)
        ahead = found.head.size > own.mirror.state.size
        if ahead and checkpoint is None:
            verify_consistency(hashlib.sha256, own.mirror.head(), found.head, asked.consistency)
        elif not own.checkpoints.is_own_history(found):
            text = (
                f"The checkpoint has {found.head.size} entries, the copy here {own.mirror.state.size}: compare again when "
                "it has caught up."
            )
            Terminal(output).result(text, data={**data, "result": "ahead"}, quiet="ahead")
            raise typer.Exit(AHEAD_EXIT_CODE)
        longer = f", the first {own.mirror.state.size} of them the copy here" if ahead else ""
        lines = [f"The same history: {found.head.size} entries{longer}, signed by {own.log.name}.", *_cosigned(data)]
        Terminal(output).result("\n".join(lines), data={**data, "result": "same"}, quiet="same")


@app.command()
def show(home: HomeOption = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """Print the newest checkpoint that the own copy bears out, with the cosignatures on it that are known here.

    Mail it, or read it out: others hold it against their copies with `checkpoint compare`, whatever the coordinator shows them.
    """
    with _own(home) as own:
        newest = _held(own)[-1]
        text = newest.note.encode().decode().rstrip("\n")
        data = {
            "size": newest.head.size,
            "root": newest.head.root.hex(),
            **own.signers(newest.note),
            "checkpoint": text + "\n",
        }
        Terminal(output).result(text, data=data, quiet=text)


@app.command()
def receipts(
    folder: Annotated[Path, typer.Option("--out", help="New folder; one file a statement.")],
    checkpoint: Annotated[Path | None, typer.Argument(help=RECEIPTED, show_default=False)] = None,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Keep the proof that own statements are in the ledger of a checkpoint (C2SP tlog-proof), beside each statement."""
    with _own(home) as own:
        found = _most_cosigned(own) if checkpoint is None else _given(own, checkpoint)
        if folder.exists():
            raise UsageError(f"{folder} exists already.", "Name a folder that does not exist yet.")
        if not own.checkpoints.is_own_history(found):
            raise UsageError(
                f"The checkpoint has {found.head.size} entries, the copy here {own.mirror.state.size}.",
                "Wait until the copy has caught up, or name an older checkpoint.",
            )
        written = _write_receipts(own, found, folder)
        cosigned = own.signers(found.note)["cosigned_by"]
    text = f"{written} receipts in {folder}, for statements up to entry {found.head.size - 1}."
    if cosigned:
        text += f"\nTheir checkpoint is cosigned by {', '.join(cosigned)}."
    data = {"receipts": written, "folder": str(folder), "size": found.head.size, "cosigned_by": cosigned}
    Terminal(output).result(text, data=data, quiet=str(written))


@app.command()
def acknowledge(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Let the daemon go on although two histories were shown to this institution. The evidence stays in the journal.

    For an accident that is explained, such as a coordinator that was restored from an old backup and is well again.
    """
    with _own(home) as own:
        shown = own.journal.checkpoints_of("conflicting")
        if not shown:
            Terminal(output).result("Nothing to acknowledge.", data={"acknowledged": 0}, quiet="0")
            return
        if not yes:
            for each in shown:
                typer.echo(f"{each.size:,} entries, root {each.root}, seen at {each.seen_at}", err=True)
            if not typer.confirm("Go on in spite of it?", default=False, err=True):
                raise typer.Exit(1)
        count = own.journal.acknowledge()
        text = f"{count} checkpoints acknowledged and kept. Start the daemon again: llmasos-participant start"
        Terminal(output).result(text, data={"acknowledged": count}, quiet=str(count))


# --- what stands behind ----------------------------------------------------------------------------------------------


@contextmanager
def _own(home: Path | None) -> Iterator[_Own]:
    layout = HomeLayout(resolve_home(home, "participant"))
    config = load_config(layout.home)
    journal = Journal(layout.journal)
    try:
        mirror = Mirror(journal, layout.genesis.read_bytes())
        yield _Own(layout, config, journal, mirror, Checkpoints(mirror, journal, SystemClock()))
    finally:
        journal.close()


def _newest_of_the_coordinator(own: _Own) -> LogHead:
    """
    Raises:
        TwoHistories: the coordinator's ledger is shorter than the copy here, all of which it had shown.
    """
    with member_session(own.layout, own.config, own.mirror.state.genesis) as session:
        try:
            return session.head(own.mirror.state.size)
        except UnknownObject:
            shown = session.head()
    own.checkpoints.never_shorter(own.checkpoints.read(shown.checkpoint).head.size, shown.checkpoint)
    return shown


def _held(own: _Own) -> list[Checkpoint]:
    """What is kept of the own history, one for each size, ascending.

    Raises:
        NotInitialised: none came yet.
    """
    found: dict[int, Checkpoint] = {}
    for each in map(own.checkpoints.read, own.journal.checkpoints()):
        known = found.setdefault(each.head.size, each)
        found[each.head.size] = known if len(known.note.signatures) >= len(each.note.signatures) else each
    if not found:
        raise NotInitialised(
            "No checkpoint has come to this institution yet.",
            "Start the daemon, or name a file: llmasos-participant start.",
        )
    return sorted(found.values(), key=by_size)


def _most_cosigned(own: _Own) -> Checkpoint:
    """The newest that a majority of the witnesses cosigned; where there is none, the newest."""
    held, needed = _held(own), majority(len(own.witnesses))
    full = [each for each in held if needed and len(cosigners(each.note, own.witnesses)) >= needed]
    return (full or held)[-1]


def _write_receipts(own: _Own, found: Checkpoint, folder: Path) -> int:
    """One receipt for each own statement that the checkpoint's tree holds; how many."""
    envelopes = own.journal.ledger()[: found.head.size]
    tree = tree_of(envelopes)
    written = 0
    for index, envelope in _signed(own, envelopes):
        receipt = receipt_of(tree, index, found.note, found.head.size)
        verify_receipt(receipt, envelope, own.log)
        name = f"{index:06d}-{parse(envelope).kind}"
        atomic_write(private_folder(folder) / f"{name}.json", envelope)
        atomic_write(folder / f"{name}.tlog-proof", receipt.encode())
        written += 1
    return written


def _signed(own: _Own, envelopes: Iterable[bytes]) -> list[tuple[int, bytes]]:
    """Index and envelope of what this institution signed."""
    signed = {each.digest for each in own.journal.all_signed()}
    return [(index, envelope) for index, envelope in enumerate(envelopes) if parse(envelope).digest in signed]


def _cosigned(data: dict[str, Any]) -> list[str]:
    """Who cosigned, in words."""
    lines = []
    if data["witnesses"]:
        lines.append(f"Cosigned by {len(data['cosigned_by'])} of {data['witnesses']} witnesses.")
        lines += [f"  {name}, at {time}" for name, time in data["cosigned_by"].items()]
    if data["others"]:
        lines.append(f"Also signed by others, whose keys are not known here: {', '.join(data['others'])}.")
    return lines


def _given(own: _Own, path: Path) -> Checkpoint:
    """
    Raises:
        UsageError: what was named is no checkpoint. That says nothing of the history.
        BadSignature: it is one, and not the log's.
    """
    name = "standard input" if str(path) == "-" else str(path)
    try:
        return own.checkpoints.read(_read(path))
    except MalformedStatement as err:
        raise UsageError(
            f"{name} is no checkpoint of {own.log.name}: {err.message}",
            "Name what `checkpoint show`, `llmasos-coordinator checkpoint` or `llmasos witness` wrote; evidence is for "
            "llmasos verify.",
        ) from err


def _read(path: Path) -> bytes:
    if str(path) == "-":
        return sys.stdin.buffer.read(1024 * 1024)
    try:
        return path.read_bytes()
    except OSError as err:
        raise UsageError(f"{path} cannot be read: {err.strerror}.", "Name the file that holds the checkpoint.") from err
