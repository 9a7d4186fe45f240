"""How fast a prepared plan trains on this machine, and how much memory it takes: a few steps of its own model on random tokens.

    measured = measure_plan(Path("prepared/tiny"), steps=3, threads=2)
    print(measured.seconds_per_step * plan.local.steps)

Time and memory depend on shapes, not on text, so nothing private is needed. Evaluation and transfers are not counted.
"""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from llmasos.extras import require_train
from llmasos.preparation import load_prepared
from llmasos.tokenizers import load

_KIBIBYTE = 1 if sys.platform == "darwin" else 1024
"""What getrusage counts in."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured. `steps` are those that count; one before them warmed up caches and is left out."""

    device: str
    threads: int
    steps: int
    parameters: int
    seconds_per_step: float
    tokens_per_second: float
    seconds_per_round: float
    """The plan's `local.steps` at that speed."""
    peak_memory_bytes: int
    """Of the whole process, its libraries included."""
    peak_device_bytes: int
    """Of the GPU's memory; 0 on a CPU."""


def measure_plan(folder: Path, *, steps: int, threads: int) -> Measured:
    """Train `steps` steps of a prepared plan after one to warm up, and throw the weights away.

    Args:
        steps: at least 1.
        threads: of CPU arithmetic, as a participant's configuration gives them.

    Raises:
        NotInitialised, InvalidConfiguration, BadBlobReference: the prepared folder is not whole.
        MissingExtra: torch is not installed.
        NonFiniteDelta: the plan's numbers overflow already in its first steps.
    """
    require_train("torch", "transformers", "tokenizers", task="measure a plan")
    import torch

    from llmasos.models.build import model_of
    from llmasos.tasks.registry import recipe_of
    from llmasos.training.device import set_up
    from llmasos.training.loop import LocalTraining, RoundWork, StepDone

    prepared = load_prepared(folder)
    plan = prepared.draft.plan
    tokenizer = load(prepared.tokenizer)
    recipe = recipe_of(plan, tokenizer)
    machine = set_up(threads)
    model = model_of(plan, tokenizer)
    training = LocalTraining(plan, model, machine)
    training.anchor({entry.name for entry in prepared.draft.manifest if entry.group == "trainable"})
    boundaries: list[float] = []

    def at_boundary(_: StepDone) -> None:
        if machine.kind == "cuda":
            torch.cuda.synchronize()
        boundaries.append(time.perf_counter())

    work = RoundWork(trained_rounds=0, seed=plan.seed, steps=steps + 1)
    training.run_round(work, recipe.sample, at_boundary)
    seconds = (boundaries[-1] - boundaries[0]) / steps
    return Measured(
        device=machine.name,
        threads=threads,
        steps=steps,
        parameters=sum(tensor.elements for tensor in prepared.draft.manifest),
        seconds_per_step=seconds,
        tokens_per_second=plan.local.batch_size * plan.local.sequence_length / seconds,
        seconds_per_round=seconds * plan.local.steps,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIBIBYTE,
        peak_device_bytes=int(torch.cuda.max_memory_allocated()) if machine.kind == "cuda" else 0,
    )
