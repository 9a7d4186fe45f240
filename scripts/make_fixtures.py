"""What a release leaves on disk, kept so that every later one is tested against it: python -m scripts.make_fixtures 0.1.0

    tests/contract/golden/releases/VERSION/
        coordinator.tar.xz      a coordinator's home after a run that ended and in the middle of another
        participant.tar.xz      an institution's home at the same moment
        evidence.llmasos        that ledger as an evidence bundle, with deltas
        snapshot.tar.xz         a worker's training state
        wire.json               every message on the wire, as hexadecimal digits
        about.json              fingerprint, keys, roots: what must be found in them

Run it once, when a version is tagged; what lies there is never made anew. 0.1.0.dev0 is from before the first tag. Keys in it
are nobody's.
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
import tempfile
from pathlib import Path

import torch

from common.ledger.state import LedgerState
from common.logs import configure
from common.terminal import exit_code_of
from coordinator.cli import app as coordinator
from llmasos.evaluation.perplexity import LossSums
from llmasos.training.snapshot import Record, SnapshotFolder, State
from tests.support.drafts import make_draft
from tests.support.federations import Federation

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "contract" / "golden" / "releases"
WIRE = FOLDER.parent / "wire-v1"
ENDED, GOING = "ended-000001", "going-000001"
PLAN = {
    "codec": {"type": "int8"},
    "downlink": {"type": "int8"},
    "server_optimizer": {"type": "adam"},
    "rule": {"type": "geometric-median"},
    "rounds": 2,
}
INSTITUTION = "clinic"
RECORD = Record(
    run=ENDED,
    round=2,
    seed=7,
    base="ab" * 32,
    step=3,
    steps=5,
    tokens=384,
    loss_sum_fixed=2**20,
    evaluation=LossSums(6_553_600, 100),
    device="cpu",
    threads=1,
    capability="AVX2",
    versions={"torch": torch.__version__},
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version")
    folder = FOLDER / parser.parse_args().version
    if folder.exists():
        print(f"error: {folder} exists; what a release left is never made anew", file=sys.stderr)
        return 2
    configure(format="text", level="ERROR")
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as temporary:
        about = federation(Path(temporary) / "federation", folder)
        snapshot(Path(temporary), folder)
    (folder / "wire.json").write_text(json.dumps(wire(), indent=2) + "\n")
    (folder / "about.json").write_text(json.dumps(about, indent=2) + "\n")
    return 0


def federation(work: Path, folder: Path) -> dict[str, object]:
    """Both homes and the bundle; what must be found in them."""
    with Federation(work) as running:
        running.start_participants()
        running.wait_until_ended(running.start_run(make_draft(work / "drafts" / ENDED, run=ENDED, **PLAN)))
        running.hold(INSTITUTION)
        running.start_run(make_draft(work / "drafts" / GOING, run=GOING, **PLAN))
        running.wait_for(_two_of_three, "two of three contributed")
        state = running.state()
        running.processes.stop(
            [*running.participants.values(), *([running.coordinator] if running.coordinator else [])]
        )
    home = str(running.coordinator_home)
    bundle = ["evidence", "export", str(folder / "evidence.llmasos"), "--with-deltas", "--home", home]
    if exit_code_of(coordinator, bundle) != 0:
        raise RuntimeError("the bundle was not exported")
    _pack(running.coordinator_home, folder / "coordinator.tar.xz")
    _pack(running.home(INSTITUTION), folder / "participant.tar.xz")
    return {
        "fingerprint": state.genesis_place.digest,
        "entries": state.size,
        "model": state.runs[ENDED].model.root,
        "institution": INSTITUTION,
        "contributed": [record.number for record in state.runs[ENDED].rounds if INSTITUTION in record.contributions],
    }


def wire() -> dict[str, str]:
    """The golden bytes of each message, which may go on to change where a field is added."""
    return {path.stem: path.read_text().strip() for path in sorted(WIRE.iterdir())}


def _two_of_three(state: LedgerState) -> bool:
    run = state.runs.get(GOING)
    return run is not None and bool(run.rounds) and len(run.rounds[0].contributions) == 2


def snapshot(work: Path, folder: Path) -> None:
    numbers = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    state = State({"w": numbers}, {"w.exp_avg": numbers / 2, "w.exp_avg_sq": numbers * 2, "w.step": torch.tensor(3.0)})
    SnapshotFolder(work / "snapshots").write(RECORD, state)
    _pack(work / "snapshots", folder / "snapshot.tar.xz")


def _pack(source: Path, archive: Path) -> None:
    with tarfile.open(archive, "w:xz") as tar:
        tar.add(source, arcname=source.name, filter=_regular)


def _regular(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Without locks, spare files and logs."""
    name = Path(member.name).name
    return None if name in {"lock", "logs", "addresses.json"} or name.startswith("spare") else member


if __name__ == "__main__":
    sys.exit(main())
