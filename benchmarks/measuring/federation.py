"""A real coordinator and real agents with workers that train nothing: what rounds take, and who used how much.

    with tempfile.TemporaryDirectory() as folder, Processes() as processes:
        found = measure_federation(Settings(bytes=100_000_000, participants=4, rounds=5), Layout(Path(folder)), processes)

A round's time is the coordinator's: from its opening to its close. Processor time and bytes written are differences between
the first training round's close and the last one's, a round: every round pays once for what comes between two closes.
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from synthetic_run import a_plan, prepare

from common.clock import parse_rfc3339
from common.errors import OperationError
from common.ledger.notes import parse_note
from common.plan.model import Plan
from llmasos.simulation.deployment import Deployment, InstitutionFolder, edit_line
from llmasos.simulation.layout import Layout
from llmasos.simulation.monitor import follow
from llmasos.simulation.processes import Processes
from llmasos.simulation.progress import LineProgress
from llmasos.simulation.watch import Round, RunView
from measuring.accounting import GIGABYTE, MEGABYTE, peak_mb
from measuring.profile import Profile
from measuring.sampling import Sampler, Used

CONSORTIUM = "benchmark"
NULL_WORKER = Path(__file__).resolve().parents[1] / "null_worker.py"
COMMENTED_COMMAND = r"# command: .*"
LEAST_ROUNDS = 2
"""The first round's close is where processor time begins to count."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How large, how many, how often."""

    bytes: int
    participants: int
    rounds: int
    keep_rounds: int | None = None
    """Of how many closed rounds the coordinator keeps the deltas; None: of all, the default of plans."""

    @property
    def names(self) -> list[str]:
        return [f"institution-{index}" for index in range(1, self.participants + 1)]

    @property
    def gigabytes_moved(self) -> float:
        """In a round: every participant takes the model and sends a delta of its size."""
        return 2 * self.participants * self.bytes / GIGABYTE


@dataclass(frozen=True, slots=True)
class Span:
    """A round's opening and close in the ledger, seconds since the epoch, to the millisecond."""

    opened: float
    closed: float

    @property
    def seconds(self) -> float:
        return self.closed - self.opened


@dataclass(frozen=True, slots=True)
class Federation:
    """What the real system took."""

    spans: list[Span]
    """Of each training round."""
    moved_bytes: list[int]
    """Of each training round, both ways, as the coordinator counts."""
    used: Used
    """A round's."""
    coordinator_peak_mb: float
    agent_peak_mb: float

    @property
    def round_seconds(self) -> list[float]:
        """Opening to close."""
        return [span.seconds for span in self.spans]

    @property
    def median_seconds(self) -> float:
        return statistics.median(self.round_seconds)

    @property
    def close_to_close_seconds(self) -> float:
        """A round's time with what lies between rounds, the mean."""
        return (self.spans[-1].closed - self.spans[0].closed) / (len(self.spans) - 1)


def trained(view: RunView) -> list[Round]:
    """Training rounds that were committed."""
    return [entry for entry in view.rounds if entry.task == "train" and entry.outcome == "committed"]


def real_agents(deployment: Deployment, settings: Settings, plan: Plan) -> None:
    """An agent for each name, with the null worker as its training process."""
    for name in settings.names:
        start_agent(deployment, name, plan)


def measure_federation(
    settings: Settings,
    layout: Layout,
    processes: Processes,
    profile: Profile | None = None,
    start: Callable[[Deployment, Settings, Plan], None] = real_agents,
) -> Federation:
    """Run all rounds; every process has ended when this returns.

    Args:
        start: starts whoever takes part, once the coordinator listens.

    Raises:
        OperationError: the run failed, or somebody died; what happened stands in the logs below `layout`.
    """
    if settings.rounds < LEAST_ROUNDS:
        raise ValueError(f"{settings.rounds} rounds, expected {LEAST_ROUNDS} or more")
    plan = a_plan(rounds=settings.rounds, participants=settings.participants, keep_rounds=settings.keep_rounds)
    prepare(layout.prepared, plan, total_bytes=settings.bytes)
    started = time.monotonic()
    progress = LineProgress(sys.stderr, lambda: time.monotonic() - started)
    with Deployment(layout, processes, consortium=CONSORTIUM) as deployment:
        progress.stage(
            f"starting a coordinator and {settings.participants} participants, {settings.bytes / MEGABYTE:g} MB"
        )
        deployment.start_coordinator()
        start(deployment, settings, plan)
        with Sampler(deployment) as sampler:
            if profile is not None:
                profile.start(sampler.roles)
            run = deployment.start_run(layout.prepared)
            view = followed_to_end(deployment, run, progress, settings)
        spans = round_spans(layout)[: settings.rounds]
        if profile is not None:
            profile.stop(spans[0].closed, spans[-1].closed)
        return federation(view, spans, sampler, peaks(deployment))


def followed_to_end(deployment: Deployment, run: str, progress: LineProgress, settings: Settings) -> RunView:
    """The last view of a run whose rounds were all committed."""
    followed = follow(deployment, run, progress, quorum=settings.participants)
    if not followed.succeeded or len(trained(followed.view)) != settings.rounds:
        raise OperationError(
            f"The run failed: {followed.view.end_reason}.", f"Look at {deployment.layout.root / 'logs'}."
        )
    return followed.view


def federation(view: RunView, spans: list[Span], sampler: Sampler, peaks_mb: tuple[float, float]) -> Federation:
    """What is left of the measurements, when everything is over."""
    first, last, between = spans[0].closed, spans[-1].closed, len(spans) - 1
    return Federation(
        spans,
        [entry.bytes_up + entry.bytes_down for entry in trained(view)],
        (sampler.at(last) - sampler.at(first)) * (1 / between),
        *peaks_mb,
    )


def cosigners(layout: Layout) -> int:
    """How many witnesses cosigned the checkpoints that the coordinator keeps, which show that openings were seen."""
    with read_state(layout) as database:
        notes = [parse_note(bytes(note)) for (note,) in database.execute("SELECT note FROM checkpoints")]
    return len({signature.name for note in notes for signature in note.signatures[1:]})  # the first is the log's


def read_state(layout: Layout) -> closing[sqlite3.Connection]:
    """The coordinator's database, beside it or after it; nothing is written."""
    return closing(sqlite3.connect(f"file:{layout.coordinator / 'state.sqlite'}?mode=ro", uri=True))


def round_spans(layout: Layout) -> list[Span]:
    """Of every closed round, in order, from the coordinator's database."""
    query = 'SELECT appended_at FROM ledger WHERE kind = ? ORDER BY "index"'
    with closing(sqlite3.connect(f"file:{layout.coordinator / 'state.sqlite'}?mode=ro", uri=True)) as database:
        times = [
            [parse_rfc3339(at).timestamp() for (at,) in database.execute(query, (kind,))]
            for kind in ("round-opened", "round-closed")
        ]
    return [Span(opened, closed) for opened, closed in zip(*times, strict=True)]


def peaks(deployment: Deployment) -> tuple[float, float]:
    """Highest memory of the coordinator and of the largest agent, megabytes."""
    if deployment.coordinator is None:
        raise OperationError("The coordinator does not run.")
    return peak_mb(deployment.coordinator.pid), max(peak_mb(agent.pid) for agent in deployment.participants.values())


def start_agent(deployment: Deployment, name: str, plan: Plan) -> None:
    """An agent with the null worker as its training process."""
    text = deployment.layout.data / name
    text.mkdir(parents=True)
    (text / "text.txt").write_text("nothing is read\n")
    deployment.join(InstitutionFolder(name, text), threads=1)
    deployment.accept_runs(name, plan)
    command = json.dumps([sys.executable, str(NULL_WORKER)])
    edit_line(deployment.layout.participant(name) / "participant.yaml", COMMENTED_COMMAND, f"command: {command}")
    deployment.start_participant(name)


def expect_room(folder: Path, settings: Settings) -> None:
    """
    Raises:
        OperationError: the disk will hardly do.
    """
    # The prepared model and the coordinator's copy; bases and deltas here and there; new model and new bases beside the old.
    needed = settings.bytes * (3 + 4 * settings.participants)
    needed += settings.bytes * settings.participants * min(settings.rounds, settings.keep_rounds or settings.rounds)
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if free < needed:
        raise OperationError(
            f"{folder} has {free / GIGABYTE:.1f} GB free; {settings.rounds} rounds of {settings.participants} participants "
            f"with {settings.bytes / MEGABYTE:g} MB may need {needed / GIGABYTE:.1f}.",
            "Name a --folder with more room, or fewer --rounds, --keep-rounds or --participants.",
        )
