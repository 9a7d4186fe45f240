"""llmasos-coordinator run: start, list, watch, pause, resume, abort, export."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from common.blobs.plain_file import open_as_blob
from common.blobs.store import FolderBlobStore
from common.errors import (
    BadBlobReference,
    CoordinatorUnreachable,
    InvalidConfiguration,
    NotInitialised,
    RunFailed,
    UnknownObject,
)
from common.statements.kinds import PlanStatement
from common.terminal import FormatOption, HomeOption, OutputFormat, Terminal, new_app, resolve_home, table
from common.wire.messages import Purpose
from coordinator.api.client import OperatorSession
from coordinator.commands.connection import operator_session
from coordinator.commands.watching import Watcher
from coordinator.ports import RunView

app = new_app("run", "Training runs.")

RunArgument = Annotated[str, typer.Argument(help="The run's id, or a unique beginning of it.")]
WATCH_PATIENCE_SECONDS = 300.0
WATCH_RETRY_SECONDS = 2.0
SUCCESSFUL_ENDS = frozenset({"rounds-done", "target-reached", "no-improvement"})


@app.command()
def start(
    prepared: Annotated[Path, typer.Argument(help="Folder that `llmasos plan prepare` made.")],
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Send a prepared plan with its initial model and tokenizer, and ask the institutions."""
    draft, text = read_draft(prepared)
    terminal = Terminal(output)
    with operator_session(resolve_home(home, "coordinator")) as session:
        for name, ref in (("model.safetensors", draft.initial.model), ("tokenizer.json", draft.initial.tokenizer)):
            with open_as_blob(prepared / name, ref.algorithm) as reader:
                if reader.ref != ref:
                    raise BadBlobReference(
                        f"{prepared / name} is {reader.ref}, the draft beside it says {ref}.",
                        "Prepare the plan again: llmasos plan prepare.",
                    )
                terminal.progress(f"sending {name} ({ref.size:,} bytes)")
                session.upload(reader, Purpose(plan=draft.run))
        run = session.start_run(text)
    terminal.result(run, data={"run": run}, quiet=run)


@app.command("list")
def list_runs(home: HomeOption = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """Every run and where it stands."""
    with operator_session(resolve_home(home, "coordinator")) as session:
        views = session.runs()
    rows = [
        [view.run, view.plan_name, view.phase, f"{view.round}", _perplexity(view), view.end_reason] for view in views
    ]
    Terminal(output).result(
        table(["RUN", "PLAN", "PHASE", "ROUND", "PERPLEXITY", "ENDED"], rows, right=frozenset({"ROUND", "PERPLEXITY"})),
        data=[asdict_view(view) for view in views],
        quiet="\n".join(view.run for view in views),
    )


@app.command()
def watch(run: RunArgument, home: HomeOption = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """Follow a run until it ends; exit 1 if it ended without its rounds done."""
    terminal = Terminal(output)
    watcher = Watcher(terminal)
    last: RunView | None = None
    with operator_session(resolve_home(home, "coordinator")) as session:
        for view in views(session, run, terminal):
            last = view
            if output is OutputFormat.JSON:
                terminal.result("", data=asdict_view(view))
            else:
                watcher.show(view)
    if last is None or last.end_reason not in SUCCESSFUL_ENDS:
        raise RunFailed(f"Run {run} ended: {last.end_reason if last else 'without a word'}.")


@app.command()
def pause(
    run: RunArgument,
    reason: Annotated[str, typer.Option(help="A code, for the ledger.")] = "operator",
    home: HomeOption = None,
) -> None:
    """Open no further round; the one that is open goes on to its end."""
    _control(run, "pause", reason, home)


@app.command()
def resume(run: RunArgument, home: HomeOption = None) -> None:
    """Open rounds again."""
    _control(run, "resume", "operator", home)


@app.command()
def abort(run: RunArgument, home: HomeOption = None) -> None:
    """End a run now; the newest committed model stays."""
    _control(run, "abort", "operator", home)


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
        view = _find(session, run)
        if view.model is None:
            raise UnknownObject(f"Run {view.run} has no model.")
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as folder:
            store = FolderBlobStore(Path(folder))
            session.download(view.model, store, "export")
            shutil.move(store.path(view.model), out)
    digest = f"{view.model.algorithm}:{view.model.root}"
    Terminal(output).result(
        f"{out}  {view.model.size:,} bytes  {digest}", data={"path": str(out), "digest": digest}, quiet=str(out)
    )


def views(session: OperatorSession, run: str, terminal: Terminal) -> Iterator[RunView]:
    """The run's views until it ended; a coordinator that restarts meanwhile is waited for.

    Raises:
        CoordinatorUnreachable: from the beginning, or for longer than WATCH_PATIENCE_SECONDS.
    """
    seen_at: float | None = None
    while True:
        try:
            for view in session.watch(run):
                seen_at = time.monotonic()
                yield view
            return
        except CoordinatorUnreachable as err:
            if seen_at is None or time.monotonic() - seen_at > WATCH_PATIENCE_SECONDS:
                raise
            terminal.progress(f"{err.message} Trying again.")
            time.sleep(WATCH_RETRY_SECONDS)


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
        raise InvalidConfiguration(f"{path}: {err.errors()[0]['msg']}.", "Prepare the plan again.") from err


def asdict_view(view: RunView) -> dict[str, object]:
    """A run's view as JSON."""
    data = asdict(view)
    data["model"] = view.model.model_dump() if view.model else None
    return data


def _control(run: str, action: str, reason: str, home: Path | None) -> None:
    with operator_session(resolve_home(home, "coordinator")) as session:
        index = session.control(run, action, reason)
    Terminal().result(f"{action}: ledger index {index}", data={"index": index}, quiet=str(index))


def _find(session: OperatorSession, prefix: str) -> RunView:
    found = [view for view in session.runs() if view.run == prefix]
    found = found or [view for view in session.runs() if view.run.startswith(prefix)]
    if len(found) != 1:
        raise UnknownObject(f"{len(found)} runs begin with {prefix!r}.")
    return found[0]


def _perplexity(view: RunView) -> str:
    for record in reversed(view.rounds):
        for entry in record.evaluations:
            if entry.scope == "pooled" and entry.num_tokens:
                return f"{math.exp(min(700.0, entry.loss_sum_fixed / 65536 / entry.num_tokens)):.1f}"
    return "-"
