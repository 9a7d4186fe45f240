"""The journal's own tables against the statements in them: whoever edits a row by hand is found here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from common.errors import RefusalError
from common.ledger.heads import log_key
from common.ledger.notes import parse_note, read_checkpoint
from common.ledger.state import LedgerState
from common.statements.envelope import UnverifiedStatement, parse
from common.statements.kinds import Answer, Contribution, signing_institution
from common.verify.report import Check, Finding, Outcome
from participant.memory.journal import Journal


def as_bytes(value: object) -> bytes:
    """A column's bytes: SQLite gives back whatever type a hand wrote."""
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


def check_journal(journal: Journal, institution: str, state: LedgerState) -> Check:
    """Places, digests, slots and sizes beside the statements and checkpoints are theirs."""
    findings = [*_ledger(journal), *_signed(journal, institution), *_checkpoints(journal, state)]
    question = "Do the journal's rows say what the statements in them say?"
    return Check("journal", question, "ledger, signed, checkpoints", tuple(findings))


def _ledger(journal: Journal) -> Iterator[Finding]:
    for expected, (position, digest, envelope) in enumerate(journal.rows("ledger")):
        if position != expected:
            yield _failed("The copy of the ledger lacks a row.", expected, str(expected), str(position))
            return
        statement = _statement(envelope)
        found = statement.digest if statement else "no statement"
        if found != digest or not isinstance(envelope, bytes):
            yield _failed("A row's digest is not its envelope's.", expected, found, str(digest))


def _signed(journal: Journal, institution: str) -> Iterator[Finding]:
    for slot, digest, envelope, metrics, salt, _ in journal.rows("signed"):
        where = f"What was signed for {slot}"
        statement = _statement(envelope)
        if statement is None or statement.digest != digest:
            yield _failed(
                f"{where} has another digest, or is no statement.", None, digest, statement.digest if statement else ""
            )
            continue
        said = statement.predicate
        if signing_institution(said) != institution:
            yield _failed(
                f"{where} is not a statement of {institution}.", None, institution, str(signing_institution(said))
            )
        if isinstance(said, Answer | Contribution) and slot != f"{statement.kind}/{statement.parent.digest}":
            yield _failed(
                f"{where} was signed for another slot.", None, f"{statement.kind}/{statement.parent.digest}", slot
            )
        commitment = said.metrics_commitment if isinstance(said, Contribution) else None
        kept = as_bytes(salt) + as_bytes(metrics)
        if kept and commitment is not None and hashlib.sha256(kept).hexdigest() != commitment:
            yield _failed(f"{where}: the metrics beside it are not those that it committed to.", None, commitment)


def _checkpoints(journal: Journal, state: LedgerState) -> Iterator[Finding]:
    log = log_key(state.genesis)
    for size, root, note, kind, _ in journal.rows("checkpoints"):
        try:
            head = read_checkpoint(parse_note(as_bytes(note)), log)
        except RefusalError as err:
            yield _failed(f"A checkpoint kept as {kind} is not the log's: {err.message} ({err.code})")
            continue
        if (head.size, head.root.hex()) != (size, root):
            yield _failed(
                f"A checkpoint kept as {kind} has another size or root than its row says.",
                None,
                str(head.size),
                str(size),
            )


def _statement(envelope: object) -> UnverifiedStatement | None:
    try:
        return parse(as_bytes(envelope))
    except RefusalError:
        return None


def _failed(text: str, leaf: int | None = None, expected: str = "", got: str = "") -> Finding:
    return Finding(Outcome.FAILED, text, leaf, expected, got)
