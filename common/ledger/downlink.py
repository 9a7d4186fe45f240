"""What the ledger says of outputs beside the model: how large they are, and which applied deltas lead from one to another.

round 3 closed: model 3 ── applied delta of 4 ──▶ model 4 ── applied delta of 6 ──▶ model 6      5 was abandoned
"""

from __future__ import annotations

from collections.abc import Callable

from common.blobs.reference import BlobRef
from common.ledger.state import RunRecord
from common.statements.kinds import PlanStatement
from common.tensors import changing_bytes, delta_size


def applied_delta_bytes(statement: PlanStatement) -> int | None:
    """Bytes of an applied delta; None where the plan has no downlink."""
    downlink = statement.plan.downlink
    if downlink is None:
        return None
    # Here: an agent whose plans need no numpy loads none.
    from common.codecs import CODECS

    return CODECS[downlink.type].encoded_size(statement.manifest)


def later_model_bytes(statement: PlanStatement, model_bytes: int) -> int:
    """Bytes that a later model takes as a blob for who holds an earlier one: the chunks that training changes, be it all."""
    return min(model_bytes, changing_bytes(statement.manifest))


def round_down_bytes(statement: PlanStatement, model_bytes: int) -> int:
    """Bytes that a round's base model takes for who holds the one before: an applied delta, or `later_model_bytes` if fewer;
    with SCAFFOLD also the server_state, which is its control variate."""
    later, applied = later_model_bytes(statement, model_bytes), applied_delta_bytes(statement)
    state = (server_state_bytes(statement) or 0) if statement.plan.corrects else 0
    return state + (later if applied is None else min(later, applied))


def contribution_bytes(statement: PlanStatement) -> int:
    """Bytes of the blobs of a contribution to a training round."""
    manifest = statement.manifest
    if statement.plan.corrects:
        return 2 * delta_size(manifest)  # delta and control, both as they are: such a plan has no other codec
    if statement.plan.codec.type == "float32":
        return delta_size(manifest)
    # Here: an agent whose plans need no numpy loads none.
    from common.codecs import codec

    return codec(statement.plan.codec).encoded_size(manifest)


def server_state_bytes(statement: PlanStatement) -> int | None:
    """Bytes of a server_state; None where rounds leave none."""
    if not statement.plan.leaves_server_state:
        return None
    # Here: an agent whose plans need no numpy loads none.
    from common.reduce.server_state import layout_of

    layout = layout_of(statement.plan, statement.manifest)
    return None if layout is None else layout.size


def way_to(
    run: RunRecord, model: BlobRef, held: Callable[[BlobRef], bool]
) -> tuple[BlobRef, tuple[BlobRef, ...]] | None:
    """The newest model that is held and leads to `model`, and the applied deltas on the way, in the order of their rounds.

    None where none is held, or where the applied deltas have together not fewer bytes than the model as a blob would take.
    """
    if run.statement.plan.downlink is None:
        return None
    most = later_model_bytes(run.statement, model.size)
    way: tuple[BlobRef, ...] = ()
    wanted = model
    for record in reversed(run.committed("train")):
        if record.closed is None or record.closed.outputs.model != wanted:
            continue
        if record.closed.outputs.applied_delta is None:
            return None
        way = (record.closed.outputs.applied_delta, *way)
        if sum(ref.size for ref in way) >= most:
            return None
        wanted = record.opened.inputs.model
        if held(wanted):
            return wanted, way
    return None


def useful_deltas(run: RunRecord) -> tuple[BlobRef, ...]:
    """The applied deltas that somebody may still fetch, newest first: together they have fewer bytes than a later model."""
    if run.statement.plan.downlink is None:
        return ()
    most = later_model_bytes(run.statement, run.model.size)
    found: list[BlobRef] = []
    total = 0
    for record in reversed(run.committed("train")):
        ref = record.closed.outputs.applied_delta if record.closed is not None else None
        if ref is None:
            break
        total += ref.size
        if found and total >= most:
            break
        found.append(ref)
    return tuple(found)
