"""llmasos-participant: join a consortium, run the daemon, see what it does and what left the house."""

from __future__ import annotations

from typing import Annotated, NoReturn

import typer

from common.daemon import bound_memory, stop_event
from common.terminal import HomeOption, new_app, resolve_home, run_app
from participant.commands import checkpoints as checkpoint_commands
from participant.commands import control, gaining, seeing
from participant.commands import data as data_commands
from participant.commands import evidence as evidence_commands
from participant.commands import identity as identity_commands
from participant.commands import joining as joining_commands
from participant.commands import lineage as lineage_commands
from participant.commands import plans as plan_commands
from participant.commands import policy as policy_commands
from participant.commands import proposals as proposal_commands
from participant.commands.auditing import audit
from participant.commands.backing_up import backup, restore
from participant.commands.contributions import contributions
from participant.commands.verifying import verify

app = new_app("llmasos-participant", "Join a consortium, run the daemon, see what it does.")
app.command()(joining_commands.join)
app.command()(joining_commands.doctor)
app.add_typer(data_commands.app, name="data")
app.add_typer(plan_commands.app, name="plan")
app.add_typer(policy_commands.app, name="policy")
app.add_typer(identity_commands.app, name="identity")
app.add_typer(evidence_commands.app, name="evidence")
app.add_typer(checkpoint_commands.app, name="checkpoint")
app.add_typer(lineage_commands.app, name="lineage")
app.add_typer(proposal_commands.app, name="proposal")
app.add_typer(proposal_commands.roster_app, name="roster")


@app.command()
def start(
    home: HomeOption = None,
    lifeline_fd: Annotated[int | None, typer.Option(help="Inherited pipe; the daemon ends when it closes.")] = None,
) -> None:
    """Run the participant, in the foreground, until SIGTERM or Ctrl-C."""
    from participant.app import serve

    bound_memory()
    serve(resolve_home(home, "participant"), stop_event(lifeline_fd))


app.command()(seeing.status)
app.command()(control.pause)
app.command()(control.resume)
app.command()(seeing.egress)
app.command()(seeing.log)
app.command()(gaining.gain)
app.command()(contributions)
app.command()(verify)
app.command()(audit)
app.command()(control.leave)
app.command()(backup)
app.command()(restore)


def main() -> NoReturn:
    """The console script."""
    run_app(app)
