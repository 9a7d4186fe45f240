"""How fast each aggregation rule makes a model of deltas, beside the weighted mean of the same deltas, in one run.

    python benchmarks/rules.py                               # a table: 4, 16 and 64 deltas
    python benchmarks/rules.py --mb 16 --deltas 8,64 --json -

Everything is read from a store in the page cache and hashed again, as the coordinator does; the model goes nowhere. Seconds are
elapsed, of the fastest repetition. `speed` is the mean's time by the rule's. `passes` counts how often the rule goes over each
number of a delta with one operation of numpy, reading and hashing apart; the mean does so 3 times. Rules by norms or distances
also read and hash every delta twice. A rule below half of the mean's speed owes that to these.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from folding import Case, Settings, fastest, timed
from measuring import machine, output

from common.blobs.store import FolderBlobStore
from common.errors import LLMasOSError
from common.reduce.registry import RULES
from common.reduce.sorting import needed, network

LEAST_SPEED = 0.5
MEAN_PASSES = 3.0
FIELDS: dict[str, dict[str, Any]] = {"norm-clipping": {"max_l2": "1"}}
"""What a rule's section must say."""


def byzantine(rule: str, deltas: int) -> int:
    """The most that so many deltas withstand by this rule, at most a quarter."""
    return max(0, min(deltas // 4, (deltas - 3) // (4 if rule == "bulyan" else 2)))


def passes(rule: str, deltas: int) -> float:
    """Operations over each number of each delta, of two that work on half of them one."""
    f = byzantine(rule, deltas)
    compare = 4 * (deltas - 1) / 2  # a pair's: convert, subtract, square, fold
    if rule in ("median", "trimmed-mean", "bulyan"):
        rows = deltas - 2 * f if rule == "bulyan" else deltas
        middle = {"median": range((rows - 1) // 2, rows // 2 + 1), "trimmed-mean": range(f, rows - f)}
        wanted = middle.get(rule, range(rows))
        compared = sum(smaller + larger for _, _, smaller, larger in needed(list(network(rows)), wanted))
        # copy, four to turn bits into keys, compare; of what is asked for five to turn back, convert and add
        each = 5 + compared / rows + 7 * len(wanted) / rows
        # bulyan: five to find where the kept ones begin, and two masks, for each that is dropped
        return each if rule != "bulyan" else 1 + compare + each * rows / deltas + 7 * 2 * f / deltas
    if rule in ("norm-clipping", "norm-bounding"):
        return MEAN_PASSES + 3  # convert, square, fold
    if rule == "weighted-mean":
        return MEAN_PASSES
    used = {"krum": 1, "multi-krum": deltas - f - 2}.get(rule, deltas)
    return 1 + compare + MEAN_PASSES * used / deltas


def measure(mb: int, deltas: int, repeats: int, folder: Path) -> dict[str, Any]:
    """Every rule over the same deltas, one repetition of each after the other."""
    store = FolderBlobStore(folder / str(deltas))
    case = Case("float32", Settings(mb, deltas, repeats), store)
    rules = [rule for rule in RULES if not (rule == "bulyan" and deltas < 3) and not ("krum" in rule and deltas < 3)]
    times: dict[str, list[Any]] = {rule: [] for rule in rules}
    for _ in range(repeats):
        for rule in rules:
            f = {} if rule in ("weighted-mean", "norm-clipping") else {"byzantine": byzantine(rule, deltas)}
            case.choose({"type": rule} | f | FIELDS.get(rule, {}))
            times[rule].append(timed(lambda: case.fold(hashed=True)))
    store.close()
    seconds = {rule: fastest(each).elapsed for rule, each in times.items()}
    return {
        rule: {
            "seconds": round(seconds[rule], 3),
            "speed": round(seconds["weighted-mean"] / seconds[rule], 3),
            "passes": round(passes(rule, deltas), 1),
        }
        for rule in rules
    }


def table(found: dict[str, Any]) -> str:
    header = [f"{found['mb']} MB each", *(f"{deltas} deltas\nseconds, speed, passes" for deltas in found["rules"])]
    rows = [
        [rule]
        + [
            f"{each[rule]['seconds']:.2f}  {each[rule]['speed']:.2f}  {each[rule]['passes']:.0f}"
            if rule in each
            else "-"
            for each in found["rules"].values()
        ]
        for rule in RULES
    ]
    slow = sorted(
        {rule for each in found["rules"].values() for rule, row in each.items() if row["speed"] < LEAST_SPEED}
    )
    return (
        output.columns(header, rows)
        + f"\n\nbelow {LEAST_SPEED} of the mean's speed: {', '.join(slow) or 'none'}; load {found['machine']['load'][0]}"
    )


def plot(found: dict[str, Any]) -> str:
    """Speeds by deltas."""
    lines = {
        rule: [(float(deltas), each[rule]["speed"]) for deltas, each in found["rules"].items() if rule in each]
        for rule in RULES
    }
    return output.lines_plot(
        lines, title="Rules", x="deltas a round", y="speed, by the mean's", marks={"half": LEAST_SPEED}
    )


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = output.parser(__doc__)
    parser.add_argument("--mb", type=int, help="float32 of a delta, millions of bytes [8]")
    parser.add_argument("--deltas", type=output.numbers, help="how many a round [4,16,64]")
    parser.add_argument("--repeats", type=int, help="[3]")
    options = parser.parse_args(arguments)
    options.mb = options.mb or (1 if options.quick else 8)
    options.deltas = options.deltas or ([4, 16] if options.quick else [4, 16, 64])
    options.repeats = options.repeats or (1 if options.quick else 3)
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="rules-", dir=options.folder) as folder:
            rules = {deltas: measure(options.mb, deltas, options.repeats, Path(folder)) for deltas in options.deltas}
    except LLMasOSError as error:
        return output.failed(error)
    found = {"mb": options.mb, "rules": rules, "machine": machine.description()}
    output.deliver(options, found, table, plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
