"""A committed round's rows: what each delta weighed, how long it was, and how it lay to what the round added to the model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace

from common.blobs.reader import BlobReader
from common.blobs.reference import BlobRef
from common.codecs import codec
from common.errors import CorruptChunk, MissingBlob, TruncatedChunk
from common.ledger.staleness import weights
from common.ledger.state import RoundRecord, RunRecord
from common.reduce.moved import Models, Movement, compare
from common.verify.material import Blobs
from common.verify.rounds import NOT_HELD, Fetching


@dataclass(frozen=True, slots=True)
class Row:
    """One institution's part of one round."""

    round: int
    institution: str
    num_tokens: int
    share: float
    """Of the weights of the round's used deltas; 0 to 1."""
    l2: float | None = None
    """Norm of the delta, same unit as the weights."""
    cosine: float | None = None
    """Between the delta and what the round added to the model; None where either is zero."""
    lacking: str = ""
    """Why norm and cosine are not there."""
    effect: float | None = None
    """Mean loss on the given text, nats a token, without this delta minus with it: above zero, it helped."""
    effect_lacking: str = ""
    """Why an effect that was asked for is not there."""


@dataclass(frozen=True, slots=True)
class RoundFigures:
    """A round. `step_l2`: norm of what it added to the model; `loss`: of its model on the given text, nats a token."""

    round: int
    rule: str
    rows: tuple[Row, ...]
    step_l2: float | None = None
    loss: float | None = None


def round_figures(
    run: RunRecord, record: RoundRecord, blobs: Blobs, wanted: Collection[str] | None = None
) -> RoundFigures:
    """Rows of a committed training round, in ascending bytewise order of institutions.

    Args:
        blobs: what is lacking is brought where it can be; a row whose delta does not come says why.
        wanted: whose rows; None: everybody's. Shares are of all used deltas in any case.

    Raises:
        BlobError, DeltaError: a blob that is here is not what the ledger says.
    """
    if record.closed is None:
        raise ValueError(f"round {record.number} is not closed")
    weighed, tokens = weights(run, record), {entry.institution: entry.num_tokens for entry in record.closed.inputs}
    names = [name for name in weighed if wanted is None or name in wanted]
    try:
        found = _compared(run, record, blobs, names)
    except (CorruptChunk, TruncatedChunk):
        if blobs.contains(record.opened.inputs.model) and all(blobs.contains(ref) for ref in _deltas(record, names)):
            raise
        found = _Compared(dict.fromkeys(names, "given up while it was read"))
    finally:
        if isinstance(blobs, Fetching):
            blobs.let_go()
    total, rows = sum(weighed.values()), []
    for name in names:
        row = Row(record.number, name, tokens[name], weighed[name] / total, lacking=found.lacking.get(name, ""))
        movement = found.deltas.get(name)
        rows.append(replace(row, l2=movement.l2, cosine=movement.cosine) if movement is not None else row)
    return RoundFigures(record.number, record.closed.rule, tuple(rows), found.step_l2)


@dataclass(frozen=True, slots=True)
class _Compared:
    """By institution: figures, or why there are none."""

    lacking: Mapping[str, str]
    deltas: Mapping[str, Movement] = field(default_factory=dict)
    step_l2: float | None = None


def _compared(run: RunRecord, record: RoundRecord, blobs: Blobs, names: Sequence[str]) -> _Compared:
    if record.closed is None or not names:
        return _Compared({})
    manifest = run.statement.manifest
    with ExitStack() as stack:
        base = _opened(blobs, record.opened.inputs.model, stack)
        model = _opened(blobs, record.closed.outputs.model, stack)
        if isinstance(base, str) or isinstance(model, str):
            why = f"base model {base}" if isinstance(base, str) else f"new model {model}"
            return _Compared(dict.fromkeys(names, why))
        deltas: dict[str, BlobReader] = {}
        lacking: dict[str, str] = {}
        for name, ref in zip(names, _deltas(record, names), strict=True):
            delta = _opened(blobs, ref, stack)
            if isinstance(delta, str):
                lacking[name] = f"delta {delta}"
            else:
                deltas[name] = delta
        moved = compare(Models(manifest, base, model), codec(run.statement.plan.codec), list(deltas.values()))
        return _Compared(lacking, dict(zip(deltas, moved.deltas, strict=True)), moved.step_l2)


def _deltas(record: RoundRecord, names: Sequence[str]) -> list[BlobRef]:
    return [record.contributions[name].contribution.blobs["delta"] for name in names]


def _opened(blobs: Blobs, ref: BlobRef, stack: ExitStack) -> BlobReader | str:
    """A blob, brought if need be, or why it is not to be had."""
    why = blobs.bring([ref]).get(ref) if isinstance(blobs, Fetching) else None
    if why is None and blobs.contains(ref):
        with suppress(MissingBlob):  # given up meanwhile
            return stack.enter_context(blobs.open(ref))
    return why or NOT_HELD
