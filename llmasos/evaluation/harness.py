"""Tasks of lm-eval (EleutherAI's evaluation harness) from local files, for a model folder. Extra `lm-eval`.

    run_tasks(Path("out/demo/model"), Path("tasks"))      # {"copa-local": {"acc,none": 0.61, "acc_stderr,none": 0.04}}

The folder holds lm-eval's task YAML files; their `data_files` are relative to it. Nothing is fetched: a task whose data set is
a name on a hub is an error. A task file is a program, since it may name Python functions and has templates: run only your own.

Source: L. Gao et al., "A framework for few-shot language model evaluation", doi:10.5281/zenodo.12608602.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from common.errors import OperationError, UsageError
from llmasos.extras import require_extra, require_train
from llmasos.models.prompts import virtual_tokens

BOOTSTRAP = 1000


@dataclass(frozen=True, slots=True)
class TaskScores:
    """One task: its version, how many examples, and numbers under lm-eval's own names, `METRIC,FILTER`."""

    version: str
    examples: int
    numbers: Mapping[str, float]


def run_tasks(
    model_dir: Path, tasks: Path, *, limit: int | None = None, batch_size: int = 16, threads: int = 1
) -> dict[str, TaskScores]:
    """Scores of all tasks in the folder `tasks`, by name.

    Args:
        limit: only so many examples of each task.

    Raises:
        UsageError: no such model, or a folder without a task.
        OperationError: lm-eval cannot run a task; holds what it says.
        MissingExtra: lm-eval, torch or transformers is not installed.
    """
    require_train("torch", "transformers", "tokenizers", task="run lm-eval tasks")
    require_extra("lm-eval", "lm_eval", task="run lm-eval tasks")
    if not tasks.is_dir():
        raise UsageError(f"{tasks} is no folder of lm-eval tasks: it does not exist, or cannot be opened.")
    from llmasos.generation import load_module
    from llmasos.training.device import set_up

    machine = set_up(threads)
    model: Any = load_module(model_dir)
    model.to(machine.device)
    with _private_cache():
        from lm_eval.tasks import TaskManager

        folder = tasks.resolve()
        try:
            manager = TaskManager(include_path=str(folder), include_defaults=False)
            if not manager.all_tasks:
                raise UsageError(
                    f"{tasks} holds no lm-eval task.",
                    "Put a YAML file there that names task, dataset_path and output_type.",
                )
            lm = _language_model(model, model_dir, batch_size, machine.kind)
            with chdir(folder):
                found = _evaluate(manager, lm, limit)
        except UsageError:
            raise
        except Exception as err:  # the harness raises whatever its YAML, data sets and templates raise
            reason = str(err).splitlines()[0][:300] if str(err) else type(err).__name__
            raise OperationError(
                f"lm-eval cannot run the tasks in {tasks}: {type(err).__name__}: {reason}",
                "Correct the named task; data sets must be local: dataset_path json, csv or text with data_files.",
            ) from err
    return {name: _task_scores(name, found) for name in sorted(found["results"])}


def _language_model(model: Any, model_dir: Path, batch_size: int, device: str) -> Any:
    from lm_eval.models.huggingface import HFLM
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(model_dir, local_files_only=True)
    virtual = virtual_tokens(model)
    room = model.config.max_position_embeddings - virtual if virtual else None  # None: as long as the model's context
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, device=device, max_length=room)


def _evaluate(manager: Any, lm: Any, limit: int | None) -> dict[str, Any]:
    """Not its simple_evaluate, which asks git and pip about this machine."""
    import lm_eval

    found = lm_eval.evaluate(
        lm, manager.load(manager.all_tasks), limit=limit, bootstrap_iters=BOOTSTRAP, log_samples=False
    )
    return dict(found)


def _task_scores(name: str, found: Mapping[str, Any]) -> TaskScores:
    numbers = {
        key: float(value)
        for key, value in found["results"][name].items()
        if "," in key and isinstance(value, int | float)
    }
    samples = found.get("n-samples", {}).get(name, {})
    return TaskScores(str(found.get("versions", {}).get(name, "")), int(samples.get("effective", 0)), numbers)


@contextmanager
def _private_cache() -> Iterator[None]:
    """What the package datasets makes of the tasks' files is removed with the run; it keeps a copy for ever otherwise."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    os.environ["DISABLE_TQDM"] = os.environ["TQDM_DISABLE"] = "1"
    with TemporaryDirectory(prefix="llmasos-lm-eval-") as folder:
        import datasets

        before = datasets.config.HF_DATASETS_CACHE
        datasets.config.HF_DATASETS_CACHE = Path(folder)
        datasets.disable_progress_bars()
        try:
            yield
        finally:
            datasets.config.HF_DATASETS_CACHE = before
