"""A long run with faults now and then: memory, descriptors, threads and disk stay flat, or the soak fails.

    python -m tests.faults.soak --rounds 500 --participants 8 --seed 1 --plot soak.svg

Flat: the median of a run's last quarter is at most GROWTH times that of its second quarter, or above it by less than SLACK.
The ledger and what belongs to it grow with each round by their nature: they are shown, and left out of `disk`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tests.faults.campaign import Outcome, judge_journals
from tests.faults.disturbed import DisturbedFederation
from tests.faults.schedule import Fault, faults
from tests.support.benchmark_modules import output
from tests.support.drafts import make_draft
from tests.support.federations import NAMES

SAMPLE_SECONDS = 0.5
QUIET_SECONDS = 6.0
"""Between two faults: most rounds are undisturbed."""
GROWTH = 1.15
SLACK = {"memory MB": 8.0, "descriptors": 6.0, "threads": 4.0, "disk MB": 4.0}
"""So much more says nothing: a process that was started again begins anew."""
STALL_SECONDS = 180.0
MORE_NAMES = ("archive", "hospice", "institute", "ministry", "office")
MEGABYTE = 1e6


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment: how many rounds were closed, and what is looked at, by name."""

    rounds: int
    values: dict[str, float]


class Watch:
    """Samples on a thread while its `with` block lasts."""

    def __init__(self, federation: DisturbedFederation, run: str) -> None:
        self._federation, self._run = federation, run
        self.samples: list[Sample] = []
        self.rounds = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="soak", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            values = {**self._of("coordinator", self._coordinator()), **self._of("agents", self._agents())}
            values["coordinator disk MB"] = _disk(self._federation.coordinator_home / "blobs")
            values["agents disk MB"] = sum(
                _disk(self._federation.home(name) / "blobs") for name in self._federation.names
            )
            values["ledger MB"] = _size(self._federation.coordinator_home / "state.sqlite")
            self.samples.append(Sample(self.rounds, values))

    def _coordinator(self) -> list[int]:
        child = self._federation.coordinator
        return [child.pid] if child is not None else []

    def _agents(self) -> list[int]:
        return [child.pid for child in list(self._federation.participants.values())]

    @staticmethod
    def _of(role: str, pids: Sequence[int]) -> dict[str, float]:
        """The highest of a role's processes; nothing while one of them is not there."""
        found = []
        for pid in pids:
            with suppress(psutil.Error):
                process = psutil.Process(pid)
                found.append((process.memory_info().rss / MEGABYTE, process.num_fds(), process.num_threads()))
        if len(found) < len(pids) or not found:
            return {}
        names = (f"{role} memory MB", f"{role} descriptors", f"{role} threads")
        return dict(zip(names, (float(max(column)) for column in zip(*found, strict=True)), strict=True))


def soak(folder: Path, *, rounds: int, names: Sequence[str], seed: int) -> tuple[Outcome, list[Sample]]:
    """One run with faults until it ends.

    Raises:
        AssertionError: no round was closed for STALL_SECONDS, or a daemon ended by itself.
    """
    outcome = Outcome()
    with DisturbedFederation(folder, names) as federation:
        federation.start_participants()
        draft = make_draft(
            folder / "draft", run="soak-000001", rounds=rounds, retention={"delta_rounds": 2}, deadline_seconds=3600
        )
        run = federation.start_run(draft)
        with Watch(federation, run) as watch:
            for fault in _paced(faults(seed, names), federation, run, watch):
                federation.suffer(fault)
                outcome.tallies[fault.kind].injected += 1
            record = federation.wait_until_ended(run)
        outcome.runs = len(record.rounds)
        outcome.lost += [
            f"round {entry.number}: missing {', '.join(entry.missing)}" for entry in record.rounds if entry.missing
        ]
        judge_journals(outcome, federation)
    return outcome, watch.samples


def _paced(drawn: Iterator[Fault], federation: DisturbedFederation, run: str, watch: Watch) -> Iterator[Fault]:
    """A fault now and then while the run goes on."""
    moved = time.monotonic()
    while True:
        record = federation.run(run)
        closed = sum(entry.closed is not None for entry in record.rounds) if record is not None else 0
        if record is not None and record.ended is not None:
            return
        if closed > watch.rounds:
            watch.rounds, moved = closed, time.monotonic()
        assert time.monotonic() - moved < STALL_SECONDS, f"no round closed for {STALL_SECONDS:g} s after round {closed}"
        time.sleep(QUIET_SECONDS)
        yield next(drawn)


def growths(samples: Sequence[Sample]) -> dict[str, tuple[float, float, bool]]:
    """By what is looked at: the medians of the second and of the last quarter, and whether it is flat."""
    rounds = max((sample.rounds for sample in samples), default=0)
    found = {}
    for name in samples[-1].values if samples else ():
        early = [s.values[name] for s in samples if rounds / 4 <= s.rounds < rounds / 2 and name in s.values]
        late = [s.values[name] for s in samples if s.rounds >= 3 * rounds / 4 and name in s.values]
        if early and late:
            before, after = statistics.median(early), statistics.median(late)
            slack = next((most for ending, most in SLACK.items() if name.endswith(ending)), None)
            flat = slack is None or after <= max(before * GROWTH, before + slack)
            found[name] = (before, after, flat)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--participants", type=int, default=8, choices=range(3, 9))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plot", type=Path, help="an SVG of all that is looked at, over rounds")
    options = parser.parse_args()
    names = sorted((NAMES + MORE_NAMES)[: options.participants])
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="llmasos-soak-") as temporary:
        outcome, samples = soak(Path(temporary) / "federation", rounds=options.rounds, names=names, seed=options.seed)
    found = growths(samples)
    print(f"{'':<28}{'2nd quarter':>12}{'4th quarter':>12}")
    for name, (before, after, flat) in found.items():
        print(f"{name:<28}{before:>12.1f}{after:>12.1f}{'' if flat else '   GROWS'}")
    print(
        f"seed {options.seed}: {outcome.runs} rounds, {len(names)} participants, {outcome.injected} faults, "
        f"{time.monotonic() - started:.0f} s; lost {len(outcome.lost)}, wrong {len(outcome.wrong)}"
    )
    print(*outcome.lost, *outcome.wrong, sep="\n", end="")
    if options.plot is not None:
        options.plot.write_text(plot(samples))
    return 0 if outcome.clean and all(flat for _, _, flat in found.values()) else 1


def plot(samples: Sequence[Sample]) -> str:
    """Each value beside its own highest, over rounds: flat lines stay where they are."""
    names = sorted({name for sample in samples for name in sample.values})
    highest = {name: max(s.values.get(name, 0.0) for s in samples) or 1.0 for name in names}
    lines = {
        name: [(float(s.rounds), s.values[name] / highest[name]) for s in samples if s.values.get(name)]
        for name in names
    }
    return output.lines_plot(lines, title="A long run with faults", x="rounds closed", y="share of its highest")


def _disk(folder: Path) -> float:
    total = 0
    for path in folder.rglob("*"):
        total += _bytes(path)
    return total / MEGABYTE


def _size(path: Path) -> float:
    return _bytes(path) / MEGABYTE


def _bytes(path: Path) -> int:
    """0 of what is gone by now."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
