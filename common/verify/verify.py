"""`verify`: the whole of it, one line a section of docs/protocol.md#verify."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from common.errors import UnknownObject
from common.ledger.merkle import leaf_hash, root
from common.ledger.state import LedgerState, RunRecord
from common.verify.history import check_genesis, check_pins, replay
from common.verify.lineage import check_lineage
from common.verify.material import Material, Watching
from common.verify.own import check_own
from common.verify.report import Check, Report
from common.verify.rounds import check_rounds


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
    checks: list[Check] = [genesis, history.check]
    if history.state is not None:
        if material.pins is not None:
            checks.append(check_pins(history.state, material.pins))  # #verify-keys
        runs = _runs(history.state, run)
        if material.own is not None:
            checks.append(check_own(material.own, runs))  # #verify-own
        checks += [check(history.state) for check in also]
        for record in runs:
            checks.append(check_rounds(record, material.blobs, watching.round))  # #verify-rounds
            checks.append(check_lineage(record))  # #verify-lineage
    return Report(consortium, fingerprint, len(material.envelopes), _root(material.envelopes), tuple(checks))


def _root(envelopes: Sequence[bytes]) -> str:
    leaves = (leaf_hash(hashlib.sha256, envelope) for envelope in envelopes)
    return root(hashlib.sha256, leaves).hex()


def _runs(state: LedgerState, run: str | None) -> list[RunRecord]:
    if run is None:
        return list(state.runs.values())
    names = [run] if run in state.runs else [name for name in state.runs if run and name.startswith(run)]
    if len(names) != 1:
        known = ", ".join(state.runs) or "none"
        raise UnknownObject(f"{len(names)} runs of this ledger begin with {run!r}; runs here: {known}.")
    return [state.runs[names[0]]]
