"""What the ledger names and this home lacks: after a restore, blobs and metrics of entries that came back without them."""

from __future__ import annotations

from collections.abc import Iterator

from common.blobs.reference import BlobRef
from common.blobs.store import FolderBlobStore
from common.ledger.state import LedgerState, RunRecord
from coordinator.aggregation import kept_roots
from coordinator.store.database import Database


def needed_blobs(state: LedgerState) -> dict[BlobRef, str]:
    """Every blob that the ledger names and retention keeps, and who alone may hold it: a delta's contributor, else ""."""
    kept, _ = kept_roots(state)
    found: dict[BlobRef, str] = {}
    for run in state.runs.values():
        for ref in (run.statement.initial.tokenizer, run.statement.initial.model):
            found.setdefault(ref, "")
        for record in run.rounds:
            for ref in record.closed.outputs.blobs if record.closed is not None else ():
                found.setdefault(ref, "")
            for name, entry in record.contributions.items():
                for ref in entry.contribution.blobs.values():
                    found.setdefault(ref, name)
    return {ref: holder for ref, holder in found.items() if ref.root in kept}


def lacking_metrics(state: LedgerState, database: Database, first: int) -> dict[str, str]:
    """Contributions from entry `first` on whose metrics the plan lets travel and are not here: digest, institution."""
    found: dict[str, str] = {}
    for run in state.runs.values():
        if run.statement.plan.metrics_visibility == "none":
            continue
        known = database.metrics(run.run)
        for record in run.rounds:
            for name, entry in record.contributions.items():
                if entry.place.index >= first and entry.place.digest not in known:
                    found[entry.place.digest] = name
    return found


def lacking_in_words(state: LedgerState, store: FolderBlobStore) -> Iterator[str]:
    """What a run that goes on needs and nobody brought."""
    for run in state.active_runs:
        needed = [
            ("model", run.model),
            ("server_state", run.server_state),
            ("tokenizer", run.statement.initial.tokenizer),
        ]
        for name, ref in needed:
            if ref is not None and not store.contains(ref):
                yield f"the {name} of {run.run}, {ref}; {_way_on(run, store)}"
        current = run.open_round
        for name, entry in current.contributions.items() if current else ():
            for ref in entry.contribution.blobs.values():
                if not store.contains(ref):
                    yield (
                        f"the delta of {name} for round {entry.contribution.round} of {run.run}: the round will be abandoned, "
                        f"unless {name} brings it: its daemon does, or evidence export --with-deltas"
                    )


def _way_on(run: RunRecord, store: FolderBlobStore) -> str:
    """The newest round whose outputs are here."""
    for record in reversed(run.standing):
        outputs = record.closed.outputs if record.closed else None
        refs: list[BlobRef | None] = [outputs.model, outputs.server_state] if outputs else []
        if outputs is not None and all(ref is None or store.contains(ref) for ref in refs):
            return f"start, and: llmasos-coordinator run rollback {run.run} --to-round {record.number}"
    return f"start, and: llmasos-coordinator run rollback {run.run} --to-round 0"
