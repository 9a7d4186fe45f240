"""What institutions hold out of their data, measured by everything that the task has: for those who may see the data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from common.plan.model import Plan
from llmasos.datasets.loading import Split, load_dataset

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from llmasos.evaluation.measured import Evaluation

HELD_OUT = "held-out"


def held_out_split(
    data: Path, tokenizer: Tokenizer, plan: Plan, *, text_column: str | None = None, unit_field: str | None = None
) -> Split:
    """What the plan holds out of one institution's data: which side a record is on follows from content and the plan's seed.

    Args:
        text_column, unit_field: as the institution's data set has them.

    Raises:
        UsageError, TooLittleData, UnreadableData, StorageFailure: as load_dataset.
    """
    loaded = load_dataset(
        data,
        tokenizer,
        task=plan.task,
        validation=float(plan.evaluation.held_out_fraction),
        test=0,
        seed=plan.seed,
        text_column=text_column,
        unit_field=unit_field,
    )
    return replace(loaded.validation, name=HELD_OUT)


def measure_institutions(model: torch.nn.Module, parts: Iterable[tuple[str, Split]], plan: Plan) -> Evaluation:
    """Each institution's split under its name among `languages`, and all pooled; at most the plan's evaluation.max_tokens
    targets of each.

    Args:
        parts: taken one after the other, so that the model may change in between: personal layers.
    """
    from llmasos.evaluation.measure import MeasureOptions, measure_parts

    return measure_parts(model, HELD_OUT, parts, plan, MeasureOptions())
