"""llmasos-coordinator run contributions: who contributed what, where the plan shows the operator."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.blobs.store import FolderBlobStore
from common.contributions.output import PlotOption, RoundOption, committed_rounds, put_out
from common.contributions.visibility import expect_shown_to_operator
from common.errors import LedgerConflict, NotInitialised, RefusalError
from common.ledger.finding import find_run
from common.ledger.rules import admit, start
from common.ledger.state import LedgerState, RunRecord
from common.terminal import FormatOption, HomeOption, OutputFormat, Terminal, resolve_home
from coordinator.commands.following import RunArgument
from coordinator.commands.verifying import stored_envelopes
from coordinator.config import HomeLayout
from coordinator.measuring import Measurer
from coordinator.store.database import Database, file_url

if TYPE_CHECKING:
    from common.contributions.left_out import Measure


def contributions(
    run: RunArgument,
    number: RoundOption = None,
    evaluate: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Text to measure each round's model on, with and without each delta. Needs the extra train.",
            show_default=False,
            exists=True,
            file_okay=False,
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of the arithmetic of --evaluate.")] = 1,
    plot: PlotOption = None,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Show what each delta did to the model: tokens, norm, cosine; with --evaluate, what leaving it out does to the loss.

    Only where the plan's contributions_visibility is operator. Works on the home folder, also beside the running coordinator,
    from the deltas that the plan's retention kept. Nothing is kept or sent.
    """
    from common.contributions.figures import round_figures  # lazily: the reducer imports numpy
    from common.contributions.left_out import expect_measurable, with_effects

    layout, terminal = HomeLayout(resolve_home(home, "coordinator")), Terminal(output)
    found = find_run(_state(layout), run)
    expect_shown_to_operator(found)
    records = committed_rounds(found, number)
    rounds = []
    with closing(FolderBlobStore(layout.blobs)) as blobs:
        if evaluate is not None:
            expect_measurable(found)
        with _measuring(found, blobs, evaluate, threads) as measuring:
            for record in records:
                terminal.progress(f"round {record.number}: {len(record.contributions)} deltas")
                figures = round_figures(found, record, blobs)
                if measuring is not None:
                    figures = with_effects(found, record, figures, blobs, measuring)
                rounds.append(figures)
    put_out(found, rounds, terminal, plot)


def _state(layout: HomeLayout) -> LedgerState:
    """The ledger's, every statement verified.

    Raises:
        NotInitialised: there is no ledger.
        LedgerConflict: it breaks a rule.
    """
    if not layout.state.exists():
        raise NotInitialised(f"{layout.home} holds no coordinator's ledger.", "Name its home folder with --home.")
    with closing(Database(file_url(layout.state))) as database:
        envelopes = stored_envelopes(database)
    try:
        state = start(envelopes[0] if envelopes else b"").state
        for envelope in envelopes[1:]:
            state = admit(state, envelope).state
    except RefusalError as err:
        raise LedgerConflict(
            f"The ledger in {layout.home} breaks a rule: {err.message} ({err.code})",
            "Find out where: llmasos-coordinator verify.",
        ) from err
    return state


@contextmanager
def _measuring(
    run: RunRecord, blobs: FolderBlobStore, text: Path | None, threads: int
) -> Iterator[tuple[Measure, Path] | None]:
    """What measures models on that text, and the file that it reads them from."""
    if text is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="llmasos-contributions-") as folder:
        place = Path(folder)
        with Measurer(run.statement, blobs.path(run.statement.initial.tokenizer), text, place, threads) as measurer:
            yield measurer.mean_loss, place / "model.safetensors"
