"""What `simulate --engine flower` checks before it begins, what it tells, and its table for many institutions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import MissingExtra, UsageError
from llmasos import extras
from llmasos.flower.job import Turn
from llmasos.simulation.app import SimulationOptions, check_options
from llmasos.simulation.deployment import InstitutionFolder
from llmasos.simulation.partition import Partition, SharedText
from llmasos.simulation.progress import changes
from llmasos.simulation.replay import check_same_institutions, finished_run
from llmasos.simulation.virtual import Tenths, begin
from llmasos.simulation.watch import Round, RunView
from tests.support.fake_daemons import FAKES

NORTH = InstitutionFolder("north", Path("/nowhere/north"))
OPTIONS = SimulationOptions((NORTH,), Path("/nowhere/out"), engine="flower", commands=FAKES)


def view(done: int, of: int, outcome: str = "open") -> RunView:
    names = tuple(f"v{number:04d}" for number in range(of))
    one = Round(round=1, task="train", outcome=outcome, cohort=names, contributors=names[:done])
    return RunView(run="r", plan_name="p", phase="running", round=1, rounds_planned=2, rounds=(one,))


def test_without_the_extra_it_says_which_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda package: None)
    with pytest.raises(MissingExtra, match="To simulate on the Flower engine, flwr and ray must be installed"):
        begin(OPTIONS)


def test_the_process_engine_needs_no_extra_and_takes_no_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda package: None)
    processes = replace(OPTIONS, engine="processes")
    assert begin(processes) is None
    with pytest.raises(UsageError, match=r"--seeds-from \(seeds_from\) is for engine flower"):
        begin(replace(processes, seeds_from=Path("out")))


def test_institutions_and_a_partition_are_not_both_taken() -> None:
    shared = SharedText(Path("/nowhere/text"), Partition("iid", 3))
    with pytest.raises(UsageError, match="Expected institutions, or data with a partition, got both"):
        check_options(replace(OPTIONS, shared=shared))
    check_options(replace(OPTIONS, institutions=(), shared=shared))
    with pytest.raises(UsageError, match="lie in each other"):
        check_options(replace(OPTIONS, institutions=(), shared=shared, out=Path("/nowhere")))


def test_seeds_come_from_a_simulation_with_the_same_institutions(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no simulation with processes was there"):
        finished_run(tmp_path, FAKES)
    turn = Turn(number=1, task="train", seed=1, cohort=("east", "north"), used=("east",))
    check_same_institutions((turn,), ("north", "east"))
    with pytest.raises(UsageError, match="institutions are east, north, got north"):
        check_same_institutions((turn,), ("north",))


def test_of_a_large_cohort_each_tenth_is_told_once_and_of_a_small_one_nothing() -> None:
    told: list[str] = []
    tell = Tenths(told.append)
    for done in (0, 3, 100, 120, 190, 250, 1000):
        tell(view(done, 1000))
    tell(view(1000, 1000, "committed"))
    assert [line.split(": ")[1].split(" of")[0] for line in told] == ["100", "250", "1,000"]
    told.clear()
    Tenths(told.append)(view(3, 4))
    assert told == []


def test_a_round_of_many_is_opened_to_a_number_not_to_a_thousand_names() -> None:
    assert "round 1 opened to 1,000 institutions: train" in list(changes(None, view(0, 1000)))
    assert "round 1 opened to v0000, v0001: train" in list(changes(None, view(0, 2)))
