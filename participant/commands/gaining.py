"""llmasos-participant gain: is it worth it? Perplexity on own text, alone against together. Local: nothing of it leaves."""

from __future__ import annotations

import shutil
from typing import Annotated, Any

import typer

from common.clock import SystemClock
from common.errors import UsageError
from common.terminal import FormatOption, HomeOption, OutputFormat, Terminal, resolve_home
from participant.commands.connection import member_session
from participant.overview import perplexity
from participant.status import read_status


def gain(
    run: Annotated[str, typer.Argument(help="The run's id, or a unique beginning of it.", show_default=False)],
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="Train so many steps alone. Default: as many as the run's rounds so far.", show_default=False
        ),
    ] = None,
    beside: Annotated[
        bool, typer.Option("--beside", help="Also while the daemon trains: both then compete for the device.")
    ] = False,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Compare training alone with taking part, on own text.

    A model is trained on this institution's text alone, and measured beside the consortium's on own held-out text. The models
    are fetched from the coordinator; data, training and figures stay here, and token files are removed at the end.
    """
    from participant.bench.alone import FOLDER, AlonePorts, TrainingAlone
    from participant.bench.workbench import Workbench
    from participant.config import load_config
    from participant.memory.records import Records
    from participant.plans.deciding import PlanDesk

    terminal = Terminal(output)
    with PlanDesk(resolve_home(home, "participant"), SystemClock()) as desk:
        layout, found, genesis = desk.layout, desk.find(run), desk.state.genesis
    config = load_config(layout.home)
    _check_device_is_free(read_status(layout.status), beside=beside)
    folder = layout.home / FOLDER
    shutil.rmtree(folder, ignore_errors=True)  # what a command that was killed left behind
    records = Records(layout.journal)
    workbench = Workbench(layout, config, jobs=folder / "jobs")
    try:
        with member_session(layout, config, genesis) as session:
            ports = AlonePorts(config.institution, session, workbench, records, SystemClock(), genesis.blob_digest)
            result = TrainingAlone(ports, folder, found).train(steps, terminal.progress)
    finally:
        workbench.close()
        records.close()
    alone = perplexity(result.alone.loss_sum_fixed, result.alone.num_tokens)
    together = perplexity(result.consortium.loss_sum_fixed, result.consortium.num_tokens)
    rounds = "1 round" if result.rounds == 1 else f"{result.rounds:,} rounds"
    terminal.result(
        f"Perplexity on {result.alone.num_tokens:,} held-out tokens of {config.institution}'s own text; lower is better.\n"
        f"  alone        {alone:10.4g}   after {result.steps:,} steps on own text\n"
        f"  consortium   {together:10.4g}   after {rounds} of {found.run}\n"
        f"{_verdict(alone, together)}",
        data={
            "run": found.run,
            "steps": result.steps,
            "rounds": result.rounds,
            "alone": alone,
            "consortium": together,
            "held_out_tokens": result.alone.num_tokens,
        },
        quiet=f"{alone:.6g} {together:.6g}",
    )


def _verdict(alone: float, together: float) -> str:
    if together < alone:
        return f"Taking part gained {100 * (1 - together / alone):.1f} % on this text so far."
    return "Taking part has gained nothing on this text so far."


def _check_device_is_free(status: dict[str, Any], *, beside: bool) -> None:
    """
    Raises:
        UsageError: the daemon's worker works now, and `beside` was not said.
    """
    if not beside and status["running"] and status.get("run"):
        raise UsageError(
            f"The daemon works on {status['run']} now ({status['activity']}): both would compete for the device.",
            "Add --beside, or wait, or pause first: llmasos-participant pause.",
        )
