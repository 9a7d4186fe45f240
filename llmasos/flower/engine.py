"""A plan's rounds on Flower's simulation engine (Ray), in a process of its own.

    python -m llmasos.flower.engine JOB.json        run views on standard output, one a line; the final model in a file

    job ─▶ ServerApp (rounds, Strategy) ─ messages ─▶ ClientApp on Ray's actors: one institution's training each
                  │ each reply at once into a file                    tokens and moments on disk, in the job's home
                  └─▶ reduce_round ─▶ next round

Replies are taken as they come and deltas wait in files: memory does not grow with the cohort.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation
from pydantic import ValidationError

from common.blobs.reference import DigestName
from common.codecs import codec
from common.errors import InvalidConfiguration, LLMasOSError, OperationError, UsageError
from common.tensors import model_header, model_size, trainable_elements
from llmasos.extras import FLOWER_QUIET, require_flower, require_train
from llmasos.flower.client import answer_evaluate, answer_train
from llmasos.flower.job import EngineJob, Turn, own_turn, stop_reason
from llmasos.flower.strategy import Strategy, institution_of
from llmasos.preparation import Prepared, file_reference, load_prepared
from llmasos.simulation.watch import POOLED, Evaluation, Round, RunView
from llmasos.training.corpus import Source
from llmasos.training.institution import Institution, initial_arrays

POLL_SECONDS = 0.05
VIEW_SECONDS = 0.5
NAMED_INSTITUTIONS = 32
"""Up to so many, each institution's own losses are in every round's view; of more, in the last round's only."""
MAX_ABANDONED_IN_A_ROW = 3
_OBJECT_STORE_BYTES = 256 * 1024 * 1024


class Engine:
    """The server's side: all rounds, one after another."""

    def __init__(self, job: EngineJob) -> None:
        self.job = job
        self.prepared: Prepared = load_prepared(job.prepared)
        self.plan = self.prepared.draft.plan
        self._names = [one.name for one in job.institutions]
        self._rounds: list[Round] = []
        self._medians: list[float] = []
        self._end_reason = ""
        self._view_at = self._training_seconds = 0.0
        self.failures: list[str] = []

    def run(self, grid: Grid) -> None:
        """Until the plan's rounds are done, a stop rule holds, or too many rounds in a row were abandoned."""
        nodes = dict(zip(self._names, all_nodes(grid, len(self._names)), strict=True))
        self.job.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = self.job.home / "rounds"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True)
        strategy = Strategy(self.plan, folder=folder)
        arrays = ArrayRecord({name: Array(values) for name, values in initial_arrays(self.job.prepared).items()})
        for turn in self._turns(strategy):
            arrays = self._play(turn, strategy, arrays, grid, nodes)
        shutil.rmtree(folder, ignore_errors=True)
        write_model(self.prepared, arrays, self.job.final)
        self._show(final=True)

    def _turns(self, strategy: Strategy) -> Iterator[Turn]:
        """The rounds to play; what ends them stands in `_end_reason`."""
        if self.job.turns:
            yield from self.job.turns
            self._end_reason = "rounds-done"
            return
        number = abandoned = 0
        while not self._end_reason:
            number += 1
            yield own_turn(self.plan, self._names, number, "train")
            abandoned = abandoned + 1 if self._rounds[-1].outcome == "abandoned" else 0
            if abandoned >= MAX_ABANDONED_IN_A_ROW:
                self._end_reason = "too-many-abandoned-rounds"
                return
            if strategy.committed >= self.plan.rounds:
                self._end_reason = "rounds-done"
            else:
                self._end_reason = stop_reason(self.plan, self._medians)
        yield own_turn(self.plan, self._names, number + 1, "evaluate")

    def _play(
        self, turn: Turn, strategy: Strategy, arrays: ArrayRecord, grid: Grid, nodes: Mapping[str, int]
    ) -> ArrayRecord:
        """One round; the arrays after it."""
        started = time.monotonic()
        self._rounds.append(Round(round=turn.number, task=turn.task, outcome="open", cohort=turn.cohort))
        self._show()
        if turn.task == "train":
            strategy.begin(arrays)
        messages = self._messages(turn, strategy.committed, arrays, nodes)
        came: list[str] = []
        sums: dict[str, tuple[int, int]] = {}
        self._training_seconds = 0.0
        for reply in collected(grid, messages):
            if reply.has_error():
                self._failed(turn, reply)
                continue
            name = institution_of(reply)
            if turn.task == "evaluate" or (name in turn.used and strategy.take(turn.number, reply)):
                came.append(name)
            sums[name] = _sums(reply)
            self._training_seconds += _training_seconds(reply)
            self._update(turn, "open", came, sums, started)
        new = strategy.close_round(turn.number) if turn.task == "train" and turn.used else None
        committed = turn.task == "evaluate" or new is not None
        self._update(turn, "committed" if committed else "abandoned", came, sums, started)
        if new is not None and sums:
            self._medians.append(median(_perplexity(pair) for pair in sums.values()))
        self._show()
        return arrays if new is None else new

    def _messages(
        self, turn: Turn, trained_rounds: int, arrays: ArrayRecord, nodes: Mapping[str, int]
    ) -> Iterator[Message]:
        kind = MessageType.TRAIN if turn.task == "train" else MessageType.EVALUATE
        known = {one.name: one for one in self.job.institutions}
        for name in turn.cohort:
            one = known[name]
            config = ConfigRecord(
                {
                    "server-round": turn.number,
                    "trained-rounds": trained_rounds,
                    "seed": turn.seed,
                    "institution": name,
                    "folder": str(one.folder),
                    "text-column": one.text_column or "",
                }
            )
            content = RecordDict({"arrays": arrays, "config": config})
            yield Message(content=content, message_type=kind, dst_node_id=nodes[name])

    def _failed(self, turn: Turn, reply: Message) -> None:
        reason = failure_in(str(reply.error.reason))
        self.failures.append(reason)
        print(f"round {turn.number}: {reason}", file=sys.stderr, flush=True)

    def _update(
        self, turn: Turn, outcome: str, came: Sequence[str], sums: Mapping[str, tuple[int, int]], started: float
    ) -> None:
        manifest = self.prepared.draft.manifest
        up, down = codec(self.plan.codec).encoded_size(manifest), model_size(manifest)
        self._rounds[-1] = Round(
            round=turn.number,
            task=turn.task,
            outcome=outcome,
            cohort=turn.cohort,
            contributors=tuple(sorted(came)),
            seconds=time.monotonic() - started,
            bytes_down=down * len(turn.cohort),
            bytes_up=up * len(came) if turn.task == "train" else 0,
            training_seconds=self._training_seconds,
            reason=self._why(came) if outcome == "abandoned" else "",
            evaluations=self._evaluations(sums, named=turn.task == "evaluate") if outcome != "open" else (),
        )
        if outcome == "open" and time.monotonic() >= self._view_at:
            self._show()

    def _why(self, came: Sequence[str]) -> str:
        """Of an abandoned round: how many deltas there were, and the newest failure."""
        why = f"{len(came)} deltas of a quorum of {self.plan.quorum}"
        return f"{why}; {self.failures[-1][:300]}" if self.failures else why

    def _evaluations(self, sums: Mapping[str, tuple[int, int]], *, named: bool) -> tuple[Evaluation, ...]:
        if not sums:
            return ()
        total = [sum(part) for part in zip(*sums.values(), strict=True)]
        pooled = Evaluation(scope=POOLED, loss_sum_fixed=total[0], num_tokens=total[1], institutions=len(sums))
        if not named and len(self._names) > NAMED_INSTITUTIONS:
            return (pooled,)
        own = [Evaluation(scope=name, loss_sum_fixed=a, num_tokens=b) for name, (a, b) in sorted(sums.items())]
        return (pooled, *own)

    def _show(self, *, final: bool = False) -> None:
        self._view_at = time.monotonic() + VIEW_SECONDS
        algorithm: DigestName = self.prepared.draft.initial.model.algorithm
        view = RunView(
            run=self.prepared.draft.run,
            plan_name=self.plan.name,
            phase="ended" if final else "running",
            round=self._rounds[-1].round if self._rounds else 0,
            rounds_planned=self.plan.rounds,
            rounds=tuple(self._rounds),
            end_reason=self._end_reason if final else "",
            model=file_reference(self.job.final, algorithm) if final else None,
        )
        print(view.model_dump_json(), flush=True)


def all_nodes(grid: Grid, count: int) -> list[int]:
    """Flower registers its virtual nodes while the ServerApp starts."""
    while len(found := sorted(grid.get_node_ids())) < count:
        time.sleep(POLL_SECONDS)
    return found


def collected(grid: Grid, messages: Iterator[Message]) -> Iterator[Message]:
    """Every message's reply, each as soon as it is there."""
    waiting = set(grid.push_messages(messages))
    while waiting:
        replies = list(grid.pull_messages(waiting))
        waiting -= {reply.metadata.reply_to_message_id for reply in replies}
        while replies:
            yield replies.pop()
        if waiting:
            time.sleep(POLL_SECONDS)


def write_model(prepared: Prepared, arrays: ArrayRecord, file: Path) -> None:
    """The model blob: header, the trained tensors, then the frozen ones as they were."""
    manifest = prepared.draft.manifest
    header = model_header(manifest)
    trained = len(header) + 4 * trainable_elements(manifest)
    with file.open("wb") as out, prepared.model.open("rb") as initial:
        out.write(header)
        for entry in manifest:
            if entry.group == "trainable":
                out.write(np.ascontiguousarray(arrays[entry.name].numpy(), dtype="<f4").data)
        initial.seek(trained)
        shutil.copyfileobj(initial, out)


def failure_in(reason: str) -> str:
    """What an institution's training said, out of the traceback in which Flower and Ray carry it."""
    return reason.rpartition("Message: ")[2].removesuffix("'>").strip()


def _sums(reply: Message) -> tuple[int, int]:
    metrics: MetricRecord = next(iter(reply.content.metric_records.values()))
    loss, tokens = metrics["held-out-loss-fixed"], metrics["held-out-tokens"]
    if not isinstance(loss, int) or not isinstance(tokens, int):
        raise OperationError(f"A reply has a held-out loss of {loss} over {tokens} tokens, expected whole numbers.")
    return loss, tokens


def _training_seconds(reply: Message) -> float:
    """As the institution says; none where it only evaluated."""
    metrics: MetricRecord = next(iter(reply.content.metric_records.values()))
    seconds = metrics.get("training-seconds", 0.0)
    return float(seconds) if isinstance(seconds, int | float) else 0.0


def _perplexity(pair: tuple[int, int]) -> float:
    return Evaluation(scope="", loss_sum_fixed=pair[0], num_tokens=pair[1]).perplexity


# --- the client's side -------------------------------------------------------------------------------------------------


def virtual_client(job: EngineJob) -> ClientApp:
    """A node's side: the message says which institution it is this time."""
    prepared, home = job.prepared.resolve(), job.home.resolve()
    threads, allow_cuda = job.resources.threads, job.resources.gpus > 0
    app = ClientApp()

    def who(message: Message) -> Institution:
        config = next(iter(message.content.config_records.values()))
        source = Source(Path(str(config["folder"])), str(config["text-column"]) or None)
        return Institution(str(config["institution"]), prepared, (source,), home, threads, allow_cuda)

    @app.train()
    def train_round(message: Message, context: Context) -> Message:
        return answer_train(message, who(message))

    @app.evaluate()
    def evaluate_round(message: Message, context: Context) -> Message:
        return answer_evaluate(message, who(message))

    return app


# --- the process -------------------------------------------------------------------------------------------------------


def simulate(job: EngineJob) -> Engine:
    """All of it; Ray ends with it, unless it is a cluster."""
    engine, raised = Engine(job), []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        try:
            engine.run(grid)
        except BaseException as err:  # Flower ends a failed ServerApp's simulation with another error
            raised.append(err)
            raise

    try:
        run_simulation(server, virtual_client(job), len(job.institutions), backend_config=backend(job, engine))
    except Exception:
        if raised:
            raise raised[0] from None
        raise
    return engine


def backend(job: EngineJob, engine: Engine) -> dict[str, Any]:
    """Ray's settings, as Flower takes them."""
    resources = job.resources
    init: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if resources.ray_address is not None:
        init["address"] = resources.ray_address
    else:
        model_bytes = engine.prepared.draft.initial.model.size
        init["num_cpus"] = resources.cores
        init |= {"_temp_dir": str(job.scratch)} if job.scratch is not None else {}
        init["object_store_memory"] = max(_OBJECT_STORE_BYTES, 8 * resources.cores * model_bytes)
    return {"init_args": init, "client_resources": {"num_cpus": resources.cpus, "num_gpus": resources.gpus}}


def load_job(path: Path) -> EngineJob:
    """
    Raises:
        UsageError: the file cannot be read.
        InvalidConfiguration: it is no job.
    """
    try:
        return EngineJob.model_validate_json(path.read_bytes())
    except OSError as err:
        raise UsageError(f"{path} could not be read: {err.strerror or err}.") from err
    except ValidationError as err:
        raise InvalidConfiguration(f"{path} is not a job of the Flower engine: {err}") from err


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m llmasos.flower.engine", description="Play a plan's rounds.")
    parser.add_argument("job", type=Path, help="JSON file; see llmasos.flower.job")
    path: Path = parser.parse_args(arguments).job
    for name, value in FLOWER_QUIET.items():
        os.environ.setdefault(name, value)
    try:
        require_flower("ray", task="simulate on the Flower engine")
        require_train("torch", "transformers", "tokenizers", task="simulate on the Flower engine")
        simulate(load_job(path))
    except LLMasOSError as err:
        print(err, file=sys.stderr)
        return err.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
