"""A coordinator whose disk is full for a while; run as root by tests/e2e/test_full_disk.py, in a mount namespace of its own.

    unshare --mount --propagation private python -m tests.support.full_disk FOLDER

Its home is a small tmpfs, which goes away with the namespace however this ends. Two runs of one federation, the first one with
a ballast file that leaves no room for the deltas until every institution was refused. Prints what happened as JSON.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from common.ledger.state import RunRecord
from common.terminal import exit_code_of
from coordinator.cli import app as operators_app
from tests.support.drafts import make_draft
from tests.support.federations import Federation, until

SHAPES = {"embedding": (1_500_000,), "bias": (33,)}
"""A delta has two chunks."""
DELTA_BYTES = 4 * sum(size for (size,) in SHAPES.values())
DISK_MIB = 512
ROOM_BYTES = DELTA_BYTES // 4
FULL_SECONDS = 6.0
"""How long the disk stays full after everybody was refused: longer than a few tries."""


def main(folder: Path) -> None:
    home = folder / "coordinator"
    home.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=700", "tmpfs", str(home)], check=True)
    with Federation(folder) as federation:
        for name in federation.names:
            federation.hold(name)
        federation.start_participants()
        run = start(federation, "full-disk-01")
        for name in federation.names:
            federation.wait_until_holding(name, run)
        ballast = home / "ballast"
        fill(ballast)
        federation.release(*federation.names)
        until(lambda: all(refused(federation, name) for name in federation.names), "everybody was refused", 40)
        time.sleep(FULL_SECONDS)
        in_the_round = len(federation.state().runs[run].rounds[0].contributions)
        ballast.unlink()
        ended = federation.wait_until_ended(run)
        undisturbed = federation.wait_until_ended(start(federation, "undisturbed-01"))
        verified = exit_code_of(operators_app, ["verify", run, "--home", str(home), "--format", "quiet"])
    print(
        json.dumps(
            {
                "contributions while full": in_the_round,
                "same model": ended.model == undisturbed.model,
                "rounds": told(ended),
                "undisturbed": told(undisturbed),
                "verified": verified,
            }
        )
    )


def start(federation: Federation, run: str) -> str:
    return federation.start_run(make_draft(federation.folder / "drafts" / run, run=run, rounds=2, shapes=SHAPES))


def fill(ballast: Path) -> None:
    """Leave ROOM_BYTES."""
    with ballast.open("wb") as file:
        left = shutil.disk_usage(ballast.parent).free - ROOM_BYTES
        for _ in range(left // 2**20):
            file.write(bytes(2**20))


def refused(federation: Federation, name: str) -> bool:
    return "storage-failure" in federation.log(name).read_text()


def told(run: RunRecord) -> list[list[object]]:
    return [[each.closed.outcome, sorted(each.contributions)] for each in run.rounds if each.closed is not None]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
