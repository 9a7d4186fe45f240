"""A model folder measured on a plan's task: what `llmasos evaluate --plan` prints.

found = evaluate_task(Path("out/demo/model"), Path("held-out"), load_plan(Path("plan.yaml")))
found.loss, found.accuracy, found.scores["macro_f1"]
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.plan.model import Plan
from llmasos.extras import require_train

if TYPE_CHECKING:
    from llmasos.language_model.measuring import Evaluation


def evaluate_task(
    model_dir: Path, data: Path, plan: Plan, *, text_column: str | None = None, batch_size: int = 16, threads: int = 1
) -> Evaluation:
    """Measure the model on all documents or records of `data`, read as the plan's task reads them.

    Args:
        plan: its task and its `local.sequence_length` count, nothing else.

    Raises:
        UsageError: no such model or folder, or the model ends in another head than the task needs.
        TooLittleData, UnreadableData, StorageFailure: about the data.
        WorkerFailed: the model's loss is not finite.
        MissingExtra: torch, transformers or tokenizers are not installed.
    """
    require_train("torch", "transformers", "tokenizers", task="evaluate a model")
    from llmasos.datasets import load_dataset
    from llmasos.models import load
    from llmasos.training.device import set_up

    machine = set_up(threads)
    model = load(model_dir)
    everything = load_dataset(
        data, model.tokenizer, task=plan.task, validation=0, test=0, text_column=text_column
    ).train
    module: Any = model.module
    module.to(machine.device)
    found = model.evaluate(everything, batch_size=batch_size, sequence_length=plan.local.sequence_length)
    return replace(found, split="all")
