"""llmasos-coordinator metrics: delete what institutions measured; commitments stay in the ledger."""

from __future__ import annotations

from typing import Annotated

import typer

from common.names import check_name
from common.terminal import FormatOption, HomeOption, OutputFormat, Terminal, new_app, resolve_home
from coordinator.commands.connection import operator_session
from coordinator.commands.following import RunArgument

app = new_app("metrics", "What institutions measured.")


@app.callback()
def metrics() -> None:
    """What institutions measured."""


@app.command()
def delete(
    run: RunArgument,
    institution: Annotated[
        str | None, typer.Option(help="Only what this one measured. Default: everybody's.", show_default=False)
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Delete the held-out losses of a run that has ended, for good.

    The ledger keeps the salted commitments, which tell nothing about them, and stays valid. Each institution keeps its own. A
    sum over institutions of which one is deleted is not shown any more: with the sum before, it would tell that one's.
    """
    whose = check_name(institution) if institution is not None else ""
    terminal = Terminal(output)
    question = f"Delete for good what {whose or 'every institution'} measured in {run}?"
    if not yes and not typer.confirm(question, default=False, err=True):
        raise typer.Abort
    with operator_session(resolve_home(home, "coordinator")) as session:
        deleted = session.delete_metrics(run, whose)
    text = f"{deleted:,} records are deleted." if deleted else "Nothing was kept, so nothing was deleted."
    terminal.result(text, data={"run": run, "institution": whose or None, "deleted": deleted}, quiet=str(deleted))
