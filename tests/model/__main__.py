"""python -m tests.model

Checks round.pml at its larger size, prints a table, and ends with 1 where a promise is broken or a mistake is not found.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.model.checking import LACKING, LARGE, MISTAKES, Question, Verdict, check


def main() -> int:
    if LACKING:
        print(f"error: {LACKING}", file=sys.stderr)
        return 1
    print(f"{'checked':<34}{'states':>12}{'seconds':>9}  found")
    good = [_row(name, question, broken=False) for name, question in LARGE.items()]
    good += [_row(f"mistake {name}", question, broken=True) for name, question in MISTAKES.items()]
    return 0 if all(good) else 1


def _row(name: str, question: Question, *, broken: bool) -> bool:
    with tempfile.TemporaryDirectory(prefix="llmasos-spin-") as folder:
        verdict: Verdict = check(question, Path(folder))
    print(f"{name:<34}{verdict.states:>12,}{verdict.seconds:>9.1f}  {verdict.broken or 'nothing broken'}", flush=True)
    return bool(verdict.broken) == broken


if __name__ == "__main__":
    sys.exit(main())
