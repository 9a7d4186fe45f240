"""This institution's own view of the ledger: each entry verified before it is believed, and kept."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Sequence

from common.errors import LedgerConflict, NewLineage, RefusalError
from common.ledger.heads import tree_of
from common.ledger.merkle import TreeHead, leaf_hash
from common.ledger.rules import Admission, admit, start
from common.ledger.state import LedgerState
from participant.memory.journal import Journal, OfferedLineage


class Mirror:
    """One writer (the follower), many readers.

    Raises:
        LedgerConflict: what the journal holds does not follow from this genesis.
    """

    def __init__(self, journal: Journal, genesis_envelope: bytes) -> None:
        self._journal = journal
        self._grown = threading.Condition()
        self._wakes = 0
        self._tree = tree_of(())
        self._accepted = {each.digest for each in journal.lineages() if each.accepted_at}
        self._state = self._replay(genesis_envelope)

    @property
    def state(self) -> LedgerState:
        return self._state

    def head(self, size: int | None = None) -> TreeHead:
        """Size and root of this copy as it was at `size` entries, by default now: what a checkpoint is held against.

        Raises:
            IndexError: this copy never had so many.
        """
        return self._tree.head(self._state.size if size is None else size)

    def consistency(self, old_size: int, size: int) -> tuple[bytes, ...]:
        """The proof that the first `old_size` entries of this copy begin its first `size`. On the thread that admits.

        Raises:
            IndexError: this copy never had so many.
        """
        return tuple(self._tree.consistency_proof(old_size, size))

    def admit(self, first_index: int, envelopes: Sequence[bytes]) -> None:
        """Verify, keep and believe consecutive entries.

        Raises:
            LedgerConflict: they do not start where this copy ends, or one breaks a rule; the ones before it are kept.
        """
        state, kept = self._state, []
        conflict: LedgerConflict | None = None
        if first_index != state.size:
            raise LedgerConflict(f"Entries from index {first_index} came, expected from {state.size}.")
        for envelope in envelopes:
            try:
                admission = admit(state, envelope)
            except RefusalError as err:
                conflict = LedgerConflict(f"Entry {state.size} of the ledger breaks a rule: {err.message} ({err.code})")
                break
            if admission.state.lineages != state.lineages and admission.place.digest not in self._accepted:
                conflict = self.offer(admission)
                break
            kept.append((admission.place.index, admission.place.digest, envelope))
            state = admission.state
        if kept:
            self._journal.keep(kept)
            self._grow(envelope for _, _, envelope in kept)
            with self._grown:
                self._state = state
                self._grown.notify_all()
        if conflict is not None:
            raise conflict

    def offer(self, admission: Admission) -> NewLineage:
        """Keep a statement that begins a new lineage, for a person to decide about; the error that says so."""
        place = admission.place
        offered_at = getattr(admission.statement.predicate, "issued_at", "")
        self._journal.offer(OfferedLineage(place.digest, place.index, admission.statement.envelope, offered_at))
        (*_, lineage) = admission.state.lineages
        beyond = max(0, self._state.size - place.index)
        return NewLineage(
            f"Entry {place.index:,} of the ledger begins a new lineage: the coordinator gives up what its log signed for "
            f"beyond, up to {lineage.given_up.size:,} entries. This institution holds {beyond:,} of those."
        )

    def judge_lineage(self, index: int, envelope: bytes) -> NewLineage:
        """As `offer`, of a statement that is said to stand at `index`, where this copy may have another one.

        Raises:
            LedgerConflict: it begins no new lineage there.
        """
        state = start(self._journal.ledger()[0]).state
        for known in self._journal.ledger()[1:index]:
            state = admit(state, known).state
        try:
            admission = admit(state, envelope)
        except RefusalError as err:
            raise LedgerConflict(
                f"What is said to begin a new lineage breaks a rule: {err.message} ({err.code})"
            ) from err
        if admission.state.lineages == state.lineages or admission.place.index != index:
            raise LedgerConflict(f"Entry {index} is said to begin a new lineage, and does not.")
        return self.offer(admission)

    @property
    def wakes(self) -> int:
        """How often `wake` was called: read it before looking at what may change, and no wake in between is lost."""
        return self._wakes

    def wait_beyond(self, size: int, timeout: float, *, wakes: int | None = None) -> LedgerState:
        """The state once the ledger has more than `size` entries, or somebody calls `wake`, or after `timeout` seconds.

        Args:
            wakes: what `wakes` said before the caller looked; by default only a `wake` from now on counts.
        """
        with self._grown:
            wakes = self._wakes if wakes is None else wakes
            self._grown.wait_for(lambda: self._state.size > size or self._wakes != wakes, timeout=timeout)
            return self._state

    def wake(self) -> None:
        """Let waiting readers go on, whatever the ledger's size."""
        with self._grown:
            self._wakes += 1
            self._grown.notify_all()

    def _grow(self, envelopes: Iterable[bytes]) -> None:
        """Let the tree have what is durable; before the state, so that each published size has its head."""
        for envelope in envelopes:
            self._tree.append(leaf_hash(hashlib.sha256, envelope))

    def _replay(self, genesis_envelope: bytes) -> LedgerState:
        admission = start(genesis_envelope)
        stored = self._journal.ledger()
        if not stored:
            self._journal.keep([(0, admission.place.digest, genesis_envelope)])
            stored = [genesis_envelope]
        if stored[0] != genesis_envelope:
            raise LedgerConflict("genesis.json is not the genesis of the journal beside it.")
        state = admission.state
        for envelope in stored[1:]:
            try:
                state = admit(state, envelope).state
            except RefusalError as err:
                raise LedgerConflict(
                    f"Entry {state.size} of the journal breaks a rule: {err.message} ({err.code})"
                ) from err
        self._grow(stored)
        return state
