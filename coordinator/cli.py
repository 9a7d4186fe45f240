"""llmasos-coordinator: found a consortium, run its coordinator, invite institutions, start and watch runs.

`init` and `start` work on the home folder; everything else is an RPC under the operator's certificate in HOME/operator.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from common.clock import SystemClock
from common.daemon import bound_memory, stop_event
from common.terminal import FormatOption, HomeOption, OutputFormat, Terminal, new_app, resolve_home, run_app
from coordinator.commands import evidence as evidence_commands
from coordinator.commands import institutions, metrics, operators, proposals, runs
from coordinator.commands.backing_up import backup, recover, restore
from coordinator.commands.checkpoints import checkpoint
from coordinator.commands.status import status
from coordinator.commands.verifying import verify
from coordinator.members.founding import Founding, found

app = new_app("llmasos-coordinator", "Found a consortium, run its coordinator, start runs.")
app.add_typer(institutions.app, name="institution")
app.add_typer(operators.app, name="operator")
app.add_typer(runs.app, name="run")
app.add_typer(proposals.app, name="proposal")
app.add_typer(metrics.app, name="metrics")
app.add_typer(evidence_commands.app, name="evidence")


@app.command()
def init(
    consortium: Annotated[str, typer.Option(help="The consortium's name: lower-case letters, digits, hyphens.")],
    home: HomeOption = None,
    work_address: Annotated[str, typer.Option(help="Listener for institutions and operators.")] = "127.0.0.1:7443",
    enrolment_address: Annotated[str, typer.Option(help="Listener for those who join.")] = "127.0.0.1:7444",
    passphrase_file: Annotated[
        Path | None,
        typer.Option(help="File that holds a passphrase for the private keys. Default: they are not encrypted."),
    ] = None,
    approvals: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND=K",
            help="How many institutions must approve a roster, plan or release, repeatable: roster=2. Fixed for good.",
            show_default=False,
        ),
    ] = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Make a home folder: keys, certificate authority, genesis, and the operator's certificate."""
    folder = resolve_home(home, "coordinator")
    founding = Founding(
        consortium=consortium,
        work_address=work_address,
        enrolment_address=enrolment_address,
        passphrase_file=passphrase_file,
        approvals=proposals.parse_approvals(approvals or []),
    )
    fingerprint = found(folder, founding, SystemClock())
    Terminal(output).result(
        f"Consortium {consortium} founded in {folder}.\n"
        f"Fingerprint: {fingerprint}\n"
        f"Next: llmasos-coordinator start --home {folder}",
        data={"consortium": consortium, "home": str(folder), "fingerprint": fingerprint},
        quiet=fingerprint,
    )


@app.command()
def start(
    home: HomeOption = None,
    lifeline_fd: Annotated[int | None, typer.Option(help="Inherited pipe; the daemon ends when it closes.")] = None,
) -> None:
    """Run the coordinator, in the foreground, until SIGTERM or Ctrl-C."""
    from coordinator.app import serve

    bound_memory()
    serve(resolve_home(home, "coordinator"), stop_event(lifeline_fd))


app.command()(status)
app.command()(verify)
app.command()(checkpoint)
app.command()(backup)
app.command()(restore)
app.command()(recover)


def main() -> NoReturn:
    """The console script."""
    run_app(app)
