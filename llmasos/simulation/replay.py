"""The rounds of a finished simulation, to be played again with the same seeds: `simulate --engine flower --seeds-from OUT`.

In a consortium a round's seed follows from the plan statement's digest, and the cohort from institutions' nonces as well: from
keys, so that nobody can choose them. Another engine has no keys. What it needs stands in the ledger, and is taken from there,
every statement verified.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from common.errors import OperationError, UsageError
from common.evidence.read import read_bundle
from common.ledger.state import RoundRecord, RunRecord
from common.verify.history import replay
from common.verify.report import Outcome
from llmasos.flower.job import Turn
from llmasos.simulation.deployment import Commands
from llmasos.simulation.layout import MARKER, Layout
from llmasos.simulation.processes import Processes

_FIX = "Name the --out folder of a finished `llmasos simulate` or `llmasos demo`."


def finished_run(folder: Path, commands: Commands) -> RunRecord:
    """The run of a simulation's folder, by its coordinator's ledger.

    Raises:
        UsageError: the folder holds no simulation of processes, or its run has not ended.
        OperationError: its ledger does not follow.
    """
    layout = Layout(folder.resolve())
    if not (layout.root / MARKER).exists() or not layout.coordinator.is_dir():
        raise UsageError(f"--seeds-from {folder}: no simulation with processes was there.", _FIX)
    with TemporaryDirectory(prefix="llmasos-replay-") as temporary, Processes() as processes:
        bundle_file, log = Path(temporary) / "run.evidence", Path(temporary) / "export.log"
        argv = (*commands.coordinator, "evidence", "export", str(bundle_file), "--home", str(layout.coordinator))
        processes.run("llmasos-coordinator evidence export", argv, log=log)
        with read_bundle(bundle_file) as bundle:
            history = replay(bundle.envelopes, lambda index: None)
    if history.state is None or history.check.outcome is not Outcome.VERIFIED:
        found = "; ".join(finding.text for finding in history.check.findings)
        raise OperationError(f"The ledger in {layout.coordinator} does not follow: {found}", _FIX)
    ended = [run for run in history.state.runs.values() if run.ended is not None]
    if len(ended) != 1:
        raise UsageError(f"--seeds-from {folder}: expected one finished run, got {len(ended)}.", _FIX)
    return ended[0]


def turns_of(run: RunRecord) -> tuple[Turn, ...]:
    """Its rounds. Who was invited and sent nothing does not train: nobody knows how far it came."""
    return tuple(_turn(record) for record in run.rounds if record.contributions)


def check_same_institutions(turns: Sequence[Turn], names: Sequence[str]) -> None:
    """
    Raises:
        UsageError: the run had other institutions.
    """
    wanted = sorted({name for turn in turns for name in turn.cohort})
    if sorted(names) != wanted:
        raise UsageError(
            f"--seeds-from: that run's institutions are {', '.join(wanted)}, got {', '.join(sorted(names))}.",
            "Name the same ones with --institution.",
        )


def _turn(record: RoundRecord) -> Turn:
    opened, closed = record.opened, record.closed
    used = [entry.institution for entry in (closed.inputs if closed is not None else ()) if entry.status == "used"]
    cohort = tuple(sorted(record.contributions))
    return Turn(number=record.number, task=opened.task, seed=opened.seed, cohort=cohort, used=tuple(sorted(used)))
