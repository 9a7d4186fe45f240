"""Federated against central training: the same model and tokens, on one machine with all the text or at four institutions.

    python benchmarks/convergence.py                                    # table; settings below, three seeds (an hour)
    python benchmarks/convergence.py --quick --json -                   # two rounds, to see that it works
    python benchmarks/convergence.py --plot out.svg                     # curves of the first seed
    python benchmarks/convergence.py --folder out/convergence           # keeps each training; goes on where it stopped
    python benchmarks/convergence.py --arms sgd/keep/0.004 nesterov:learning_rate=0.7,momentum=0.9/reset/0.002

A small GPT on bytes learns the standard library's sources. `iid`: every institution has files of all kinds, dealt out
at random; `domain`: networking, text and email, data and numbers, tools. An arm is
SERVER_OPTIMIZER/MOMENTS/LEARNING_RATE, MOMENTS being what becomes of the local optimizer's at a round's end. Central
training's step takes the very batches that the institutions take in that step; its learning rate is the best of
--central-rates, on the mean of all seeds. Perplexity is a byte's, on the held-out documents of all institutions.
`apart` is an arm's to central training of the same seed, in per cent; mean, and least and most over seeds. `alone` is
training on one institution's own text, measured on its own held-out documents, where the federation's model is measured
beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from measuring import in_process, output

from common.errors import LLMasOSError
from common.plan.model import Plan
from llmasos.datasets.text import read_documents
from llmasos.evaluation.perplexity import LossSums
from llmasos.simulation.partition import Partition, share_out, write_parts
from llmasos.simulation.stdlib_corpus import GROUPS, copy_institution
from llmasos.training.device import set_up

SPLITS = ("iid", "domain")
ARMS = (
    "nesterov:learning_rate=0.7,momentum=0.8/keep/0.004",
    "nesterov:learning_rate=0.7,momentum=0.9/keep/0.002",
    "sgd/keep/0.004",
    "sgd/reset/0.004",
)
CENTRAL_RATES = ("0.008", "0.004")
POINTS = 15
"""Of a curve, over the rounds."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What all trainings share."""

    rounds: int
    steps: int
    batch_size: int
    sequence_length: int
    model: Mapping[str, Any]
    max_tokens: int

    def plan(self, seed: int, rate: str, server: Mapping[str, Any] | None = None, state: str = "keep") -> Plan:
        """One training's; the rest is a plan's defaults."""
        return Plan.model_validate(
            {
                "apiVersion": "llmasos/v1",
                "name": "convergence",
                "seed": seed,
                "model": self.model,
                "local": {
                    "steps": self.steps,
                    "batch_size": self.batch_size,
                    "sequence_length": self.sequence_length,
                    "optimizer": {"type": "adamw", "learning_rate": rate},
                    "optimizer_state": state,
                },
                "evaluation": {"max_tokens": self.max_tokens},
                "server_optimizer": server or {"type": "sgd"},
                "rounds": self.rounds,
            }
        )


SMALL = {"type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 40, "n_positions": 32}
FULL = Setting(rounds=150, steps=20, batch_size=32, sequence_length=32, model=SMALL, max_tokens=16384)
QUICK = Setting(rounds=2, steps=2, batch_size=2, sequence_length=32, model=SMALL, max_tokens=512)


@dataclass(frozen=True, slots=True)
class Arm:
    """A way to federate."""

    text: str
    server: Mapping[str, str]
    state: str
    rate: str


def arm(text: str) -> Arm:
    """`nesterov:learning_rate=0.7/reset/0.004`."""
    try:
        server, state, rate = text.split("/")
        name, _, fields = server.partition(":")
        section = {"type": name} | dict(field.split("=", 1) for field in fields.split(",") if field)
        FULL.plan(1, rate, section, state)
    except ValueError as err:
        raise argparse.ArgumentTypeError(f"{text!r} is no SERVER[:FIELD=VALUE,…]/keep|reset/RATE: {err}") from err
    return Arm(text, section, state, rate)


@dataclass(frozen=True, slots=True)
class Trained:
    """One training: perplexity over all held-out text by round, and at the end by institution."""

    name: str
    split: str
    seed: int
    perplexity: float
    institutions: dict[str, float]
    curve: list[tuple[int, float]]
    seconds: float


class Bench:
    """Makes texts and trainings; what was trained before is read from the folder."""

    def __init__(self, setting: Setting, folder: Path, splits: Sequence[str], seeds: Sequence[int]) -> None:
        self.setting, self.folder, self.splits, self.seeds = setting, folder, splits, seeds
        self._machine = set_up(1, allow_cuda=False)
        folder.mkdir(parents=True, exist_ok=True)

    @cached_property
    def _texts(self) -> dict[str, dict[str, Path]]:
        """Institutions' folders by split: the same documents, shared out in two ways."""
        domain = {name: self.folder / "domain" / name for name in GROUPS}
        for name, path in domain.items():
            if not path.exists():
                copy_institution(name, path)
        mixed = self.folder / "iid"
        if not mixed.exists():
            found = share_out(read_documents(self.folder / "domain"), Partition("iid", len(GROUPS)), seed=1)
            write_parts(found, mixed)
        return {"domain": domain, "iid": {path.name: path for path in sorted(mixed.iterdir())}}

    def everything(self, arms: Sequence[Arm], central_rates: Sequence[str]) -> list[Trained]:
        """Seed by seed, so that what is there after an interruption is comparable."""
        found: list[Trained] = []
        for seed in self.seeds:
            for split in self.splits:
                plan = self.setting.plan(seed, central_rates[0])
                tokens = self.folder / "tokens" / str(seed)
                with in_process.Consortium(plan, self._texts[split], self._machine, tokens) as consortium:
                    found += self._of(consortium, split, seed, arms, central_rates)
        return found

    def _of(
        self,
        consortium: in_process.Consortium,
        split: str,
        seed: int,
        arms: Sequence[Arm],
        central_rates: Sequence[str],
    ) -> list[Trained]:
        found: list[Trained] = []
        for rate in central_rates:
            plan = self.setting.plan(seed, rate)
            train = partial(in_process.central, consortium, plan)
            found.append(self._trained(f"central/{rate}", split, plan, train))
        for one in arms:
            plan = self.setting.plan(seed, one.rate, one.server, one.state)
            found.append(self._trained(one.text, split, plan, partial(in_process.federated, consortium, plan)))
        for name in consortium.corpora if split == "domain" else ():
            plan = self.setting.plan(seed, central_rates[0])
            train = partial(in_process.alone, consortium, plan, name)
            found.append(self._trained(f"alone/{name}", split, plan, train))
        return found

    def _trained(self, name: str, split: str, plan: Plan, train: Callable[[in_process.Watch], None]) -> Trained:
        kept = self.folder / "trained" / f"{split}-{plan.seed}-{plan.rounds}-{name.replace('/', '-')}.json"
        if kept.exists():
            return Trained(**json.loads(kept.read_bytes()))
        started, curve = time.monotonic(), [(0, 0.0)]
        every = max(1, plan.rounds // POINTS)
        losses: in_process.Losses = {}

        def watch(number: int, measure: Callable[[], in_process.Losses]) -> None:
            nonlocal losses
            if number % every == 0 or number == plan.rounds:
                losses = measure()
                curve.append((number, pooled(losses)))

        train(watch)
        apart = {key: sums.perplexity for key, sums in losses.items()}
        found = Trained(name, split, plan.seed, pooled(losses), apart, curve[1:], time.monotonic() - started)
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(json.dumps(asdict(found)))
        print(f"{split} seed {plan.seed} {name}: {found.perplexity:.4f} in {found.seconds:.0f} s", file=sys.stderr)
        return found


def pooled(losses: in_process.Losses) -> float:
    """Perplexity over all institutions' held-out tokens."""
    return LossSums(*(sum(column) for column in zip(*losses.values(), strict=True))).perplexity


# --- what is told --------------------------------------------------------------------------------------------------------


def summary(trained: Sequence[Trained]) -> list[dict[str, Any]]:
    """A row for each split and arm: perplexities by seed, and how far they are from central training's, in per cent."""
    rows: list[dict[str, Any]] = []
    for split in dict.fromkeys(one.split for one in trained):
        here = [one for one in trained if one.split == split]
        names = list(dict.fromkeys(one.name for one in here if not one.name.startswith("alone/")))
        best = best_central(here)
        central = {one.seed: one.perplexity for one in here if one.name == best}
        for name in names:
            values = {one.seed: one.perplexity for one in here if one.name == name}
            apart = [100 * (value / central[seed] - 1) for seed, value in values.items()]
            rows.append(
                {
                    "split": split,
                    "name": name,
                    "perplexity": statistics.fmean(values.values()),
                    "perplexities": values,
                    "apart": statistics.fmean(apart),
                    "apart_least": min(apart),
                    "apart_most": max(apart),
                    "institutions": _means([one.institutions for one in here if one.name == name]),
                }
            )
    return rows


def best_central(trained: Sequence[Trained]) -> str:
    """The central training with the lowest mean perplexity."""
    names = dict.fromkeys(one.name for one in trained if one.name.startswith("central/"))
    return min(names, key=lambda name: statistics.fmean(one.perplexity for one in trained if one.name == name))


def alone(trained: Sequence[Trained]) -> dict[str, float]:
    """Perplexity of each institution's own model on its own held-out text, mean over seeds."""
    found: dict[str, list[float]] = {}
    for one in trained:
        if one.name.startswith("alone/"):
            name = one.name.removeprefix("alone/")
            found.setdefault(name, []).append(one.institutions[name])
    return {name: statistics.fmean(values) for name, values in found.items()}


def _means(each: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: statistics.fmean(one[name] for one in each) for name in each[0]}


def table(found: Mapping[str, Any]) -> str:
    """For people."""
    blocks = [
        f"{found['rounds']} rounds of {found['steps']} steps, {len(found['seeds'])} seeds, {found['parameters']:,} parameters"
    ]
    for split in found["splits"]:
        rows = sorted((row for row in found["rows"] if row["split"] == split), key=lambda row: float(row["perplexity"]))
        shown = [
            [
                row["name"],
                f"{row['perplexity']:.4f}",
                f"{row['apart']:+.2f} %",
                f"{row['apart_least']:+.2f} … {row['apart_most']:+.2f}",
            ]
            for row in rows
        ]
        blocks.append(output.columns([split, "perplexity", "apart", "over seeds"], shown))
    if found["alone"]:
        best = min(
            (row for row in found["rows"] if row["split"] == "domain" and not row["name"].startswith("central/")),
            key=lambda row: float(row["perplexity"]),
        )
        shown = [[name, f"{value:.4f}", f"{best['institutions'][name]:.4f}"] for name, value in found["alone"].items()]
        blocks.append(output.columns(["own held-out text", "alone", best["name"]], shown))
    return "\n\n".join(blocks)


def plot(found: Mapping[str, Any]) -> str:
    """The first seed's curves of the first split."""
    lines = {one["name"]: one["curve"] for one in found["trained"] if _is_drawn(found, one)}
    return output.lines_plot(
        lines, title="Federated against central training", x="rounds", y=f"held-out perplexity, {found['splits'][0]}"
    )


def _is_drawn(found: Mapping[str, Any], one: Mapping[str, Any]) -> bool:
    first = one["split"] == found["splits"][0] and one["seed"] == found["seeds"][0]
    return first and not one["name"].startswith("alone/")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = output.parser(__doc__)
    parser.add_argument("--arms", type=arm, nargs="+", default=[arm(text) for text in ARMS])
    parser.add_argument("--central-rates", nargs="+", default=list(CENTRAL_RATES), metavar="RATE")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS))
    parser.add_argument("--seeds", type=int, nargs="+", default=None, help="default: 1 2 3; with --quick 1")
    parser.add_argument("--rounds", type=int, default=None)
    given = parser.parse_args(arguments)
    if given.seeds is None:
        given.seeds = [1] if given.quick else [1, 2, 3]
    return given


def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train all that was asked for."""
    setting = QUICK if given.quick else FULL
    if given.rounds is not None:
        setting = Setting(**{**asdict(setting), "rounds": given.rounds})
    bench = Bench(setting, folder, given.splits, given.seeds)
    trained = bench.everything(given.arms, given.central_rates)
    return asdict(setting) | {
        "splits": given.splits,
        "seeds": given.seeds,
        "parameters": in_process.parameters(setting.plan(1, "0.001")),
        "rows": summary(trained),
        "alone": alone(trained),
        "trained": [asdict(one) for one in trained],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    given = parse_arguments(arguments)
    try:
        with TemporaryDirectory(prefix="llmasos-convergence-") as temporary:
            found = measure(given, given.folder or Path(temporary))
    except LLMasOSError as err:
        return output.failed(err)
    output.deliver(given, found, table, plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
