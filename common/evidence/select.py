"""What goes into a bundle, of all that an exporter holds: whole runs, and nothing that is not the reader's. Pure.

rosters, leaves, erasures                     always: who may sign, and who is a witness, hangs on them
a run that the range touches                  every entry up to the range's end: the rules can judge it
any other run, and what comes after           withheld, as hashes that the newest checkpoint binds to the log
measurements                                  the exporter's own
deltas, models, server_states                 where asked for: of the rounds that were closed in the range, as far as they
                                              are held, and the plan lets the exporter read them
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from common.blobs.reference import BlobRef
from common.errors import RefusalError, UsageError
from common.evidence.format import Contents, Measured
from common.evidence.notes import Notes
from common.evidence.subtrees import SparseNodes
from common.ledger.heads import log_key
from common.ledger.merkle import leaf_hash
from common.ledger.notes import parse_note
from common.ledger.rules import Admission, admit, start
from common.ledger.state import LedgerState, RoundRecord, RunRecord
from common.ledger.tasks import offered_blobs
from common.ledger.tree import StoredTree
from common.statements.kinds import Contribution
from common.verify.changes import Changes
from common.verify.material import Blobs


@dataclass(frozen=True, slots=True)
class Holdings:
    """What an exporter has. `institution` is None for the coordinator; `blobs` is None where none shall be taken out."""

    envelopes: Sequence[bytes]
    notes: Sequence[bytes] = ()
    institution: str | None = None
    metrics: Mapping[str, Measured] = field(default_factory=dict)
    """What was measured beside own contributions, by their digest."""
    blobs: Blobs | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """What goes in, and what a person should know of it before it is sent away."""

    contents: Contents
    first: int
    last: int
    runs: tuple[str, ...]
    withheld: int
    covered: int
    """The size of the largest checkpoint in it: entries from there on are bound to the log by nothing but signatures."""
    deltas: Mapping[str, int]
    """How many deltas of which institution it takes out."""
    absent: tuple[str, ...]
    """What recomputing its rounds would need besides, in words, by round."""


@dataclass(slots=True)
class _Told:
    """A ledger, read once from its beginning."""

    state: LedgerState
    nodes: SparseNodes = field(default_factory=SparseNodes)
    changes: Changes = field(default_factory=Changes)
    runs: list[str | None] = field(default_factory=list)
    """Which run an entry is about, by index."""
    named: list[tuple[int, str]] = field(default_factory=list)
    """Checkpoints that contributions name, with their index."""

    def take(self, admission: Admission, envelope: bytes) -> None:
        predicate = admission.statement.predicate
        self.state = admission.state
        self.nodes.add_leaf(leaf_hash(hashlib.sha256, envelope))
        self.changes.record(admission)
        self.runs.append(getattr(predicate, "run", None))
        if isinstance(predicate, Contribution) and predicate.checkpoint is not None:
            self.named.append((admission.place.index, predicate.checkpoint))


def select(holdings: Holdings, first: int = 0, last: int | None = None) -> Selection:
    """What a bundle about the entries `first` to `last`, by default all, holds.

    Raises:
        UsageError: there is no such range, or something would have to be withheld that no checkpoint binds to the log.
        RefusalError: the ledger that is held breaks a rule, or a note is not the log's.
    """
    told = _tell(holdings.envelopes)
    size = len(told.runs)
    last = size - 1 if last is None else last
    if not 0 <= first <= last < size:
        raise UsageError(
            f"The range {first} to {last} is none of this ledger, which has entries 0 to {size - 1}.",
            "Name indexes that are there: --from 0 --to INDEX.",
        )
    touched = {run for run in told.runs[first : last + 1] if run is not None}
    shown = [run is None or (index <= last and run in touched) for index, run in enumerate(told.runs)]
    notes = _notes(told, shown, holdings.notes)
    end = max(notes.covered, last + 1)
    _check_bound(shown, notes.covered, end)
    rounds = [(run, record) for run, record in _closed_rounds(told.state, first, last) if run.run in touched]
    blobs, deltas, absent = _blobs(rounds, holdings) if holdings.blobs else ((), Counter[str](), ())
    contents = Contents(
        checkpoints=notes.own(),
        conflicting=notes.conflicting(),
        envelopes=[each if shown[index] else None for index, each in enumerate(holdings.envelopes[:end])],
        nodes=told.nodes,
        metrics=_metrics(told, shown, holdings),
        blobs=blobs,
        source=holdings.blobs,
    )
    return Selection(
        contents, first, last, tuple(sorted(touched)), end - sum(shown[:end]), notes.covered, dict(deltas), absent
    )


def _tell(envelopes: Sequence[bytes]) -> _Told:
    if not envelopes:
        raise UsageError("There is no ledger to export: not even a genesis.", "Follow the coordinator first.")
    admission = start(envelopes[0])
    told = _Told(admission.state)
    told.take(admission, envelopes[0])
    for envelope in envelopes[1:]:
        told.take(admit(told.state, envelope), envelope)
    return told


def _notes(told: _Told, shown: Sequence[bool], held: Iterable[bytes]) -> Notes:
    """The notes that are held, and those that shown contributions name where withheld entries would hide their heads."""
    tree = StoredTree(hashlib.sha256, told.nodes, len(told.runs))
    notes = Notes(tree, log_key(told.state.genesis), told.changes)
    for note in held:
        notes.add(parse_note(note))
    for index, text in told.named:
        if not shown[index]:
            continue
        try:
            notes.add_named(parse_note(text.encode()), shown)
        except RefusalError:
            continue  # no checkpoint of this log: the contribution itself shows it, and verification says so
    return notes


def _check_bound(shown: Sequence[bool], covered: int, end: int) -> None:
    loose = [index for index in range(covered, end) if not shown[index]]
    if loose:
        raise UsageError(
            f"Entry {loose[0]} would be withheld, and no checkpoint that is held here covers it: the largest has {covered} "
            "entries.",
            f"Export less (--to {max(covered - 1, 0)}) or everything, or wait for the next checkpoint.",
        )


def _metrics(told: _Told, shown: Sequence[bool], holdings: Holdings) -> tuple[Measured, ...]:
    places = told.state.places
    own = (digest for digest in holdings.metrics if digest in places and shown[places[digest].index])
    return tuple(holdings.metrics[digest] for digest in sorted(own))


# --- blobs ------------------------------------------------------------------------------------------------------------


def _closed_rounds(state: LedgerState, first: int, last: int) -> Iterable[tuple[RunRecord, RoundRecord]]:
    """Committed training rounds that were closed in the range, and rounds that are open at its end."""
    for run in state.runs.values():
        for record in run.ever_committed("train"):
            if record.closed_place is not None and first <= record.closed_place.index <= last:
                yield run, record
        if run.open_round is not None:
            yield run, run.open_round


def _blobs(
    rounds: Sequence[tuple[RunRecord, RoundRecord]], holdings: Holdings
) -> tuple[tuple[BlobRef, ...], Counter[str], tuple[str, ...]]:
    """What is taken out, ascending by root; whose deltas; what else a recomputation needs."""
    chosen: dict[str, BlobRef] = {}
    deltas: Counter[str] = Counter()
    absent = []
    for run, record in rounds:
        lacking: dict[str, list[str]] = {}
        for each in _wanted(run, record, holdings.institution):
            if not (each.visible and holdings.blobs and holdings.blobs.contains(each.ref)):
                if record.closed is not None:  # an open round is nothing to recompute yet
                    lacking.setdefault("not held here" if each.visible else "not visible here", []).append(each.what)
            elif each.ref.root not in chosen:
                chosen[each.ref.root] = each.ref
                deltas[each.institution] += each.is_delta
        if lacking:
            words = "; ".join(f"{', '.join(dict.fromkeys(names))} {why}" for why, names in lacking.items())
            absent.append(f"round {record.number} of {run.run}: {words}")
    return tuple(chosen[root] for root in sorted(chosen)), +deltas, tuple(absent)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A blob that a recomputation needs. `visible`: the exporter may read it."""

    what: str
    ref: BlobRef
    visible: bool
    institution: str = ""
    is_delta: bool = False


def _wanted(run: RunRecord, record: RoundRecord, reader: str | None) -> Iterable[_Wanted]:
    closed, state = record.closed, record.opened.inputs.server_state
    yield _Wanted("a model", record.opened.inputs.model, visible=True)
    if closed is not None:
        yield _Wanted("a model", closed.outputs.model, visible=True)
    recomputes = reader is None or reader in run.statement.plan.delta_audience
    if state is not None:
        yield _Wanted("the server_state", state, visible=recomputes)
    for name, entry in record.contributions.items():
        may = recomputes or reader == name
        for kind, ref in offered_blobs(entry.contribution).items():
            what = f"the {kind} of {name}"
            yield _Wanted(what, ref, visible=may, institution=name, is_delta=kind == "delta")
