"""Local training beside a loop written by hand and transformers' Trainer: tokens a second of one GPT on the same batches.

    python benchmarks/training.py                            # a million parameters on one thread; a minute or two
    python benchmarks/training.py --quick --json -           # a few steps, to see that it works: the figures say little
    python benchmarks/training.py --n-embd 768 --n-layer 12 --batch-size 16 --sequence-length 1024 --precision bfloat16 --cuda
    python benchmarks/training.py --no-start-up              # without the worker's start

by hand     torch alone: forward, cross entropy, backward, clipping, fused AdamW, a learning rate a step; batches lie ready
Trainer     transformers' own with the same optimizer and clipping; left out, and told so, where `accelerate` is missing
ours        a round of LocalTraining, each batch drawn from the token file when its step comes; deterministic, as always

All take turns, --repeats times; the first step of each turn does not count. `ratio` is ours to theirs, the median over turns,
by elapsed time and by the processor's (which other work on the machine disturbs less; of no use with a GPU). `loading` is the
share of our time that drawing batches takes. `start-up` is from starting a worker process to its hello, beside a process that
imports torch: elapsed, and the processor's time of the whole process.
"""

from __future__ import annotations

import argparse
import os
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from measuring import output

from common.errors import LLMasOSError
from common.plan.model import Plan
from llmasos.models.build import build_model
from llmasos.simulation.stdlib_corpus import copy_institution
from llmasos.tasks.causal_lm import TOKENS
from llmasos.tokenizers import bytes_tokenizer, save, vocab_size_of
from llmasos.training.corpus import Corpus, Source, prepare_corpus
from llmasos.training.device import Machine, set_up
from llmasos.training.loop import LocalTraining, RoundWork
from llmasos.training.schedule import learning_rate, total_steps

SEED = 7
UNCOUNTED_STEPS = 1
HAND, TRAINER, OURS = "by hand", "Trainer", "ours"
TO_REACH = {HAND: 0.95, TRAINER: 1.0}
MOST_START_UP = 1.5


@dataclass
class Turn:
    """Elapsed and processor's seconds at the end of each step."""

    device: torch.device
    elapsed: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def mark(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.elapsed.append(time.perf_counter())
        self.processor.append(time.process_time())

    @property
    def seconds_a_step(self) -> tuple[float, float]:
        """Elapsed and processor's, without the first steps."""
        counted = len(self.elapsed) - UNCOUNTED_STEPS
        first = UNCOUNTED_STEPS - 1
        return (
            (self.elapsed[-1] - self.elapsed[first]) / counted,
            (self.processor[-1] - self.processor[first]) / counted,
        )


class Bench:
    """One plan, one corpus, and each contestant's own copy of the initial model."""

    def __init__(self, plan: Plan, corpus: Corpus, machine: Machine) -> None:
        self.plan, self.corpus, self.machine = plan, corpus, machine
        self.drawing_seconds = self.training_seconds = 0.0
        local = plan.local
        self._batches = [self._draw(step) for step in range(local.steps)]
        self._ours = LocalTraining(plan, self._model(), machine)
        self._hand = self._model().to(machine.device)
        self._adamw = torch.optim.AdamW(
            self._hand.parameters(),
            betas=(float(local.optimizer.beta1), float(local.optimizer.beta2)),  # type: ignore[union-attr]
            eps=float(local.optimizer.epsilon),  # type: ignore[union-attr]
            weight_decay=float(local.optimizer.weight_decay),  # type: ignore[union-attr]
            fused=True,
        )
        self._trainers = self._model() if find_spec("accelerate") is not None else None

    @property
    def contestants(self) -> dict[str, Callable[[], Turn]]:
        named = {HAND: self._by_hand, TRAINER: self._trainer, OURS: self._our_round}
        return {name: run for name, run in named.items() if name != TRAINER or self._trainers is not None}

    def _model(self) -> torch.nn.Module:
        return build_model(self.plan.model, vocab_size=vocab_size_of(bytes_tokenizer()), seed=self.plan.seed)

    def _draw(self, step: int) -> torch.Tensor:
        return torch.from_numpy(self.corpus.batch(seed=SEED, step=step)[TOKENS])

    def _our_round(self) -> Turn:
        turn = Turn(self.machine.device)

        def draw(step: int) -> Any:
            began = time.perf_counter()
            batch = self.corpus.batch(seed=SEED, step=step)
            self.drawing_seconds += time.perf_counter() - began
            return batch

        began = time.perf_counter()
        self._ours.run_round(RoundWork(trained_rounds=0, seed=SEED), draw, lambda boundary: turn.mark())
        self.training_seconds += time.perf_counter() - began
        return turn

    def _by_hand(self) -> Turn:
        turn, local, device = Turn(self.machine.device), self.plan.local, self.machine.device
        self._hand.train()
        for step, batch in enumerate(self._batches):
            for group in self._adamw.param_groups:
                group["lr"] = learning_rate(local, global_step=step, total=total_steps(self.plan))
            tokens_BT = batch.to(device)
            self._adamw.zero_grad(set_to_none=True)
            with self.machine.autocast(local.precision):
                logits_BTV = self._hand(input_ids=tokens_BT[:, :-1]).logits
                loss = torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), tokens_BT[:, 1:].flatten())
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self._hand.parameters(), float(local.max_gradient_norm))
            self._adamw.step()
            turn.mark()
        return turn

    def _trainer(self) -> Turn:
        from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

        turn, local = Turn(self.machine.device), self.plan.local

        class Marks(TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, *arguments: Any, **more: Any) -> None:
                turn.mark()

        rows = [{"input_ids": row[:-1], "labels": row[:-1]} for batch in self._batches for row in batch]
        with TemporaryDirectory(prefix="llmasos-trainer-") as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=local.batch_size,
                max_steps=local.steps,
                learning_rate=float(local.optimizer.learning_rate),
                weight_decay=0.1,
                adam_beta2=0.95,
                lr_scheduler_type="cosine",
                warmup_steps=10,
                max_grad_norm=float(local.max_gradient_norm),
                optim="adamw_torch_fused",
                bf16=local.precision == "bfloat16" and self.machine.has_bfloat16,
                use_cpu=self.machine.kind == "cpu",
                logging_strategy="no",
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                dataloader_pin_memory=self.machine.kind == "cuda",
                remove_unused_columns=False,
            )
            assert self._trainers is not None
            trainer = Trainer(model=self._trainers, args=arguments, train_dataset=rows, callbacks=[Marks()])
            trainer.remove_callback(PrinterCallback)  # standard output is for the result
            trainer.train()
        return turn


def take_turns(bench: Bench, repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds a step, elapsed and processor's, of each contestant in each turn."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in bench.contestants}
    for _ in range(repeats):
        for name, run in bench.contestants.items():
            # Determinism is what ours promises and the others do not: they may have what is faster.
            torch.use_deterministic_algorithms(name == OURS)
            found[name].append(run().seconds_a_step)
    torch.use_deterministic_algorithms(True)
    return found


def compared(seconds: Mapping[str, Sequence[tuple[float, float]]], tokens_a_step: int) -> list[dict[str, Any]]:
    """A row for each contestant: tokens a second, and how fast ours is beside it, turn by turn."""
    rows = []
    for name, turns in seconds.items():
        ratios = [
            statistics.median(theirs[clock] / ours[clock] for theirs, ours in zip(turns, seconds[OURS], strict=True))
            for clock in (0, 1)
        ]
        rate = tokens_a_step / statistics.median(elapsed for elapsed, _ in turns)
        rows.append({"name": name, "tokens_per_second": rate, "ratio": ratios[0], "ratio_processor": ratios[1]})
    return rows


# --- start-up ------------------------------------------------------------------------------------------------------------


def start_up(repeats: int) -> dict[str, float]:
    """Median seconds: of a worker from its start to its hello, and of a process that imports torch and ends."""
    took: dict[str, list[float]] = {name: [] for name in ("worker", "import_torch", "worker_cpu", "import_torch_cpu")}
    for _ in range(repeats):
        for name, run in (("import_torch", _seconds_to_import), ("worker", _seconds_to_hello)):
            before = _children_seconds()
            took[name].append(run())
            took[f"{name}_cpu"].append(_children_seconds() - before)
    middle = {name: statistics.median(seconds) for name, seconds in took.items()}
    return {
        "worker_seconds": middle["worker"],
        "import_torch_seconds": middle["import_torch"],
        "ratio": middle["worker"] / middle["import_torch"],
        "ratio_processor": middle["worker_cpu"] / middle["import_torch_cpu"],
    }


def _children_seconds() -> float:
    """Processor's time of all processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _seconds_to_import() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-P", "-c", "import torch"], check=True)
    return time.perf_counter() - began


def _seconds_to_hello() -> float:
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="lw", dir="/tmp"))  # a Unix socket's path must be short
        server = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        server.bind(f"{folder}/s")
        server.listen(1)
        ours, theirs = os.pipe()
        began = time.perf_counter()
        words = ["--socket", f"{folder}/s", "--lifeline-fd", str(ours)]
        child = subprocess.Popen([sys.executable, "-P", "-m", "participant.worker", *words], pass_fds=[ours])
        try:
            connection = stack.enter_context(server.accept()[0])
            hello = stack.enter_context(connection.makefile("rb")).readline()
            seconds = time.perf_counter() - began
            if b'"hello"' not in hello:
                raise SystemExit(f"the worker said {hello!r}, expected hello")
        finally:
            os.close(theirs)  # ends it
            os.close(ours)
            child.wait()
    return seconds


# --- what is told --------------------------------------------------------------------------------------------------------


def table(found: Mapping[str, Any]) -> str:
    """For people."""
    rows = [
        [
            row["name"],
            f"{row['tokens_per_second']:,.0f}",
            f"{row['ratio']:.3f}",
            f"{row['ratio_processor']:.3f}",
            f"{TO_REACH[row['name']]:.2f}" if row["name"] in TO_REACH else "",
        ]
        for row in found["rows"]
    ]
    lines = [
        f"{found['parameters']:,} parameters, {found['tokens_a_step']:,} tokens a step, {found['device']}, "
        f"{found['threads']} threads, {found['precision']}, {found['repeats']} turns of {found['steps']} steps",
        output.columns(["", "tokens/s", "ratio", "ratio\n(processor)", "to reach"], rows),
        f"loading takes {100 * found['loading']:.2f} % of our time",
    ]
    if not any(row["name"] == TRAINER for row in found["rows"]):
        lines.append("Trainer: not measured, since `accelerate` is not installed (pip install accelerate)")
    if found["start_up"] is not None:
        took = found["start_up"]
        lines.append(
            f"start-up: {took['worker_seconds']:.2f} s to hello, {took['import_torch_seconds']:.2f} s to import torch, "
            f"ratio {took['ratio']:.2f} ({took['ratio_processor']:.2f} by the processor), to reach {MOST_START_UP}"
        )
    return "\n".join(lines)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = output.parser(__doc__)
    parser.add_argument("--n-layer", type=int, default=4)
    parser.add_argument("--n-embd", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--sequence-length", type=int, default=128)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--steps", type=int, default=12, help="of a turn")
    parser.add_argument("--repeats", type=int, default=7, help="turns")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cuda", action="store_true", help="on the GPU")
    parser.add_argument("--no-start-up", dest="start_up", action="store_false")
    given = parser.parse_args(arguments)
    if given.quick:
        given.n_layer, given.n_embd, given.steps, given.repeats = 2, 64, 4, 2
    if given.steps <= UNCOUNTED_STEPS or given.repeats < 1:
        parser.error(f"--steps must be above {UNCOUNTED_STEPS}, --repeats above 0")
    return given


def plan_of(given: argparse.Namespace) -> Plan:
    length = given.sequence_length
    return Plan.model_validate(
        {
            "apiVersion": "llmasos/v1",
            "name": "training",
            "model": {
                "type": "gpt2",
                "n_layer": given.n_layer,
                "n_head": 2,
                "n_embd": given.n_embd,
                "n_positions": length,
            },
            "local": {
                "steps": given.steps,
                "batch_size": given.batch_size,
                "sequence_length": length,
                "precision": given.precision,
            },
        }
    )


def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything that was asked for."""
    plan, machine = plan_of(given), set_up(given.threads, allow_cuda=given.cuda)
    save(bytes_tokenizer(), folder / "tokenizer.json")
    source = Source(copy_institution("tools", folder / "text"))
    with prepare_corpus([source], folder / "tokenizer.json", folder / "tokens", plan) as corpus:
        bench = Bench(plan, corpus, machine)
        tokens = plan.local.batch_size * plan.local.sequence_length
        rows = compared(take_turns(bench, given.repeats), tokens)
        loading = bench.drawing_seconds / bench.training_seconds
        parameters = sum(weight.numel() for weight in bench._model().parameters())
    return {
        "parameters": parameters,
        "tokens_a_step": tokens,
        "steps": given.steps,
        "repeats": given.repeats,
        "device": machine.name,
        "threads": given.threads,
        "precision": given.precision,
        "deviations": machine.deviations(given.precision),
        "rows": rows,
        "loading": loading,
        "start_up": start_up(1 if given.quick else 5) if given.start_up else None,
    }


def plot(found: Mapping[str, Any]) -> str:
    """Tokens a second, a bar each."""
    from llmasos.simulation.svg import Bars, bar_chart

    bars = [(row["name"], row["tokens_per_second"], at) for at, row in enumerate(found["rows"])]
    return bar_chart([Bars("tokens/s", bars)], title="Local training beside a hand-written loop and Trainer")


def main(arguments: Sequence[str] | None = None) -> int:
    given = parse_arguments(arguments)
    try:
        with TemporaryDirectory(prefix="llmasos-training-") as temporary:
            found = measure(given, Path(temporary))
    except LLMasOSError as err:
        return output.failed(err)
    output.deliver(given, found, table, plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
