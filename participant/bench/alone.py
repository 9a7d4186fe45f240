"""What taking part is worth to this institution: its text without the others, against the consortium's model (`gain`).

A model is trained from the run's initial model on this institution's data alone, round by round with the very seeds of the
run's committed rounds, so on the very batches that it gave the consortium; a round's delta is applied by the reducer, as to a
federation of one. Both models are then measured on this institution's held-out text. Nothing of it leaves the house.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from common.blobs.reference import BlobRef, DigestName
from common.blobs.store import FolderBlobStore
from common.clock import Clock, rfc3339
from common.errors import CoordinatorUnreachable, UsageError
from common.homes import private_folder
from common.ledger.cohort import local_seed, round_seed
from common.ledger.state import RunRecord
from common.plan.codecs import Float32Codec
from common.plan.local import NoCorrection
from common.plan.model import Plan
from common.plan.rules import WeightedMean
from common.plan.server_optimizers import ServerSGD
from common.reduce.round import ReduceJob, WeightedDelta, reduce_round
from common.wire.session import Session
from common.wire.transfer import TransferOptions
from participant.bench.workbench import BASE, DELTA, Workbench
from participant.bench.worker_protocol import Evaluate, EvaluationSums, Progress, Train
from participant.memory.records import Alone, Records

FOLDER = "alone"


@dataclass(frozen=True, slots=True)
class AlonePorts:
    """Everything that training alone uses. `workbench` has a job folder of its own."""

    institution: str
    session: Session
    workbench: Workbench
    records: Records
    clock: Clock
    algorithm: DigestName


@dataclass(frozen=True, slots=True)
class Gain:
    """Held-out losses on this institution's own text."""

    steps: int
    rounds: int
    alone: EvaluationSums
    consortium: EvaluationSums


class TrainingAlone:
    """One run's, under a folder that is removed afterwards: it holds copies of private text, as tokens."""

    def __init__(self, ports: AlonePorts, folder: Path, run: RunRecord) -> None:
        self._ports = ports
        self._folder = private_folder(folder)
        self._run = run
        self._never = threading.Event()

    def train(self, steps: int | None, tell: Callable[[str], None]) -> Gain:
        """Train for `steps`, by default as many as the run's committed rounds have, and measure both models.

        Raises:
            UsageError: the run has committed no round yet, or has personal layers.
            CoordinatorUnreachable: the models cannot be fetched.
            LLMasOSError: about data, worker and disk, as in a round.
        """
        run, local = self._run, self._run.statement.plan.local
        rounds = len(run.committed())
        if run.statement.plan.personal:
            raise UsageError(
                f"{run.run} has personal layers: the consortium's model alone is no whole model to compare with.",
                "See how it does with this institution's own layers: llmasos-participant status.",
            )
        if rounds == 0:
            raise UsageError(f"{run.run} has committed no round yet: there is nothing to compare with.", _LATER)
        wanted = rounds * local.steps if steps is None else steps
        with ExitStack() as cleaning:
            cleaning.callback(shutil.rmtree, self._folder, ignore_errors=True)
            cleaning.callback(self._ports.workbench.close)
            blobs = FolderBlobStore(self._folder / "blobs")
            cleaning.callback(blobs.close)
            tell("fetching the initial model and the newest one")
            tokenizer = self._fetch(blobs, run.statement.initial.tokenizer)
            initial, newest = run.statement.initial.model, run.model
            self._fetch(blobs, initial)
            self._fetch(blobs, newest)
            tell("preparing data")
            self._ports.workbench.prepare(run, tokenizer, self._never)
            trained = self._train(blobs, initial, wanted, tell)
            tell("measuring both models on own text")
            gain = Gain(wanted, rounds, self._measure(blobs, trained), self._measure(blobs, newest))
        sums, at = gain.alone, rfc3339(self._ports.clock.now())
        self._ports.records.trained_alone(Alone(run.run, wanted, sums.loss_sum_fixed, sums.num_tokens, at))
        return gain

    def _train(self, blobs: FolderBlobStore, model: BlobRef, steps: int, tell: Callable[[str], None]) -> BlobRef:
        """The model after so many steps; only the newest one is kept on disk."""
        per_round, initial = self._run.statement.plan.local.steps, model
        for index in range(-(-steps // per_round)):
            now = min(per_round, steps - index * per_round)
            message = Train(
                round=index + 1,
                trained_rounds=index,
                seed=self._seed(index),
                base=BASE,
                delta=DELTA,
                steps=None if now == per_round else now,
            )
            self._place(blobs, model)
            first = index * per_round

            def on_progress(progress: Progress, first: int = first) -> None:
                if progress.activity == "training":
                    tell(f"training alone: step {first + progress.steps_done:,} of {steps:,}")

            result = self._ports.workbench.train(message, self._never, on_progress)
            after = self._apply(blobs, model, max(1, result.num_tokens))
            if model not in (initial, self._run.model):
                blobs.delete(model)
            model = after
        return model

    def _seed(self, index: int) -> int:
        """This institution's seed in the run's round of that index, from 0; beyond its rounds, in those that might come."""
        committed = self._run.committed()
        digest = self._run.place.digest
        number = committed[-1].number + index + 1 - len(committed)
        seed = committed[index].opened.seed if index < len(committed) else round_seed(digest, number)
        return local_seed(seed, self._ports.institution)

    def _apply(self, blobs: FolderBlobStore, model: BlobRef, num_tokens: int) -> BlobRef:
        """Base plus delta, by the reducer's own arithmetic: a federation of one, server learning rate 1, nothing encoded."""
        statement = self._run.statement
        delta = blobs.ingest(self._ports.workbench.job(self._run.run) / DELTA, self._ports.algorithm, move=True)
        alone: dict[str, object] = {
            "local": statement.plan.local.model_copy(update={"correction": NoCorrection()}),
            "server_optimizer": ServerSGD(learning_rate=Decimal(1)),
            "codec": Float32Codec(),
            "downlink": None,
            "rule": WeightedMean(),  # of one delta: that delta
        }
        plan: Plan = statement.plan.model_copy(update=alone)
        with blobs.open(model) as base, blobs.open(delta) as reader, blobs.writer(self._ports.algorithm) as writer:
            deltas = [WeightedDelta(self._ports.institution, num_tokens, reader)]
            reduce_round(ReduceJob(plan, statement.manifest, base, deltas), writer.write)
            after = writer.commit()
        blobs.delete(delta)
        return after

    def _measure(self, blobs: FolderBlobStore, model: BlobRef) -> EvaluationSums:
        self._place(blobs, model)
        message = Evaluate(round=1, base=BASE)
        return self._ports.workbench.evaluate(message, self._never, lambda progress: None).evaluation

    def _place(self, blobs: FolderBlobStore, model: BlobRef) -> None:
        self._ports.workbench.place_base(self._run.run, blobs.path(model))

    def _fetch(self, blobs: FolderBlobStore, ref: BlobRef) -> Path:
        if not blobs.contains(ref) and not self._ports.session.download(
            ref, blobs, self._ports.institution, TransferOptions(durable=False)
        ):
            raise CoordinatorUnreachable(f"The download of {ref} ended early.")
        return blobs.path(ref)


_LATER = "Ask again after the first round: llmasos-participant status says how many were committed."
