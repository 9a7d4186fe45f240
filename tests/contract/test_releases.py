"""What earlier releases left on disk opens, verifies and goes on; scripts/make_fixtures.py makes it once a version."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.unknown_fields import UnknownFieldSet

from common.identity.invitation import open_genesis
from common.terminal import exit_code_of
from coordinator.cli import app as coordinator
from llmasos.cli import app as llmasos
from llmasos.training.snapshot import SnapshotFolder
from participant.cli import app as participant
from participant.config import HomeLayout
from participant.memory.journal import Journal
from participant.memory.mirror import Mirror
from participant.memory.orders import Orders
from participant.memory.records import Records
from scripts.make_fixtures import RECORD
from tests.contract.test_wire_golden import KINDS

GOLDEN = Path(__file__).parent / "golden" / "releases"
RELEASES = sorted(path.name for path in GOLDEN.iterdir())


class Release:
    """One version's leavings, unpacked."""

    def __init__(self, version: str, folder: Path) -> None:
        self.source, self.folder = GOLDEN / version, folder
        self.about: dict[str, Any] = json.loads((self.source / "about.json").read_bytes())

    def unpacked(self, name: str) -> Path:
        """The one folder in an archive."""
        with tarfile.open(self.source / f"{name}.tar.xz") as tar:
            kept = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python before 3.11.4 has none
            tar.extractall(self.folder / name, **kept)  # type: ignore[arg-type]
        (found,) = (self.folder / name).iterdir()
        return found


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest, tmp_path: Path) -> Release:
    return Release(str(request.param), tmp_path)


def test_there_is_a_release() -> None:
    assert RELEASES


def recomputed(capsys: pytest.CaptureFixture[str]) -> None:
    """The ended run's two rounds are equal in every bit, and nothing is wrong."""
    report = json.loads(capsys.readouterr().out)
    outcomes = {check["question"]: check["outcome"] for check in report["checks"]}
    assert outcomes["Does each round of ended-000001 follow from its sealed contributions?"] == "verified"
    assert outcomes["Does the final model of ended-000001 descend from these rounds?"] == "verified"
    assert "failed" not in outcomes.values()


def test_a_coordinators_home_verifies_every_round_recomputed(
    release: Release, capsys: pytest.CaptureFixture[str]
) -> None:
    home = release.unpacked("coordinator")
    assert exit_code_of(coordinator, ["verify", "ended", "--home", str(home), "--format", "json"]) == 0
    recomputed(capsys)


def test_an_evidence_bundle_verifies(release: Release, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["verify", str(release.source / "evidence.llmasos"), "--fingerprint", release.about["fingerprint"]]
    assert exit_code_of(llmasos, [*words, "--format", "json"]) == 4  # a run goes on, and nobody names keys
    recomputed(capsys)


def test_a_participants_memory_opens_and_holds_the_ledger(release: Release, capsys: pytest.CaptureFixture[str]) -> None:
    home = release.unpacked("participant")
    layout = HomeLayout(home)
    journal, orders, records = Journal(layout.journal), Orders(layout.journal), Records(layout.journal)
    mirror = Mirror(journal, layout.genesis.read_bytes())
    assert mirror.state.size >= release.about["entries"] - 3  # those that came while it was stopped
    assert mirror.state.genesis_place.digest == release.about["fingerprint"]
    assert open_genesis(layout.genesis.read_bytes())[0].digest == release.about["fingerprint"]
    for part in (journal, orders, records):
        part.close()
    assert exit_code_of(participant, ["verify", "--home", str(home)]) in {0, 4}, capsys.readouterr()


def test_a_snapshot_loads(release: Release) -> None:
    found = SnapshotFolder(release.unpacked("snapshot")).newest_of(RECORD)
    assert found is not None
    state = found.load()
    assert found.record.step == 3
    assert state.weights["w"].tolist()[2] == [8.0, 9.0, 10.0, 11.0]
    assert state.moments["w.exp_avg"].tolist()[2] == [4.0, 4.5, 5.0, 5.5]


@pytest.mark.parametrize("version", [name for name in RELEASES if (GOLDEN / name / "wire.json").exists()])
def test_what_a_release_sent_is_read_in_full(version: str) -> None:
    """No field was taken out, given another number or another type: nothing is unknown, nothing is lost."""
    for name, digits in json.loads((GOLDEN / version / "wire.json").read_bytes()).items():
        sent = bytes.fromhex(digits)
        message = KINDS[name].FromString(sent)
        assert not len(UnknownFieldSet(message)), name
        assert message.SerializeToString(deterministic=True) == sent, name
