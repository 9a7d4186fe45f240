"""The coordinator's own tables against the ledger's projection: whoever edits a row by hand is found here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from common.blobs.reference import BlobRef
from common.errors import StorageFailure
from common.ledger.state import LedgerState
from common.verify.material import Blobs
from common.verify.report import Check, Finding
from coordinator.config import HomeLayout
from coordinator.rows.drafts import check_approvals, check_proposals
from coordinator.rows.ledger import check_ledger, check_schema
from coordinator.rows.log import check_checkpoints, check_genesis_file, check_head, check_tiles
from coordinator.rows.members import check_certificates, check_invitations
from coordinator.rows.reading import failed
from coordinator.rows.rounds import check_metrics, check_seals
from coordinator.store.database import Database

ROWS: Mapping[str, Callable[[Database, LedgerState], Iterable[Finding]]] = {
    "schema": check_schema,
    "ledger": check_ledger,
    "tiles": check_tiles,
    "checkpoints": check_checkpoints,
    "seals": check_seals,
    "metrics": check_metrics,
    "invitations": check_invitations,
    "certificates": check_certificates,
    "proposals": check_proposals,
    "approvals": check_approvals,
}
"""Who checks which table; a test holds these names equal to the database's."""


def check_tables(database: Database, state: LedgerState, *, home: HomeLayout | None = None) -> Check:
    """Every row beside the ledger says what the ledger says, and nothing more; so do a home's genesis.json and log.head."""
    findings = [finding for name in ROWS for finding in _rows(name, database, state)]
    if home is not None:
        findings += [*check_genesis_file(home.genesis, database), *check_head(home.log_head, database, state)]
    return Check("tables", "Do the coordinator's tables say what the ledger says?", ", ".join(ROWS), tuple(findings))


def _rows(name: str, database: Database, state: LedgerState) -> list[Finding]:
    try:
        return list(ROWS[name](database, state))
    except StorageFailure as err:
        return [
            failed(f"The table {name} cannot be read: a row in it is of a kind that no release wrote. {err.message}")
        ]


def check_kept_blobs(blobs: Blobs, state: LedgerState) -> Check:
    """What retention never gives up is there: each run's initial and newest model, and its tokenizer."""
    kept: dict[BlobRef, tuple[str, int]] = {}
    for run in state.runs.values():
        for what, ref in (
            ("initial model", run.statement.initial.model),
            ("tokenizer", run.statement.initial.tokenizer),
            ("newest model", run.model),
        ):
            kept.setdefault(ref, (f"The {what} of {run.run}", run.place.index))
    findings = [
        failed(f"{what} is not in the blob folder, or has another size there.", leaf, ref, "nothing")
        for ref, (what, leaf) in kept.items()
        if not blobs.contains(ref)
    ]
    return Check("kept", "Is every model there that is kept for ever?", f"{len(kept)} blobs", tuple(findings))
