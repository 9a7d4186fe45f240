"""`lineage show` and `lineage accept`: an institution's own word on a coordinator that gave up a part of its ledger."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.errors import NewLineage
from common.terminal import exit_code_of
from common.wire.messages import Presented
from coordinator.cli import app as coordinator_app
from participant.memory.journal import Journal
from participant.memory.mirror import Mirror
from tests.support.coordinators import Coordinator
from tests.support.participant_homes import ParticipantHome
from tests.unit.coordinator.recovery.test_recovering import Scene


def test_what_somebody_brought_is_not_given_up(
    coordinator: Coordinator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = Scene(coordinator, tmp_path)
    scene.restore()
    scene.keepers["north"].hand_back()  # the coordinator learns of the checkpoint; north alone is no majority
    coordinator.close()
    words = ["recover", "--new-lineage", "--home", str(coordinator.layout.home)]
    assert exit_code_of(coordinator_app, words) == 2, "north has brought all that there was: nothing is to be given up"
    assert "no checkpoint beyond them was presented" in capsys.readouterr().err
    coordinator._open()
    scene.close()


def test_show_and_accept(coordinator: Coordinator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home, scene = ParticipantHome(tmp_path / "north-home", coordinator), Scene(coordinator, tmp_path)
    home.follow()
    assert home.run("lineage", "show") == 0
    assert "No new lineage was shown" in capsys.readouterr().out
    scene.restore()
    session = scene.keepers["south"].session
    session.present(Presented(scene.keepers["south"].witnessing.newest_note))
    coordinator.close()
    words = ["recover", "--new-lineage", "--home", str(coordinator.layout.home)]
    assert exit_code_of(coordinator_app, words) == 0
    assert f"Entry {scene.then:,} begins a new lineage." in capsys.readouterr().out
    coordinator._open()

    with pytest.raises(NewLineage):
        raise_from(home, coordinator, scene.then)
    assert home.run("lineage", "show", "--format", "json") == 4
    (found,) = json.loads(capsys.readouterr().out)["lineages"]
    held = scene.size - scene.then
    assert (found["begins_at"], found["given_up_size"], found["entries_here"]) == (scene.then, scene.size, scene.size)
    assert home.run("lineage", "show") == 4
    assert f"This institution holds {held:,} of them." in capsys.readouterr().out
    assert home.run("lineage", "accept", "ffff", "--yes") == 2
    snapshots = home.layout.jobs / "tiny" / "snapshots"
    snapshots.mkdir(parents=True)
    capsys.readouterr()
    assert home.run("lineage", "accept", found["digest"][:16], "--yes") == 0
    assert f"{held:,} entries that it saw are given up, and kept." in capsys.readouterr().out
    assert not snapshots.exists(), "moments of rounds that were given up are nobody's"
    assert home.run("lineage", "show") == 0
    home.follow()
    journal = Journal(home.layout.journal)
    assert journal.ledger() == coordinator.envelopes()
    journal.close()
    scene.close()


def raise_from(home: ParticipantHome, coordinator: Coordinator, begins: int) -> None:
    """What the follower does once the coordinator has named the statement."""
    journal = Journal(home.layout.journal)
    try:
        raise Mirror(journal, coordinator.genesis).judge_lineage(begins, coordinator.envelopes()[begins])
    finally:
        journal.close()
