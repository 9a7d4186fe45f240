"""llmasos-coordinator run: start, list, show, watch, wait, logs, steer (pause to abort), export, contributions."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from common.blobs.plain_file import open_as_blob
from common.blobs.store import FolderBlobStore
from common.clock import SystemClock
from common.errors import BadBlobReference, InvalidConfiguration, NotInitialised, RunFailed, UnknownObject, UsageError
from common.statements.kinds import PlanStatement
from common.terminal import FormatOption, HomeOption, OutputFormat, Terminal, new_app, printable, resolve_home
from common.wire.messages import Purpose
from coordinator.api.client import OperatorSession
from coordinator.commands import dry_run as dry
from coordinator.commands.connection import operator_session
from coordinator.commands.contributions import contributions
from coordinator.commands.following import RunArgument, newest_view, views
from coordinator.commands.formats import as_data, parse_duration
from coordinator.commands.panel import LivePanel
from coordinator.commands.showing import run_text, runs_table
from coordinator.commands.waiting import Goal, wait_for
from coordinator.commands.watching import Watcher
from coordinator.ports import NOTHING, LogLine, RunView, Steering

app = new_app("run", "Training runs.")

SUCCESSFUL_ENDS = frozenset({"rounds-done", "target-reached", "no-improvement"})
MOST_ANSWER_SECONDS = 60
_CODE = re.compile(r"[a-z][a-z0-9-]{0,62}")

ReasonOption = Annotated[
    str,
    typer.Option(
        "--reason",
        metavar="CODE",
        help="Why, for the ledger, where every member reads it: lower-case letters, digits, hyphens.",
    ),
]


@app.command()
def start(
    prepared: Annotated[
        Path, typer.Argument(help="Folder that `llmasos plan prepare` made.", metavar="PREPARED", show_default=False)
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Start nothing: say who would take part and what it would cost.")
    ] = False,
    wait_seconds: Annotated[
        int,
        typer.Option("--wait-seconds", min=1, max=MOST_ANSWER_SECONDS, help="--dry-run: how long to await answers."),
    ] = 10,
    measure_steps: Annotated[
        int, typer.Option("--measure-steps", min=0, max=1000, help="--dry-run: steps to time here; 0 times none.")
    ] = 3,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Send a prepared plan with its initial model and tokenizer, and ask the institutions.

    With --dry-run: exit 0 if enough institutions would accept or ask a person, 3 if too few would.
    """
    draft, text = read_draft(prepared)
    terminal = Terminal(output)
    with operator_session(resolve_home(home, "coordinator")) as session:
        if dry_run:
            terminal.progress(f"asking the institutions, for {wait_seconds} s at most")
            measuring = dry.measure(prepared, measure_steps, terminal)
            found = dry.dry_run(session, draft, text, measuring, float(wait_seconds), SystemClock())
            terminal.result(dry.in_words(found), data=dry.as_data(found), quiet="enough" if found.enough else "too-few")
            raise typer.Exit(dry.exit_code(found))
        run = _send(session, prepared, draft, text, terminal)
    terminal.result(run, data={"run": run}, quiet=run)


@app.command("list")
def list_runs(home: HomeOption = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """Every run and where it stands."""
    with operator_session(resolve_home(home, "coordinator")) as session:
        found = session.runs()
    Terminal(output).result(
        runs_table(found), data=[as_data(view) for view in found], quiet="\n".join(view.run for view in found)
    )


@app.command()
def show(run: RunArgument, home: HomeOption = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """One run in full: institutions, rounds with pooled perplexity, refusals with code and digest."""
    with operator_session(resolve_home(home, "coordinator")) as session:
        view = newest_view(session, run)
    Terminal(output).result(run_text(view, SystemClock().now()), data=as_data(view), quiet=view.phase)


@app.command()
def watch(run: RunArgument, home: HomeOption = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """Follow a run until it ends; exit 1 if it ended without its rounds done.

    On a terminal a panel that stays in place; else one line an event, or with --format json one view a line.
    """
    with operator_session(resolve_home(home, "coordinator")) as session:
        last = _watch(session, run, Terminal(output))
    if last is None or last.end_reason not in SUCCESSFUL_ENDS:
        raise RunFailed(f"Run {run} ended: {last.end_reason if last else 'without a word'}.")


@app.command()
def wait(
    run: RunArgument,
    goal: Annotated[
        str, typer.Option("--for", help="accepted (as many as the quorum), round=N (closed), or ended.", metavar="WHAT")
    ],
    timeout: Annotated[
        str | None, typer.Option("--timeout", help="Such as 90s, 30m, 2h, 1d. Default: no end.", metavar="TIME")
    ] = None,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Wait until a run came so far; exit 1 if the time is over or the run ended before."""
    wanted, seconds = Goal.parse(goal), parse_duration(timeout, "--timeout") if timeout else None
    terminal = Terminal(output)
    with operator_session(resolve_home(home, "coordinator")) as session:
        view = wait_for(session, run, wanted, seconds, terminal)
    line = f"{view.run}: {wanted}. Now round {view.round}, {view.phase}."
    terminal.result(line, data=as_data(view), quiet=view.run)


@app.command()
def logs(
    run: RunArgument,
    institution: Annotated[
        str, typer.Argument(help="Only this institution's events.", metavar="[NAME]", show_default=False)
    ] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new events until the run ends.")] = False,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """A run's events, oldest first: from the ledger, and what institutions reported since the coordinator started."""
    terminal = Terminal(output)
    with operator_session(resolve_home(home, "coordinator")) as session:
        for line in session.logs(run, institution, follow=follow):
            terminal.result(_log_text(line), data=asdict(line), quiet=_log_text(line))


@app.command()
def pause(
    run: RunArgument,
    reason: ReasonOption = "operator",
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Open no further round; the one that is open goes on to its end."""
    _control(run, "pause", reason, home, output)


@app.command()
def resume(
    run: RunArgument,
    reason: ReasonOption = "operator",
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Open rounds again."""
    _control(run, "resume", reason, home, output)


@app.command()
def extend(
    run: RunArgument,
    rounds: Annotated[
        int | None, typer.Option("--rounds", min=1, help="Training rounds in all, more than now.", metavar="N")
    ] = None,
    deadline_seconds: Annotated[
        int | None,
        typer.Option("--deadline-seconds", min=1, help="From now to the open round's new deadline.", metavar="S"),
    ] = None,
    reason: ReasonOption = "operator",
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Give a run more training rounds, or its open round more time."""
    if (rounds is None) == (deadline_seconds is None):
        raise UsageError("run extend takes exactly one of --rounds and --deadline-seconds.", "Call it twice for both.")
    _control(run, "extend", reason, home, output, Steering(rounds=rounds, deadline_seconds=deadline_seconds))


@app.command()
def rollback(
    run: RunArgument,
    to_round: Annotated[
        int, typer.Option("--to-round", min=0, help="The last round to keep; 0: the plan's initial model.", metavar="R")
    ],
    reason: ReasonOption = "operator",
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Go on from what an earlier round left. Later rounds stay in the ledger, and their numbers are not used again."""
    _control(run, "rollback", reason, home, output, Steering(to_round=to_round))


@app.command()
def abort(
    run: RunArgument,
    reason: ReasonOption = "operator",
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """End a run now; the newest committed model stays."""
    _control(run, "abort", reason, home, output)


@app.command()
def export(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="File to write: tensors in safetensors layout.")],
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Fetch the newest committed model of a run."""
    if out.exists():
        raise InvalidConfiguration(f"{out} exists; it is not overwritten.", "Name another --out.")
    with operator_session(resolve_home(home, "coordinator")) as session:
        view = newest_view(session, run)
        if view.model is None:
            raise UnknownObject(f"Run {view.run} has no model.")
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as folder:
            store = FolderBlobStore(Path(folder))
            session.download(view.model, store, "export")
            shutil.move(store.path(view.model), out)
    digest = f"{view.model.algorithm}:{view.model.root}"
    Terminal(output).result(
        f"{out}  {view.model.size:,} bytes  {digest}\n\nNext: llmasos plan export PREPARED {out} --out DIR",
        data={"path": str(out), "digest": digest},
        quiet=str(out),
    )


app.command()(contributions)


# --- what the commands do ------------------------------------------------------------------------------------------------


def read_draft(prepared: Path) -> tuple[PlanStatement, bytes]:
    """The draft of a prepared folder, and its bytes.

    Raises:
        NotInitialised: the folder was not made by `plan prepare`.
    """
    path = prepared / "draft.json"
    if not path.is_file():
        raise NotInitialised(
            f"{prepared} holds no prepared plan.", "Make one: llmasos plan prepare PLAN.yaml --out DIR."
        )
    text = path.read_bytes()
    try:
        return PlanStatement.model_validate_json(text), text
    except ValidationError as err:
        said = err.errors()[0]["msg"].removeprefix("Value error, ")
        raise InvalidConfiguration(f"{path}: {said}.", "Prepare the plan again.") from err


def _send(session: OperatorSession, prepared: Path, draft: PlanStatement, text: bytes, terminal: Terminal) -> str:
    for name, ref in (("model.safetensors", draft.initial.model), ("tokenizer.json", draft.initial.tokenizer)):
        with open_as_blob(prepared / name, ref.algorithm) as reader:
            if reader.ref != ref:
                raise BadBlobReference(
                    f"{prepared / name} is {reader.ref}, the draft beside it says {ref}.",
                    "Prepare the plan again: llmasos plan prepare.",
                )
            terminal.progress(f"sending {name} ({ref.size:,} bytes)")
            session.upload(reader, Purpose(plan=draft.run))
    return session.start_run(text)


def _watch(session: OperatorSession, run: str, terminal: Terminal) -> RunView | None:
    """Shows every view in the way that the output asks for; the last one."""
    last: RunView | None = None
    clock, console = SystemClock(), Console(file=sys.stdout, highlight=False, emoji=False)
    if terminal.output is OutputFormat.HUMAN and console.is_terminal and not console.is_dumb_terminal:
        with LivePanel(console, clock.now) as panel:
            for last in views(session, run, panel.say):
                panel.show(last)
        return last
    watcher = Watcher(terminal, clock.now)
    for last in views(session, run, terminal.progress):
        if terminal.output is OutputFormat.JSON:
            terminal.result("", data=as_data(last))
        else:
            watcher.show(last)
    return last


def _log_text(line: LogLine) -> str:
    where = f"round {line.round}" if line.round else "-"
    return printable(f"{line.at[:19]}Z  {where:<8}  {line.institution or 'coordinator'}  {line.event}: {line.text}")


def _control(
    run: str, action: str, reason: str, home: Path | None, output: OutputFormat, steering: Steering = NOTHING
) -> None:
    if not _CODE.fullmatch(reason):
        raise UsageError(
            f"--reason is {reason[:80]!r}, expected a code: 1 to 63 lower-case letters, digits and hyphens, "
            "beginning with a letter, such as maintenance.",
            "The ledger keeps codes, not sentences: every member reads them, forever.",
        )
    with operator_session(resolve_home(home, "coordinator")) as session:
        index = session.control(run, action, reason, steering)
    data = {"run": run, "action": action, "index": index}
    Terminal(output).result(f"{action}: ledger index {index}", data=data, quiet=str(index))
