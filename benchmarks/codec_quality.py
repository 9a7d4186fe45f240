"""What a codec costs in quality: the same training, deltas encoded, what encoding lost kept for the next round.

    python benchmarks/codec_quality.py                           # a table
    python benchmarks/codec_quality.py --seeds 1 2 3 --json -    # the same as JSON
    python benchmarks/codec_quality.py --no-feedback             # what the residuals are worth
    python benchmarks/codec_quality.py --downlink                # models travel by the same codec
    python benchmarks/codec_quality.py --codecs topk topk:0.1    # also with another share of the numbers

The tiny plan with more rounds, three institutions with sources of the standard library, by the code of a deployment: a worker's
round, the codecs, the residuals, the coordinator's reducer. One process, without network and ledger, which change no number.
Perplexity is the final model's on the held-out text of all institutions. `difference` is a codec's to float32 with the same
seed, in per cent, mean and extremes over seeds; `spread` is float32's own between seeds, a standard deviation in per cent: what
is within it is noise.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from common import tensors
from common.blobs.reference import BlobRef
from common.blobs.store import FolderBlobStore
from common.codecs import CODECS
from common.codecs.encoding import EncodeJob, encode_delta
from common.ledger.cohort import local_seed, round_seed
from common.plan.load import load_plan, plan_yaml
from common.plan.model import Plan
from common.reduce import Beside, ReduceJob, WeightedDelta, reduce_round
from common.resources import config_path
from common.statements.kinds import PlanStatement, RoundOutputs
from llmasos.evaluation.perplexity import LOSS_SCALE
from llmasos.preparation import Prepared, prepare
from llmasos.simulation.stdlib_corpus import GROUPS, copy_institution
from llmasos.training.device import Machine, set_up
from participant.bench.workbench import BASE, DELTA
from participant.bench.worker_protocol import DataSource, Evaluate, Prepare, Train
from participant.residuals import Residuals
from participant.worker.agent_side import AgentSide
from participant.worker.job import Job, prepare_job
from participant.worker.rounds import RoundContext, evaluate_round, train_round

PLAN = "plans/tiny.yaml"
NAMES = tuple(GROUPS)[:3]
DOWNLINKS = ("bfloat16", "int8", "int4")
"""Codecs by which models may travel too; with the others `--downlink` changes nothing."""
NO_SNAPSHOT_SECONDS = 1e9


@dataclass(frozen=True, slots=True)
class Settings:
    """What is trained."""

    codecs: tuple[str, ...]
    seeds: tuple[int, ...]
    rounds: int
    feedback: bool
    downlink: bool


@dataclass(frozen=True, slots=True)
class Trained:
    """One training."""

    codec: str
    seed: int
    perplexity: float
    bytes_up: int
    """Of one institution in one round."""
    bytes_down: int
    """Of one institution in one round after its first: a model, or an applied delta."""
    seconds: float


class SilentAgent:
    """The worker's other side, which wants nothing."""

    def __init__(self) -> None:
        self.snapshot_wanted, self.stop_wanted = threading.Event(), threading.Event()

    def send(self, message: object) -> None:
        pass


class Institution:
    """A worker's job, and the residuals of its agent."""

    def __init__(self, name: str, folder: Path, prepared: Prepared, text: Path, machine: Machine) -> None:
        self.name = name
        self._statement = prepared.draft
        self._folder = folder / "job"
        self._residuals = Residuals(folder / "residuals")
        self._folder.mkdir(parents=True)
        (self._folder / "plan.json").write_text(prepared.draft.model_dump_json())
        shutil.copyfile(prepared.folder / "tokenizer.json", self._folder / "tokenizer.json")
        source = DataSource(name="default", folder=str(text))
        self.job: Job = prepare_job(Prepare(job=str(self._folder), data=(source,)))
        agent = cast(AgentSide, SilentAgent())
        self._context = RoundContext(self.job, machine, agent, NO_SNAPSHOT_SECONDS, time.monotonic)

    def train(self, index: int, base: Path) -> int:
        """Round `index`, from 0; the delta's weight."""
        seed = local_seed(round_seed(str(self._statement.plan.seed), index + 1), self.name)
        shutil.copyfile(base, self._folder / BASE)
        request = Train(round=index + 1, trained_rounds=index, seed=seed, base=BASE, delta=DELTA)
        return train_round(request, self._context).num_tokens

    def offer(self, index: int, blobs: FolderBlobStore, *, feedback: bool) -> BlobRef:
        """Its delta as it travels."""
        statement = self._statement
        elements = tensors.trainable_elements(statement.manifest)
        with ExitStack() as stack:
            delta = stack.enter_context((self._folder / DELTA).open("rb"))
            delta.seek(len(tensors.trainable_header(statement.manifest)))
            residual = stack.enter_context(self._residuals.open("run", index, elements))
            kept = stack.enter_context(self._residuals.replace("run", index + 1))
            writer = stack.enter_context(blobs.writer("blake3"))
            source = residual if feedback else None
            encode_delta(EncodeJob(statement.plan.codec, statement.manifest, delta, source, writer.write, kept.write))
            kept.commit()
            return writer.commit()

    def measure(self, model: Path) -> tuple[int, int]:
        """Loss and tokens of its held-out text."""
        shutil.copyfile(model, self._folder / BASE)
        sums = evaluate_round(Evaluate(round=1, base=BASE), self._context).evaluation
        return sums.loss_sum_fixed, sums.num_tokens


def section(codec: str) -> dict[str, str]:
    """A plan's, of `int8`, or of `topk:0.1` with the share that is kept."""
    name, colon, fraction = codec.partition(":")
    return {"type": name} | ({"fraction": fraction} if colon else {})


def train(plan: Plan, codec: str, folder: Path, texts: Path, *, feedback: bool) -> Trained:
    """A whole run; `codec` is what its result is listed by."""
    started = time.monotonic()
    folder.mkdir()
    (folder / "plan.yaml").write_text(plan_yaml(plan), encoding="utf-8")
    prepared, machine = prepare(folder / "plan.yaml", folder / "prepared"), set_up(1)
    with ExitStack() as stack:
        institutions = [Institution(name, folder / name, prepared, texts / name, machine) for name in NAMES]
        for each in institutions:
            stack.callback(each.job.close)
        blobs = FolderBlobStore(folder / "blobs")
        stack.callback(blobs.close)
        made = RoundOutputs(model=blobs.ingest(prepared.folder / "model.safetensors", "blake3", move=False))
        size = 0
        for index in range(plan.rounds):
            weights = [each.train(index, blobs.path(made.model)) for each in institutions]
            deltas = [each.offer(index, blobs, feedback=feedback) for each in institutions]
            made, size = apply(prepared.draft, blobs, made, list(zip(weights, deltas, strict=True))), deltas[0].size
        measured = [each.measure(blobs.path(made.model)) for each in institutions]
    loss, tokens = (sum(column) for column in zip(*measured, strict=True))
    perplexity = math.exp(loss / LOSS_SCALE / tokens)
    down = made.applied_delta.size if made.applied_delta is not None else made.model.size
    return Trained(codec, plan.seed, perplexity, size, down, time.monotonic() - started)


def apply(
    statement: PlanStatement, blobs: FolderBlobStore, before: RoundOutputs, offered: Sequence[tuple[int, BlobRef]]
) -> RoundOutputs:
    """What a round makes, by the coordinator's reducer."""
    with ExitStack() as stack:
        base = stack.enter_context(blobs.open(before.model))
        state = stack.enter_context(blobs.open(before.server_state)) if before.server_state is not None else None
        deltas = [
            WeightedDelta(name, weight, stack.enter_context(blobs.open(ref)))
            for name, (weight, ref) in zip(NAMES, offered, strict=True)
        ]
        model, applied, kept = (stack.enter_context(blobs.writer("blake3")) for _ in range(3))
        job = ReduceJob(statement.plan, statement.manifest, base, deltas, state)
        sends, keeps = statement.plan.downlink is not None, statement.plan.leaves_server_state
        reduce_round(job, model.write, Beside(applied.write if sends else None, kept.write if keeps else None))
        return RoundOutputs(
            model=model.commit(),
            applied_delta=applied.commit() if sends else None,
            server_state=kept.commit() if keeps else None,
        )


def measure(settings: Settings, folder: Path) -> list[Trained]:
    """Every codec with every seed."""
    texts = folder / "texts"
    for name in NAMES:
        copy_institution(name, texts / name)
    found = []
    plan = load_plan(config_path(PLAN))
    for seed in settings.seeds:
        for codec in settings.codecs:
            changed = plan.model_dump(mode="json") | {
                "rounds": settings.rounds,
                "seed": seed,
                "codec": section(codec),
                "downlink": section(codec) if settings.downlink and codec in DOWNLINKS else None,
            }
            chosen = Plan.model_validate(changed)
            found.append(train(chosen, codec, folder / f"{codec}-{seed}", texts, feedback=settings.feedback))
            shown = found[-1]
            print(
                f"seed {seed}  {codec:<9} perplexity {shown.perplexity:.4f}  ({shown.seconds:.0f} s)", file=sys.stderr
            )
    return found


def compare(found: Sequence[Trained], settings: Settings) -> dict[str, Any]:
    """By codec: perplexities by seed, and their differences to float32's."""
    by = {(each.codec, each.seed): each for each in found}
    plain = {seed: by["float32", seed] for seed in settings.seeds}
    codecs = {}
    for codec in settings.codecs:
        mine = {seed: by[codec, seed] for seed in settings.seeds}
        differences = [100 * (mine[seed].perplexity / plain[seed].perplexity - 1) for seed in settings.seeds]
        codecs[codec] = {
            "perplexity": {str(seed): each.perplexity for seed, each in mine.items()},
            "mean": statistics.fmean(each.perplexity for each in mine.values()),
            "difference_percent": statistics.fmean(differences),
            "difference_percent_range": [min(differences), max(differences)],
            "bytes_up_percent": 100 * mine[settings.seeds[0]].bytes_up / plain[settings.seeds[0]].bytes_up,
            "bytes_down_percent": 100 * mine[settings.seeds[0]].bytes_down / plain[settings.seeds[0]].bytes_down,
        }
    values = [each.perplexity for each in plain.values()]
    spread = 100 * statistics.stdev(values) / statistics.fmean(values) if len(values) > 1 else None
    return {
        "rounds": settings.rounds,
        "institutions": len(NAMES),
        "error_feedback": settings.feedback,
        "downlink": settings.downlink,
        "spread_percent": spread,
        "codecs": codecs,
    }


def table(report: dict[str, Any]) -> str:
    feedback = "with" if report["error_feedback"] else "without"
    lines = [
        f"{report['rounds']} rounds, {report['institutions']} institutions, {feedback} error feedback",
        f"{'codec':<9} {'bytes up':>9} {'down':>7} {'perplexity':>11} {'difference':>11} {'lowest':>9} {'highest':>9}",
    ]
    for name, found in report["codecs"].items():
        low, high = found["difference_percent_range"]
        lines.append(
            f"{name:<9} {found['bytes_up_percent']:>8.1f}% {found['bytes_down_percent']:>6.1f}% {found['mean']:>11.4f} "
            f"{found['difference_percent']:>+10.3f}% {low:>+8.3f}% {high:>+8.3f}%"
        )
    if report["spread_percent"] is not None:
        lines.append(f"spread of float32 between seeds: {report['spread_percent']:.3f}%")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--codecs", nargs="+", default=list(CODECS), metavar="CODEC", help="int8, topk:0.1, …")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--no-feedback", action="store_true", help="throw away what encoding loses")
    parser.add_argument("--downlink", action="store_true", help="models travel by the same codec as deltas")
    parser.add_argument("--json", metavar="FILE", help="write JSON there; - for standard output")
    given = parser.parse_args()
    codecs = ("float32", *(name for name in given.codecs if name != "float32"))
    settings = Settings(codecs, tuple(given.seeds), given.rounds, not given.no_feedback, given.downlink)
    with tempfile.TemporaryDirectory(prefix="llmasos-codecs-") as folder:
        report = compare(measure(settings, Path(folder)), settings)
    if given.json is None:
        print(table(report))
        return
    text = json.dumps(report, indent=2)
    if given.json == "-":
        print(text)
    else:
        Path(given.json).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
