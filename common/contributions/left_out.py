"""What a round would have come to without one delta, and what that does to the loss on given text (leave one out).

    model of the round                    measured once
    for each institution:  reduce_round(everybody else's deltas, same weights, same base, same server_state)   measured

The rule decides anew over the others, exactly as in a round to which that institution had not contributed. Who measures is the
caller's: torch is not imported here. Models are written to a file of their own, one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from common.blobs.reader import BlobStream
from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.contributions.figures import RoundFigures, Row
from common.errors import BlobError, ImplausibleWeight, ModelOverflow, UsageError, WrongDeltaCount
from common.ledger.state import RoundRecord, RunRecord
from common.reduce import Beside, reduce_round
from common.verify.material import Blobs
from common.verify.rounds import NOT_HELD, in_words, lacking_inputs, round_job

Measure = Callable[[Path], float]
"""Mean loss of the model in that file, nats a token."""


def expect_measurable(run: RunRecord) -> None:
    """
    Raises:
        UsageError: the plan's rounds cannot be taken without one delta, or their models not be measured alone.
    """
    plan = run.statement.plan
    if plan.rule.type == "operator":
        raise UsageError(
            f"The rule of {run.run} is the operator's own: a round cannot be computed again without one delta.",
            "Leave --evaluate out.",
        )
    if plan.personal:
        raise UsageError(
            f"The plan of {run.run} keeps layers personal: its shared model is whole only beside an institution's own.",
            "Leave --evaluate out.",
        )


def with_effects(
    run: RunRecord, record: RoundRecord, figures: RoundFigures, blobs: Blobs, measuring: tuple[Measure, Path]
) -> RoundFigures:
    """The rows with each institution's effect, where its round can be computed without it.

    Args:
        measuring: what measures a model, and a file that is written over for each, and left behind.

    Raises:
        BlobError: an input came to harm.
        OSError: the file cannot be written.
    """
    closed = record.closed
    if closed is None:
        raise ValueError(f"round {record.number} is not closed")
    if not (lacking := _lacking(record, closed.outputs.model, blobs)):
        try:
            return _measured(run, record, figures, blobs, measuring)
        except BlobError:
            if not (lacking := _lacking(record, closed.outputs.model, blobs)):  # else retention gave it up meanwhile
                raise
    why = in_words(lacking)
    return replace(figures, rows=tuple(replace(row, effect_lacking=why) for row in figures.rows))


def _lacking(record: RoundRecord, model: BlobRef, blobs: Blobs) -> Mapping[str, tuple[str, ...]]:
    lacking = lacking_inputs(record, blobs)
    return lacking if lacking or blobs.contains(model) else {NOT_HELD: ("the new model",)}


def _measured(
    run: RunRecord, record: RoundRecord, figures: RoundFigures, blobs: Blobs, measuring: tuple[Measure, Path]
) -> RoundFigures:
    if record.closed is None:
        raise ValueError(f"round {record.number} is not closed")
    measure, path = measuring
    with blobs.open(record.closed.outputs.model) as reader, path.open("wb") as file:
        stream = BlobStream(reader)
        while piece := stream.take(CHUNK_BYTES):
            file.write(piece)
    loss = measure(path)
    rows = tuple(_with_effect(run, record, blobs, row, loss, measuring) for row in figures.rows)
    return replace(figures, rows=rows, loss=loss)


def _with_effect(
    run: RunRecord, record: RoundRecord, blobs: Blobs, row: Row, loss: float, measuring: tuple[Measure, Path]
) -> Row:
    measure, path = measuring
    try:
        model_without(run, record, blobs, row.institution, path)
    except (WrongDeltaCount, ImplausibleWeight, ModelOverflow) as err:
        return replace(row, effect_lacking=err.message)
    return replace(row, effect=measure(path) - loss)


def model_without(run: RunRecord, record: RoundRecord, blobs: Blobs, institution: str, path: Path) -> None:
    """Write the model that the round's other deltas give.

    Raises:
        WrongDeltaCount: the rule needs more deltas than are left.
        ImplausibleWeight: none is left.
        ModelOverflow: the others give no finite model.
        BlobError: an input is missing or came to harm.
    """
    plan = run.statement.plan
    beside = Beside(_nowhere if plan.downlink else None, _nowhere if plan.leaves_server_state else None)
    with round_job(run, record, blobs, without=institution) as job, path.open("wb") as file:
        reduce_round(job, file.write, beside)


def _nowhere(_: memoryview) -> None:
    """Only the model is of use."""
