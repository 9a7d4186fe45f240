"""llmasos-participant contributions: what this institution's own deltas did to the model; an auditor's view of all of them."""

from __future__ import annotations

from contextlib import closing

from common.blobs.store import FolderBlobStore
from common.contributions.output import PlotOption, RoundOption, committed_rounds, put_out
from common.contributions.visibility import rows_shown_to
from common.ledger.finding import find_run
from common.terminal import FormatOption, HomeOption, OutputFormat, Terminal, resolve_home
from participant.commands.plans import RunArgument
from participant.commands.verifying import fetching
from participant.config import HomeLayout, load_config
from participant.memory.journal import Journal
from participant.memory.mirror import Mirror


def contributions(
    run: RunArgument,
    number: RoundOption = None,
    plot: PlotOption = None,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Show what this institution's own deltas did to the model: tokens, share, norm, cosine.

    Only where the plan's contributions_visibility says so. Computed here, from own deltas and from models that every member may
    read; what is not held is fetched from the coordinator, as far as it retains it, and deleted again. An auditor whom the plan
    names is shown every row where it says operator.
    """
    from common.contributions.figures import round_figures  # lazily: the reducer imports numpy

    layout, terminal = HomeLayout(resolve_home(home, "participant")), Terminal(output)
    config = load_config(layout.home)
    with closing(Journal(layout.journal)) as journal:
        state = Mirror(journal, layout.genesis.read_bytes()).state
    found = find_run(state, run)
    wanted = rows_shown_to(found, config.institution)
    records = committed_rounds(found, number)
    with (
        closing(FolderBlobStore(layout.blobs)) as held,
        fetching(layout, config, terminal, [held]) as blobs,
    ):
        rounds = [round_figures(found, record, blobs, wanted) for record in records]
    put_out(found, rounds, terminal, plot)
