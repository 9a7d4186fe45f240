"""What tests import of benchmarks/, whose scripts find their modules beside themselves and are no package."""

from __future__ import annotations

import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

sys.path.insert(0, str(BENCHMARKS))
try:
    import convergence
    import growth
    import scale
    import training
    from measuring import accounting, cgroups, in_process, machine, output, profile
finally:
    sys.path.remove(str(BENCHMARKS))

__all__ = [
    "BENCHMARKS",
    "accounting",
    "cgroups",
    "convergence",
    "growth",
    "in_process",
    "machine",
    "output",
    "profile",
    "scale",
    "training",
]
