"""The journal's own tables against the statements in them: whoever edits a row by hand is found here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from common.errors import BadSignature, RefusalError
from common.identity.keys import key_id
from common.ledger.heads import log_key
from common.ledger.notes import parse_note, read_checkpoint
from common.ledger.state import LedgerState
from common.statements.envelope import APPROVED_KINDS, UnverifiedStatement, parse, verify
from common.statements.form import open_envelope
from common.statements.kinds import Answer, Attestation, Contribution, PublicKey, Roster, signing_institution
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
    keys = _keys_of(journal, institution)
    for slot, digest, envelope, metrics, salt, _ in journal.rows("signed"):
        where = f"What was signed for {slot}"
        statement = _statement(envelope)
        if statement is None or statement.digest != digest:
            yield _failed(
                f"{where} has another digest, or is no statement.", None, digest, statement.digest if statement else ""
            )
            continue
        said, approved = statement.predicate, statement.kind in APPROVED_KINDS
        if not approved and signing_institution(said) != institution:
            yield _failed(f"{where} is not a statement of {institution}.", None, institution, signing_institution(said))
            continue
        own = f"approval/{statement.digest}" if approved else f"{statement.kind}/{statement.parent.digest}"
        if (approved or isinstance(said, Answer | Attestation | Contribution)) and slot != own:
            yield _failed(f"{where} was signed for another slot.", None, own, slot)
        yield from _author(where, statement, keys)
        commitment = said.metrics_commitment if isinstance(said, Contribution) else None
        kept = as_bytes(salt) + as_bytes(metrics)
        if kept and commitment is not None and hashlib.sha256(kept).hexdigest() != commitment:
            yield _failed(f"{where}: the metrics beside it are not those that it committed to.", None, commitment)


def _author(where: str, statement: UnverifiedStatement, keys: dict[str, PublicKey]) -> Iterator[Finding]:
    """A digest is the payload's alone: only the key tells whether the signature is still the one that was made."""
    author = next(iter(open_envelope(statement.envelope).signatures))
    try:
        if author not in keys:
            raise BadSignature(f"key {author[:16]}… is none that a roster names for it.")
        verify(statement, keys[author])
    except RefusalError as err:
        yield _failed(f"{where} does not bear this institution's signature: {err.message} ({err.code})", got=author)


def _keys_of(journal: Journal, institution: str) -> dict[str, PublicKey]:
    """Every signing key that a roster in the own copy ever named for this institution, by its id."""
    keys: dict[str, PublicKey] = {}
    for _, _, envelope in journal.rows("ledger"):
        statement = _statement(envelope)
        member = (
            statement.predicate.member(institution) if statement and isinstance(statement.predicate, Roster) else None
        )
        if member is not None:
            keys[key_id(member.signing_key)] = member.signing_key
    return keys


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
                head.size,
                size,
            )


def _statement(envelope: object) -> UnverifiedStatement | None:
    try:
        return parse(as_bytes(envelope))
    except RefusalError:
        return None


def _failed(text: str, leaf: int | None = None, expected: object = "", got: object = "") -> Finding:
    """Text of whatever a hand wrote into a column: a report is words, also as JSON."""
    return Finding(Outcome.FAILED, text, leaf, str(expected), str(got))
