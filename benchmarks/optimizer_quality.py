"""What a server optimizer makes of the same training: perplexity after so many rounds.

    python benchmarks/optimizer_quality.py                                       # all, with their defaults
    python benchmarks/optimizer_quality.py --optimizers sgd adam:learning_rate=0.003 --rounds 12 --seeds 1 2

The federation of benchmarks/codec_quality.py: the tiny plan, three institutions with sources of the standard library, a
worker's round and the coordinator's reducer in one process. A small model and few rounds say little about a long run of a
large one: what they show is which learning rates are out of the question.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from codec_quality import NAMES, PLAN, train

from common.plan.load import load_plan
from common.plan.model import Plan
from common.reduce.registry import SERVER_OPTIMIZERS
from common.resources import config_path
from llmasos.simulation.stdlib_corpus import copy_institution


def section(text: str) -> dict[str, str]:
    """A plan's, of `adam:learning_rate=0.003,beta1=0.8`."""
    name, _, fields = text.partition(":")
    return {"type": name} | dict(field.split("=", 1) for field in fields.split(",") if field)


def measure(optimizers: Sequence[str], seeds: Sequence[int], rounds: int, folder: Path) -> dict[str, list[float]]:
    """Perplexities by optimizer, one a seed."""
    texts = folder / "texts"
    for name in NAMES:
        copy_institution(name, texts / name)
    plan = load_plan(config_path(PLAN)).model_dump(mode="json")
    found: dict[str, list[float]] = {}
    for position, optimizer in enumerate(optimizers):
        for seed in seeds:
            changed: dict[str, Any] = {"rounds": rounds, "seed": seed, "server_optimizer": section(optimizer)}
            run = folder / f"{position}-{seed}"
            trained = train(Plan.model_validate(plan | changed), "float32", run, texts, feedback=True)
            found.setdefault(optimizer, []).append(trained.perplexity)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--optimizers", nargs="+", default=list(SERVER_OPTIMIZERS), metavar="TYPE[:FIELD=VALUE,…]")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", action="store_true", help="JSON to standard output")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llmasos-optimizers-") as folder:
        found = measure(given.optimizers, given.seeds, given.rounds, Path(folder))
    if given.json:
        print(json.dumps({"rounds": given.rounds, "seeds": given.seeds, "perplexity": found}, indent=2))
        return
    print(f"{given.rounds} rounds, {len(NAMES)} institutions, {len(given.seeds)} seeds: mean perplexity")
    for optimizer, values in sorted(found.items(), key=lambda each: statistics.fmean(each[1])):
        print(f"{statistics.fmean(values):>9.2f}  {optimizer}")


if __name__ == "__main__":
    main()
