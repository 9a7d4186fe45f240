"""A short campaign of faults at random instants; `make faults SEED=n KILLS=n` runs a long one."""

from __future__ import annotations

from pathlib import Path

from tests.faults.campaign import campaign
from tests.faults.schedule import Kind


def test_whatever_happens_every_run_ends_with_the_undisturbed_model(tmp_path: Path) -> None:
    outcome = campaign(tmp_path / "federation", seed=20, kills=14)
    assert outcome.lost == []
    assert outcome.wrong == []
    assert {kind: tally.injected for kind, tally in outcome.tallies.items() if not tally.injected} == {}
    assert set(outcome.tallies) == set(Kind)
    assert sum(tally.recovered for tally in outcome.tallies.values()) == outcome.injected >= 14
