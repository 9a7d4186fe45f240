"""What no open run needs is deleted: models, deltas whose rounds are closed, job folders with token files."""

from __future__ import annotations

from common.blobs.store import FolderBlobStore
from participant.bench.workbench import Workbench
from participant.memory.mirror import Mirror
from participant.sending import Outbox


class Tidying:
    """`tidy` as often as one likes; used by the agent's thread."""

    def __init__(self, mirror: Mirror, outbox: Outbox, blobs: FolderBlobStore, workbench: Workbench) -> None:
        self._mirror = mirror
        self._outbox = outbox
        self._blobs = blobs
        self._workbench = workbench

    def tidy(self) -> None:
        """Keep the newest models of runs that go on, their tokenizers, and deltas whose round is open."""
        state = self._mirror.state
        keep: set[str] = set()
        for run in state.active_runs:
            keep |= {run.model.root, run.statement.initial.tokenizer.root}
            keep |= {record.opened.inputs.model.root for record in run.rounds[-2:]}  # the next one is written over it
            if run.open_round is not None:
                keep |= self._outbox.blobs_of(run.open_round)
        self._delete_all_but(keep)
        self._workbench.forget_runs(known=state.runs.keys(), keep={run.run for run in state.active_runs})

    def leave_nothing(self) -> None:
        """Delete every model, delta and job folder: this institution has left."""
        self._delete_all_but(set())
        self._workbench.forget_runs(known=self._mirror.state.runs.keys(), keep=())

    def _delete_all_but(self, keep: set[str]) -> None:
        for ref, _ in self._blobs.list():
            if ref.root not in keep:
                self._blobs.delete(ref)
