"""`verify`: the whole of it, one line a section of docs/protocol.md#verify."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from common.errors import UnknownObject
from common.ledger.state import LedgerState, RunRecord
from common.verify.blobs import check_blobs
from common.verify.checkpoints import check_witnesses
from common.verify.history import check_genesis, check_pins, replay
from common.verify.lineage import check_lineage, check_lineages
from common.verify.material import Material, Watching, tree_in
from common.verify.own import check_own
from common.verify.report import Check, Report
from common.verify.rounds import check_rounds
from common.verify.times import check_times


def verify(
    material: Material,
    *,
    run: str | None = None,
    also: Sequence[Callable[[LedgerState], Check]] = (),
    watching: Watching | None = None,
) -> Report:
    """Everything that can be found out from `material`; a history that breaks off is judged as far as it goes.

    Args:
        run: a run's id, or a unique beginning of it; None: all runs.
        also: further checks, for those who hold more than statements and blobs.

    Raises:
        UnknownObject: there is no such run, or several begin so.
    """
    watching = watching or Watching()
    consortium, fingerprint, genesis = check_genesis(material.envelopes, material.fingerprint)  # #verify-genesis
    history = replay(material.envelopes, watching.entry)  # #verify-history
    tree = tree_in(material)
    checks: list[Check] = [genesis, history.check]
    if history.state is not None:
        runs = _runs(history.state, run)
        if material.pins is not None:
            checks.append(check_pins(history.state, history.changes, material.pins))  # #verify-keys
        witnessed = check_witnesses(
            (history.state, history.changes), tree, material.checkpoints, runs, sealed=material.sealed
        )
        checks.append(witnessed.check)  # #verify-witnesses
        checks.append(check_times(history.changes, witnessed.cosigned))  # #verify-times
        if history.state.lineages:
            checks.append(check_lineages(history.state))  # #verify-lineage
        if material.own is not None:
            checks.append(check_own(material.own, runs))  # #verify-own
        checks += [check(history.state) for check in also]
        if material.blobs is not None:
            checks.append(check_blobs(runs, material.blobs))  # #verify-blobs
        for record in runs:
            checks.append(check_rounds(record, material.blobs, watching.round))  # #verify-rounds
            checks.append(check_lineage(record))  # #verify-lineage
    return Report(consortium, fingerprint, len(material.envelopes), tree.head().root.hex(), tuple(checks))


def _runs(state: LedgerState, run: str | None) -> list[RunRecord]:
    if run is None:
        return list(state.runs.values())
    names = [run] if run in state.runs else [name for name in state.runs if run and name.startswith(run)]
    if len(names) != 1:
        known = ", ".join(state.runs) or "none"
        raise UnknownObject(f"{len(names)} runs of this ledger begin with {run!r}; runs here: {known}.")
    return [state.runs[names[0]]]
