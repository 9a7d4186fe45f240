"""python -m tests.faults --seed 1 --kills 200

Prints a table of faults, injected and recovered, and what was lost or came out wrong; exits with 1 where anything was.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.campaign import Outcome, campaign


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=200, help="faults to inject, kills and others [200]")
    parser.add_argument("--folder", type=Path, help="keep homes and logs there; default: a temporary folder")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="llmasos-faults-") as temporary:
        folder = options.folder or Path(temporary) / "federation"
        outcome = campaign(
            folder, seed=options.seed, kills=options.kills, tell=lambda line: print(line, file=sys.stderr)
        )
    print(table(outcome, options.seed, time.monotonic() - started))
    return 0 if outcome.clean else 1


def table(outcome: Outcome, seed: int, seconds: float) -> str:
    rows = [f"{'fault':<28}{'injected':>9}{'recovered':>10}"]
    rows += [f"{kind:<28}{tally.injected:>9}{tally.recovered:>10}" for kind, tally in outcome.tallies.items()]
    total = sum(tally.recovered for tally in outcome.tallies.values())
    rows.append(f"{'together':<28}{outcome.injected:>9}{total:>10}")
    rows.append(
        f"seed {seed}: {outcome.runs} runs in {seconds:.0f} s; lost {len(outcome.lost)}, wrong {len(outcome.wrong)}"
    )
    return "\n".join([*rows, *outcome.lost, *outcome.wrong])


if __name__ == "__main__":
    sys.exit(main())
