"""What verification asks of a bundle besides what it asks of any ledger (docs/protocol.md#verify-evidence)."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from hashlib import sha256

from common.errors import MalformedStatement, RefusalError
from common.evidence.bundle import Bundle
from common.evidence.format import Measured, claimed_head
from common.ledger.heads import log_key
from common.ledger.merkle import TreeHead
from common.ledger.notes import NoteKey, parse_note, read_checkpoint
from common.ledger.state import Contributed, LedgerState, Lineage
from common.verify.blobs import named_blobs
from common.verify.report import Check, Finding, Outcome, Report

LOG = "log"


def bundle_checks(bundle: Bundle) -> tuple[Callable[[LedgerState], Check], ...]:
    """For `verify`'s `also`."""
    checks: list[Callable[[LedgerState], Check]] = [partial(check_contents, bundle)]
    if bundle.conflicting:
        checks.append(partial(check_conflicting, bundle))
    return tuple(checks)


def check_contents(bundle: Bundle, state: LedgerState) -> Check:
    """Measurements are those that contributions commit to, and the ledger names every blob: nothing was slipped in."""
    contributed = {
        entry.place.digest: entry
        for run in state.runs.values()
        for record in run.rounds
        for entry in record.contributions.values()
    }
    judged = (_measured(each, contributed.get(digest)) for digest, each in bundle.metrics.items())
    findings = [found for found in judged if found is not None]
    named = {ref for run in state.runs.values() for _, _, ref in named_blobs(run)}
    for ref in bundle.blobs.refs:
        if ref not in named:
            findings.append(Finding(Outcome.FAILED, f"No statement in this file names its blob {ref}.", got=ref.root))
    entries = len(bundle.envelopes)
    covered = max((_size(note) for note in bundle.checkpoints), default=0)
    if covered < entries:
        which = f"Entry {covered} is" if covered == entries - 1 else f"Entries {covered} to {entries - 1} are"
        text = f"{which} in no checkpoint in this file: signatures alone say that nothing after was left out."
        findings.append(Finding(Outcome.GAPS, text, covered))
    question = "Is everything else in this file bound to the ledger?"
    examined = f"{len(bundle.metrics)} measurements, {len(bundle.blobs.refs)} blobs, {covered} entries in checkpoints"
    return Check("evidence", question, examined, tuple(findings))


def _measured(measured: Measured, entry: Contributed | None) -> Finding | None:
    if entry is None:
        text = "Measurements belong to no contribution in this file."
        return Finding(Outcome.FAILED, text, got=measured.contribution)
    found = sha256(measured.salt + measured.content).hexdigest()
    committed = entry.contribution.metrics_commitment or "no commitment"
    if hmac.compare_digest(committed, found):
        return None
    name = entry.contribution.institution
    text = f"The measurements beside the contribution of {name} are not those that it commits to."
    return Finding(Outcome.FAILED, text, entry.place.index, committed, found, name)


# --- two histories ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Judge:
    """Holds a note that is said to contradict against all that the log signed in this file."""

    bundle: Bundle
    log: NoteKey
    covered: int
    """How many entries of this history the log signed as such."""
    others: frozenset[TreeHead]
    lineages: tuple[Lineage, ...] = ()

    def judge(self, raw: bytes) -> Finding:
        try:
            head = read_checkpoint(parse_note(raw), self.log)
        except RefusalError as err:
            text = f"A note that is said to contradict this history is not the log's: {err.message} ({err.code})"
            return Finding(Outcome.FAILED, text, expected=f"signed by {self.log.name}")
        own = self._own(head)
        if own == head:
            text = f"A note of {head.size:,} entries is said to contradict this history, and is of it."
            return Finding(Outcome.FAILED, text, head.size - 1, "another root", head.root.hex())
        if own != head and any(each.gave_up(head) for each in self.lineages):
            text = f"The log signed {head.size:,} entries of a lineage that it gave up later, as this ledger says."
            return Finding(Outcome.GAPS, text, None, got=head.root.hex(), signer=LOG)
        if own is not None and head.size <= self.covered:
            text = f"The log signed two histories of {head.size:,} entries: this one, and another one."
            return Finding(Outcome.FAILED, text, head.size - 1, own.root.hex(), head.root.hex(), LOG)
        rival = next((each for each in self.others if each.size == head.size and each != head), None)
        if rival is not None:
            text = f"The log signed two histories of {head.size:,} entries, in two notes in this file."
            return Finding(Outcome.FAILED, text, head.size - 1, rival.root.hex(), head.root.hex(), LOG)
        text = (
            f"A note of {head.size:,} entries is not of this history, of which the log signed {self.covered:,} entries here: "
            "whose fault that is this file does not show."
        )
        return Finding(Outcome.FAILED, text, None, own.root.hex() if own else "", head.root.hex(), LOG)

    def _own(self, head: TreeHead) -> TreeHead | None:
        return self.bundle.tree.head(head.size) if head.size <= len(self.bundle.envelopes) else None


def check_conflicting(bundle: Bundle, state: LedgerState) -> Check:
    """Whether notes beside this history prove that the log signed two; that is what such a bundle is for, so it fails."""
    log = log_key(state.genesis)
    own = _signed(bundle.checkpoints, log) & {bundle.tree.head(_size(note)) for note in bundle.checkpoints}
    covered = max((head.size for head in own), default=0)
    judge = _Judge(bundle, log, covered, _signed(bundle.conflicting, log), state.lineages)
    question = "Did the log sign one history only?"
    examined = f"{len(bundle.conflicting)} notes that are said to contradict this history"
    return Check("histories", question, examined, tuple(judge.judge(raw) for raw in bundle.conflicting))


def _signed(notes: Iterable[bytes], log: NoteKey) -> frozenset[TreeHead]:
    """Heads of those notes that the log signed."""
    heads = set()
    for raw in notes:
        try:
            heads.add(read_checkpoint(parse_note(raw), log))
        except RefusalError:
            continue  # counts for nothing here; a finding of its own says so
    return frozenset(heads)


def _size(note: bytes) -> int:
    return claimed_head(parse_note(note)).size


# --- files that are no bundle -----------------------------------------------------------------------------------------


def refused_report(refusal: MalformedStatement) -> Report:
    """The report on a file that was not even read to its end: failed."""
    question = "Is this an evidence bundle, whole and in its one form?"
    finding = Finding(Outcome.FAILED, f"{refusal.message} ({refusal.code})")
    return Report("", "", 0, "", (Check("evidence", question, "the file", (finding,)),))
