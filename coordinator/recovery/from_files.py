"""A restored coordinator learns what it signed after the backup, from what institutions hold, before it signs anything.

    evidence files ── each entry admitted by the rules, its signature verified ──▶ the state database, metrics, blobs
                      each checkpoint of the log held against the tree that comes out

An institution keeps every entry and every checkpoint that it was shown, so the longest copy is the history. What nobody brings
is not known here, and not made up: whoever holds more finds two histories, and stops.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from common.backup.restoring import restoration, settle
from common.blobs.reader import chunk_buffer
from common.blobs.store import FolderBlobStore
from common.clock import Clock, parse_rfc3339, rfc3339
from common.errors import RefusalError, TwoHistories, UsageError
from common.evidence.bundle import Bundle
from common.evidence.format import Measured
from common.evidence.read import read_bundle
from common.homes import HomeLock
from common.identity.keys import SigningKey
from common.identity.passphrase import read_passphrase
from common.ledger.heads import log_key, tree_of
from common.ledger.merkle import leaf_hash
from common.ledger.notes import parse_note, read_checkpoint
from common.ledger.rules import Admission, admit
from common.ledger.state import LedgerState
from common.logs import get_logger
from common.statements.kinds import Contribution, Control, RoundClosed, RoundOpened
from common.verify.blobs import named_blobs
from coordinator.config import CoordinatorConfig, HomeLayout
from coordinator.ledger import Beside, Ledger, TakenBack
from coordinator.ports import Metrics
from coordinator.recovery.lacking import lacking_in_words
from coordinator.rows.rounds import SEAL_REASONS, UNSEALED
from coordinator.store.database import Database, Seal, Transaction, file_url
from coordinator.watching.metrics import metrics_row

log = get_logger(__name__)

TOGETHER = 256
"""Entries that become durable at once."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """How many entries there were and are, how many blobs came, and what is needed and lacks, in words."""

    before: int
    after: int
    blobs: int
    lacking: tuple[str, ...]


class ClaimedTime:
    """A clock that says when statements say that they were made, and never goes back."""

    def __init__(self) -> None:
        self._at = datetime(1970, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self._at

    def monotonic(self) -> float:
        return 0.0

    def begin(self, appended_at: str) -> None:
        """Go on from the newest row."""
        self._at = parse_rfc3339(appended_at)

    def reach(self, admission: Admission) -> None:
        said = admission.statement.predicate
        if isinstance(said, Control):
            self._at = max(self._at, parse_rfc3339(said.issued_at))
        elif isinstance(said, RoundOpened):
            seconds = admission.state.runs[said.run].statement.plan.deadline_seconds
            self._at = max(self._at, parse_rfc3339(said.stages[-1].deadline) - timedelta(seconds=seconds))


def recover(layout: HomeLayout, config: CoordinatorConfig, files: Sequence[Path], clock: Clock) -> Recovered:
    """Take in what these files hold beyond the own ledger, and let the coordinator start from then on.

    Args:
        files: what institutions exported, best of all of them; none where a person knows that nothing was signed since.

    Raises:
        UsageError: the home was not restored, or a file leaves out what is needed, or shows that there is more.
        TwoHistories: a file holds other entries than the own ledger, or than another file; nothing was taken in.
        MalformedStatement, RefusalError: a file is damaged, or an entry breaks a rule; likewise.
        HomeLocked: the coordinator runs.
    """
    with HomeLock(layout.home), ExitStack() as stack:
        note = restoration(layout.home)
        if note is None or note.get("settled"):
            raise UsageError(f"{layout.home} waits for no recovery.", "Start it: llmasos-coordinator start.")
        bundles = {file: stack.enter_context(read_bundle(file)) for file in files}
        database = stack.enter_context(closing(Database(file_url(layout.state))))
        blobs = stack.enter_context(closing(FolderBlobStore(layout.blobs)))
        key = SigningKey.load(layout.statement_key, read_passphrase(config.identity.passphrase_file))
        time = ClaimedTime()
        ledger = Ledger(database, key, time, layout.genesis.read_bytes())
        before = ledger.state
        time.begin(database.envelopes(before.size - 1)[0].appended_at)
        admissions = _history(database, before, bundles)
        _take_back(ledger, database, time, admissions, bundles.values())
        came = sum(_import_blobs(bundle, ledger.state, blobs) for bundle in bundles.values())
        found = Recovered(before.size, ledger.state.size, came, tuple(lacking_in_words(ledger.state, blobs)))
        settle(layout.home, at=rfc3339(clock.now()), entries=found.after, files=[file.name for file in files])
    return found


# --- which history ---------------------------------------------------------------------------------------------------


def _history(database: Database, state: LedgerState, bundles: dict[Path, Bundle]) -> list[Admission]:
    """What comes after the own entries by the longest file, once every file is a part of one history."""
    own: list[bytes] = []
    while rows := database.envelopes(len(own)):
        own += [row.envelope for row in rows]
    file, longest = max(bundles.items(), key=lambda each: len(each[1].envelopes), default=(None, None))
    whole, admissions = list(own), list[Admission]()
    for index in range(len(own), len(longest.envelopes) if longest else 0):
        envelope = longest.envelopes[index] if longest else None
        if envelope is None:
            raise UsageError(f"{file} withholds entry {index}.", "Export it again, without --from and --to.")
        try:
            admissions.append(admit(admissions[-1].state if admissions else state, envelope))
        except RefusalError as err:
            raise TwoHistories(
                f"Entry {index} of {file} does not follow on this ledger: {err.message} ({err.code})",
                "Nothing was taken in. Verify the file: llmasos verify FILE; restore another backup if it is right.",
            ) from err
        whole.append(envelope)
    for name, bundle in bundles.items():
        _expect_part(name, bundle, whole, state)
    return admissions


def _expect_part(file: Path, bundle: Bundle, whole: Sequence[bytes], state: LedgerState) -> None:
    """
    Raises:
        TwoHistories: the file's entries or checkpoints are of another history.
        UsageError: the log signed for more than anybody brought.
    """
    advice = "Nothing was taken in. Keep the file: it is the proof. See docs/operations.md#two-histories."
    for index in range(len(bundle.envelopes)):
        shown = bundle.envelopes[index]
        if shown is not None and shown != whole[index]:
            raise TwoHistories(f"Entry {index} of {file} is another one than this ledger's, or another file's.", advice)
    if bundle.conflicting:
        raise TwoHistories(f"{file} holds notes that contradict its own history.", advice)
    tree, log_name = tree_of(()), log_key(state.genesis)
    for envelope in whole:
        tree.append(leaf_hash(hashlib.sha256, envelope))
    for raw in bundle.checkpoints:
        head = read_checkpoint(parse_note(raw), log_name)
        if head.size > len(whole):
            raise UsageError(
                f"{file} shows that this log signed for {head.size} entries; the longest file has {len(whole)}.",
                "Ask the other institutions for what they hold.",
            )
        if tree.head(head.size) != head:
            raise TwoHistories(f"{file} holds a checkpoint of {head.size} entries that is not this ledger's.", advice)


# --- taking in -------------------------------------------------------------------------------------------------------


def _take_back(
    ledger: Ledger, database: Database, time: ClaimedTime, admissions: Sequence[Admission], bundles: Iterable[Bundle]
) -> None:
    sealed = set(database.seals())
    measured = {digest: each for bundle in bundles for digest, each in bundle.metrics.items()}
    for first in range(0, len(admissions), TOGETHER):
        ledger.take_back(taken_back(admissions[first : first + TOGETHER], time, measured, sealed))


def taken_back(
    admissions: Sequence[Admission], time: ClaimedTime, measured: Mapping[str, Measured], sealed: Collection[str]
) -> list[TakenBack]:
    """These entries as rows, with the times that statements claim, and what the tables hold besides."""
    taken = []
    for admission in admissions:
        time.reach(admission)
        beside = _beside(admission, measured, sealed, rfc3339(time.now()))
        taken.append(TakenBack(admission, time.now(), beside))
    return taken


def _beside(admission: Admission, measured: Mapping[str, Measured], sealed: Collection[str], now: str) -> Beside:
    """What the tables hold besides: the measurements that came with a contribution, and that a closed round was sealed."""
    statement = admission.statement
    said, opening = statement.predicate, statement.parent.digest

    def write(tx: Transaction) -> None:
        if isinstance(said, Contribution) and statement.digest in measured:
            each = measured[statement.digest]
            row = metrics_row(admission.state.runs[said.run], statement, Metrics(each.content, each.salt))
            if row is not None:
                tx.keep_metrics(row)
        if isinstance(said, RoundClosed) and said.reason not in UNSEALED and opening not in sealed:
            # Of an abandoned round the ledger does not say why it was sealed; that it was is what counts.
            tx.seal(Seal(opening, said.reason if said.reason in SEAL_REASONS else "deadline-passed", now))

    return write


def _import_blobs(bundle: Bundle, state: LedgerState, store: FolderBlobStore) -> int:
    """Blobs that the ledger names and that are not here; each chunk is verified as it is copied."""
    named = {ref for run in state.runs.values() for _, _, ref in named_blobs(run)}
    came = 0
    for ref in bundle.blobs.refs:
        if ref not in named or store.contains(ref):
            continue
        buffer = chunk_buffer(ref)
        with closing(bundle.blobs.open(ref)) as reader, store.writer(ref.algorithm, about=ref.size) as writer:
            for index in range(ref.chunks):
                writer.write(reader.read_chunk(index, buffer))
            writer.commit()
        came += 1
    return came
