"""Ledgers of several runs with their keys, and bundles of them: what an exporter would hold, and what a forger would write.

ledger = a_ledger("alpha", "beta")                    # each run: plan, answers, one round, its end
note = ledger.checkpoint(ledger.size, "north")        # signed by the log, cosigned by north
data = bundle(select(Holdings(ledger.entries, [note])))
report_on(with_digest(data[:-70] + …), tmp_path)
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.clock import rfc3339
from common.errors import MalformedStatement
from common.evidence.checks import bundle_checks, refused_report
from common.evidence.format import END_BYTES, Contents, write_bundle
from common.evidence.read import read_bundle
from common.evidence.select import Selection
from common.identity.authority import Authority
from common.identity.keys import SigningKey
from common.ledger.cohort import round_seed
from common.ledger.heads import log_key, tree_of
from common.ledger.merkle import TreeHead
from common.ledger.notes import Note, checkpoint_text, cosign, sign_note
from common.ledger.rules import admit, start
from common.ledger.state import LedgerState
from common.statements.envelope import Parent, Statement, sign
from common.statements.kinds import Control, Member, Predicate, Refusal, Roster
from common.verify.material import Material
from common.verify.report import Outcome, Report
from common.verify.verify import verify
from tests.support.statements import (
    CONSORTIUM,
    NAMES,
    NOW,
    a_blob_ref,
    a_contribution,
    a_plan_statement,
    a_round_closed,
    a_round_opened,
    an_answer,
    sign_genesis,
)

ORIGIN = f"{CONSORTIUM}.llmasos/ledger"
SECONDS = int(NOW.timestamp())


@dataclass
class MadeLedger:
    """Entries that follow, and every key that signed them or might."""

    coordinator: SigningKey
    log: SigningKey
    institutions: dict[str, SigningKey]
    entries: list[bytes] = field(default_factory=list)
    spans: dict[str, range] = field(default_factory=dict)
    """Which indexes a run has."""
    _state: LedgerState | None = None

    @property
    def state(self) -> LedgerState:
        assert self._state is not None
        return self._state

    @property
    def size(self) -> int:
        return len(self.entries)

    @property
    def fingerprint(self) -> str:
        return self.state.genesis_place.digest

    @property
    def pins(self) -> dict[str, str]:
        return {name: key.public.public for name, key in self.institutions.items()}

    def begin(self, genesis: Statement) -> None:
        self.entries.append(genesis.envelope)
        self._state = start(genesis.envelope).state

    def say(self, predicate: Predicate, parent: Parent, by: str = "") -> Statement:
        """One more entry, admitted by the rules."""
        statement = sign(predicate, parent=parent, key=self.institutions[by] if by else self.coordinator)
        self._state = admit(self.state, statement.envelope).state
        self.entries.append(statement.envelope)
        return statement

    def roster(self, **changes: Any) -> Statement:
        """The next roster; arguments change each member."""
        before = self.state.roster
        members = tuple(
            Member(name=name, signing_key=self.institutions[name].public, roles=("trainer", "witness")).model_copy(
                update=changes
            )
            for name in sorted(self.institutions)
        )
        place = self.state.roster_place or self.state.genesis_place
        roster = Roster(version=before.version + 1 if before else 1, members=members)
        return self.say(roster, Parent(place.kind.value, place.digest))

    def run(self, run: str, *, between: Callable[[], object] = lambda: None, names: int | None = None) -> None:
        """A run from its plan to its end, with one refusal.

        Args:
            between: what is said after the refusal.
            names: the size of the checkpoint that contributions name; None: all that came before them.
        """
        first, place = self.size, self.state.roster_place
        assert place is not None
        planned = self.say(a_plan_statement(run=run), Parent("roster", place.digest))
        for name in NAMES:
            self.say(an_answer(name, run=run), _of(planned), name)
        seed = round_seed(planned.digest, 1)
        opened = self.say(a_round_opened(place.digest, run=run, seed=seed), _of(planned))
        self.refuse(run, opened)
        between()
        named = self.checkpoint(names or self.size).decode()
        digests = {
            name: self.say(a_contribution(name, run=run, checkpoint=named), _of(opened), name).digest for name in NAMES
        }
        closed = self.say(a_round_closed(digests, run=run), _of(opened))
        model = a_blob_ref("model 1")
        ended = Control(action="run-ended", issued_at=rfc3339(NOW), run=run, reason="rounds-done", model=model)
        self.say(ended, _of(closed))
        self.spans[run] = range(first, self.size)

    def refuse(self, run: str, opened: Statement) -> None:
        fields = {"institution": "north", "refused_sha256": "ab" * 32, "code": "bad-signature"}
        self.say(Refusal(run=run, round=1, attribution="signed-by", **fields), _of(opened))

    def leave(self, name: str) -> None:
        place = self.state.roster_place
        assert place is not None
        leave = Control(action="leave", issued_at=rfc3339(NOW), institution=name, reason="institution-leaves")
        self.say(leave, Parent("roster", place.digest), name)

    # --- what the log and witnesses sign -----------------------------------------------------------------------------

    def head(self, size: int) -> TreeHead:
        return tree_of(self.entries[:size]).head()

    def checkpoint(self, size: int, *witnesses: str, root: bytes | None = None, key: SigningKey | None = None) -> bytes:
        """The log's note of that size; of another tree if `root` is given, by another key if `key` is."""
        head = self.head(size) if root is None else TreeHead(size, root)
        note = sign_note(Note(checkpoint_text(ORIGIN, head)), ORIGIN, key or self.log)
        for name in witnesses:
            note = cosign(note, f"{CONSORTIUM}.llmasos/{name}", self.institutions[name], seconds=SECONDS)
        assert key or log_key(self.state.genesis).id == note.signatures[0].key_id
        return note.encode()


def _of(statement: Statement) -> Parent:
    return Parent(statement.kind.value, statement.digest)


def a_ledger(*runs: str) -> MadeLedger:
    """Genesis, a roster, and these runs one after the other."""
    authority = Authority.create(CONSORTIUM, now=NOW)
    ledger = MadeLedger(
        SigningKey.generate(), SigningKey.generate(), {name: SigningKey.generate() for name in sorted(NAMES)}
    )
    ledger.begin(sign_genesis(authority, ledger.coordinator, log={"origin": ORIGIN, "key": ledger.log.public}))
    ledger.roster()
    for run in runs:
        ledger.run(run)
    return ledger


# --- bundles ----------------------------------------------------------------------------------------------------------


def bundle(chosen: Selection | Contents) -> bytes:
    """A bundle's bytes."""
    stream = io.BytesIO()
    write_bundle(chosen.contents if isinstance(chosen, Selection) else chosen, stream)
    return stream.getvalue()


def with_digest(data: bytes) -> bytes:
    """A bundle whose bytes were changed, under the digest that they have now."""
    begin = data[:-END_BYTES]
    return begin + f"end {hashlib.sha256(begin).hexdigest()}\n".encode()


def records(data: bytes) -> Iterator[tuple[int, int]]:
    """Where each record begins and ends, the header and the last line left out; by the lengths that their lines name."""
    at = data.index(b"\n") + 1
    while at < len(data) - END_BYTES:
        end = data.index(b"\n", at) + 1
        word, *values = data[at : end - 1].split(b" ")
        if word != b"subtree":
            end += int(values[1] if word == b"blob" else values[-1]) + 1
        yield at, end
        at = end


def report_on(path: Path, fingerprint: str | None = None, pins: dict[str, str] | None = None) -> Report:
    """What `llmasos verify` finds, without its process."""
    try:
        found = read_bundle(path)
    except MalformedStatement as err:
        return refused_report(err)
    with found:
        material = Material(
            found.envelopes,
            found.blobs,
            fingerprint,
            pins or {},
            tree=found.tree,
            checkpoints=found.checkpoints,
            sealed=True,
        )
        return verify(material, also=bundle_checks(found))


def failures(report: Report) -> list[tuple[str, str]]:
    """Check and text of everything that failed."""
    return _findings(report, Outcome.FAILED)


def gaps(report: Report) -> list[tuple[str, str]]:
    return _findings(report, Outcome.GAPS)


def _findings(report: Report, outcome: Outcome) -> list[tuple[str, str]]:
    return [(check.name, each.text) for check in report.checks for each in check.findings if each.outcome is outcome]


def present(data: bytes) -> set[int]:
    """Indexes of the entries that a bundle shows."""
    lines: Sequence[bytes] = [data[begin:].split(b"\n", 1)[0] for begin, _ in records(data)]
    return {int(line.split(b" ")[1]) for line in lines if line.startswith(b"entry ")}
