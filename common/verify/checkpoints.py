"""Checkpoints: whatever the log signed is of this one history, and a majority of witnesses saw each round begin.

A checkpoint binds the log's key to one tree. So one that is not of the tree here proves, to whoever knows the log's key, that
two histories were signed; and a majority of cosignatures on this one leaves no majority for another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from common.errors import RefusalError
from common.ledger.heads import log_key
from common.ledger.merkle import TreeHead
from common.ledger.notes import Note, NoteKey, parse_note, read_checkpoint
from common.ledger.state import Contributed, LedgerState, RoundRecord, RunRecord
from common.ledger.tree import StoredTree
from common.ledger.witnesses import cosigners, covered_size, majority, strangers
from common.verify.changes import Changes
from common.verify.report import Check, Finding, Outcome

LOG = "log"
QUESTION = "Is all that the log signed this one history, and did witnesses see each round begin?"
NOBODY = "nobody was a witness: two histories could be shown"


@dataclass(frozen=True, slots=True)
class Cosigned:
    """A checkpoint of this very history: its size, and when which witnesses of then cosigned it (seconds since the epoch)."""

    size: int
    by: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Witnessed:
    """What the reader's checkpoints say: the check, and the cosignatures that hold."""

    check: Check
    cosigned: tuple[Cosigned, ...]


@dataclass(slots=True)
class _Reading:
    """One pass over checkpoints, with what every step needs."""

    state: LedgerState
    changes: Changes
    tree: StoredTree
    log: NoteKey
    sealed: bool
    findings: list[Finding] = field(default_factory=list)
    ahead: dict[int, bytes] = field(default_factory=dict)

    def head_of(self, note: bytes) -> TreeHead:
        """
        Raises:
            RefusalError: the log did not sign it.
        """
        return read_checkpoint(parse_note(note), self.log)

    def is_of_this_history(self, head: TreeHead, whose: str, leaf: int | None = None) -> bool:
        """False, with a finding, where the log signed another tree; False alone where it is larger than what is held."""
        held = head.size <= self.tree.size
        try:
            other = self.tree.head(head.size).root if held else self.ahead.setdefault(head.size, head.root)
        except KeyError:  # its tree ends among entries that are withheld, and only their common hash is known
            text = f"{whose} of {head.size:,} entries was not compared: entries before its end are withheld."
            self.findings.append(Finding(Outcome.GAPS, text[0].upper() + text[1:], leaf, got=head.root.hex()))
            return False
        if other != head.root and any(each.gave_up(head) for each in self.state.lineages):
            text = f"{whose} of {head.size:,} entries is of the lineage that was given up later."
            self.findings.append(Finding(Outcome.GAPS, text[0].upper() + text[1:], leaf, got=head.root.hex()))
            return False
        if other != head.root:
            text = f"The log signed two histories of {head.size:,} entries: {whose} is of another one than this."
            where = head.size - 1 if leaf is None and head.size else leaf
            self.findings.append(Finding(Outcome.FAILED, text, where, other.hex(), head.root.hex(), LOG))
        return held and other == head.root


def check_witnesses(
    history: tuple[LedgerState, Changes],
    tree: StoredTree,
    notes: Sequence[bytes],
    runs: Sequence[RunRecord],
    *,
    sealed: bool = False,
) -> Witnessed:
    """Checkpoints that the reader holds and that contributions name; then each closed round's opening, among the former.

    Args:
        history: the state after the last entry that follows, and how it came to be.
        tree: over all entries that are held.
        notes: the reader's checkpoints, with cosignatures.
        runs: the runs whose rounds are asked about.
        sealed: a stranger's signature on the reader's checkpoints is a failure, not a gap.
    """
    state, changes = history
    reading = _Reading(state, changes, tree, log_key(state.genesis), sealed)
    cosigned = tuple(_held(reading, notes))
    named = _named(reading)
    rounds = [(run, record) for run in runs for record in run.rounds if record.closed is not None]
    reading.findings += _uncovered(reading, cosigned, rounds)
    signatures = sum(len(each.by) for each in cosigned)
    examined = (
        f"{len(notes):,} checkpoints held here with {signatures:,} cosignatures, {named:,} named by contributions"
    )
    alone = sum(not changes.witnesses(record.place.index + 1) for _, record in rounds)
    if alone:
        examined += f"; at {alone:,} of {len(rounds):,} rounds {NOBODY}"
    elif not changes.witnesses(state.size):
        examined += f"; {NOBODY}"
    return Witnessed(Check("witnesses", QUESTION, examined, tuple(reading.findings)), cosigned)


# --- the reader's -----------------------------------------------------------------------------------------------------


def _held(reading: _Reading, notes: Iterable[bytes]) -> list[Cosigned]:
    found = []
    for raw in notes:
        try:
            note = parse_note(raw)
            head = read_checkpoint(note, reading.log)
        except RefusalError as err:
            text = f"A checkpoint held here is not one that this log signed: {err.message} ({err.code})"
            reading.findings.append(Finding(Outcome.FAILED, text, expected=f"signed by {reading.log.name}"))
            continue
        cosigned = _cosigned(reading, note, head)
        if reading.is_of_this_history(head, _whose(cosigned)):
            found.append(cosigned)
    if reading.ahead:
        largest = max(reading.ahead)
        text = f"The log signed a tree of {largest:,} entries; {reading.tree.size:,} are held here, so it was not compared."
        reading.findings.append(Finding(Outcome.GAPS, text, got=reading.ahead[largest].hex(), signer=LOG))
    return found


def _cosigned(reading: _Reading, note: Note, head: TreeHead) -> Cosigned:
    """Who of the witnesses by that size cosigned; what does not verify, and who was none, are findings."""
    witnesses = reading.changes.witnesses(head.size)
    leaf = head.size - 1 if head.size else None
    by: dict[str, int] = {}
    for name, key in witnesses.items():
        try:
            by |= cosigners(note, {name: key})
        except RefusalError as err:
            text = f"A cosignature on the checkpoint of {head.size:,} entries is not what it says: {err.message}"
            reading.findings.append(Finding(Outcome.FAILED, text, leaf, f"signed by {key.name}", signer=name))
    if head.size <= reading.state.size:
        for name in strangers(note, witnesses, reading.log):
            text = (
                f"{name} signed the checkpoint of {head.size:,} entries and was no witness then: it counts for nothing."
            )
            outcome = Outcome.FAILED if reading.sealed else Outcome.GAPS
            reading.findings.append(Finding(outcome, text, leaf, got=name))
    return Cosigned(head.size, by)


def _whose(cosigned: Cosigned) -> str:
    names = ", ".join(sorted(cosigned.by))
    return f"a checkpoint held here, cosigned by {names}," if names else "a checkpoint held here"


# --- those that contributions name ------------------------------------------------------------------------------------


def _named(reading: _Reading) -> int:
    """How many contributions name a checkpoint; each must be of this history, hold its opening, and never go back."""
    entries = [
        (run.rounds[entry.contribution.round - 1], entry)
        for run in reading.state.runs.values()
        for record in run.rounds
        for entry in record.contributions.values()
        if entry.contribution.checkpoint is not None
    ]
    largest: Counter[str] = Counter()
    heads: dict[str, TreeHead | RefusalError] = {}
    for record, entry in sorted(entries, key=lambda pair: pair[1].place.index):
        text = entry.contribution.checkpoint or ""
        if text not in heads:
            heads[text] = _head_or_fault(reading, text)
        _judge(reading, record, entry, heads[text], largest)
    return len(entries)


def _head_or_fault(reading: _Reading, text: str) -> TreeHead | RefusalError:
    try:
        return reading.head_of(text.encode())
    except RefusalError as err:
        return err


def _judge(
    reading: _Reading, record: RoundRecord, entry: Contributed, head: TreeHead | RefusalError, largest: Counter[str]
) -> None:
    name, leaf = entry.contribution.institution, entry.place.index
    if isinstance(head, RefusalError):
        text = f"The contribution of {name} names a checkpoint that the log did not sign: {head.message} ({head.code})"
        reading.findings.append(Finding(Outcome.FAILED, text, leaf, f"signed by {reading.log.name}", "", name))
        return
    if head.size > leaf:
        text = f"The log signed two histories: the checkpoint that {name} acted on is larger than this ledger was then."
        reading.findings.append(Finding(Outcome.FAILED, text, leaf, f"at most {leaf} entries", str(head.size), LOG))
        return
    if not reading.is_of_this_history(head, f"the checkpoint that {name} acted on", leaf):
        return
    if head.size <= record.place.index:
        text = f"{name} contributed on an old checkpoint, which does not hold the opening of its round."
        wanted = f"more than {record.place.index} entries"
        reading.findings.append(Finding(Outcome.FAILED, text, leaf, wanted, str(head.size), name))
    if head.size < largest[name]:
        text = f"The checkpoints that {name} contributed on went back: it was shown an old one again."
        wanted = f"{largest[name]} entries or more"
        reading.findings.append(Finding(Outcome.FAILED, text, leaf, wanted, str(head.size), name))
    largest[name] = max(largest[name], head.size)


# --- rounds -----------------------------------------------------------------------------------------------------------


def _uncovered(
    reading: _Reading, cosigned: Sequence[Cosigned], rounds: Iterable[tuple[RunRecord, RoundRecord]]
) -> list[Finding]:
    sizes: Counter[str] = Counter()
    for note in cosigned:
        for name in note.by:
            sizes[name] = max(sizes[name], note.size)
    findings = []
    for run, record in rounds:
        opening, closing = record.place.index, record.closed_place
        # Who acted did so by its newest roster, which may be a later one than the opening's.
        rosters = [reading.changes.witnesses(index + 1) for index in (opening, closing.index if closing else opening)]
        if any(_covers(sizes, witnesses, opening) for witnesses in rosters):
            continue
        seen = sum(sizes[name] > opening for name in rosters[0])
        text = (
            f"The opening of round {record.number} of {run.run} is covered by no majority of witnesses among what is held "
            f"here: {seen} of {len(rosters[0])}."
        )
        needed = f"{majority(len(rosters[0]))} of {len(rosters[0])}"
        findings.append(Finding(Outcome.GAPS, text, opening, needed, f"{seen} of {len(rosters[0])}"))
    return findings


def _covers(sizes: Mapping[str, int], witnesses: Iterable[str], opening: int) -> bool:
    """Whether a majority of these cosigned the opening."""
    names = list(witnesses)
    known = {name: sizes[name] for name in names if name in sizes}
    return not names or covered_size(known, len(names)) > opening
