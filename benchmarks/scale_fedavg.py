"""Flower's own simulation of the same training: its FedAvg, its engine, one ClientApp call an institution; for scale.py.

    python benchmarks/scale_fedavg.py JOB.json        {"rounds": [{"seconds": …, "training_seconds": …}]} as the last line

JOB.json is what our engine is told (llmasos.flower.job); the training of an institution is the same code. Started by
scale.py, which switches telemetry off.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from llmasos.flower.client import client_app
from llmasos.flower.engine import Engine, backend, load_job
from llmasos.flower.job import EngineJob
from llmasos.training.corpus import Source
from llmasos.training.institution import Institution, initial_arrays


class Timed(FedAvg):
    """FedAvg with a clock around each round."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.rounds: list[dict[str, float]] = []
        self._started = 0.0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self._started = time.monotonic()
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        known = list(replies)
        failed = [reply.error.reason for reply in known if reply.has_error()]
        if failed:
            raise RuntimeError(f"round {server_round}: {len(failed)} failed; the first: {failed[0]}")
        training = sum(next(iter(reply.content.metric_records.values()))["training-seconds"] for reply in known)
        averaged = super().aggregate_train(server_round, known)
        self.rounds.append({"seconds": time.monotonic() - self._started, "training_seconds": training})
        return averaged


def simulate(job: EngineJob) -> list[dict[str, float]]:
    institutions, home = job.institutions, job.home / "fedavg"
    threads, allow_cuda = job.resources.threads, job.resources.gpus > 0

    def who(context: Context) -> Institution:
        one = institutions[int(context.node_config["partition-id"])]
        return Institution(one.name, job.prepared, (Source(one.folder),), home, threads, allow_cuda)

    count = len(institutions)
    strategy = Timed(fraction_evaluate=0.0, min_train_nodes=count, min_available_nodes=count)
    engine, server = Engine(job), ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        initial = ArrayRecord({name: Array(values) for name, values in initial_arrays(job.prepared).items()})
        strategy.start(grid=grid, initial_arrays=initial, num_rounds=engine.plan.rounds, timeout=86400)

    run_simulation(server, client_app(who), count, backend_config=backend(job, engine))
    return strategy.rounds


if __name__ == "__main__":
    print(json.dumps({"rounds": simulate(load_job(Path(sys.argv[1])))}), flush=True)
