"""What no open run needs is deleted: models, deltas whose rounds are closed, residuals, job folders with token files."""

from __future__ import annotations

from common.blobs.reference import BlobRef
from participant.ports import AgentPorts
from participant.residuals import needed_rounds


class Tidying:
    """`tidy` as often as one likes; used by the agent's thread."""

    def __init__(self, ports: AgentPorts) -> None:
        self._ports = ports

    def tidy(self) -> None:
        """Keep of runs that go on: the newest models, tokenizers, deltas whose round is open, residuals that may be a start."""
        state, outbox = self._ports.mirror.state, self._ports.outbox
        keep: set[str] = set()
        for run in state.active_runs:
            keep |= {run.model.root, run.statement.initial.tokenizer.root}
            keep |= {record.opened.inputs.model.root for record in run.rounds[-2:]}  # the next one is written over it
            if run.open_round is not None:
                keep |= outbox.blobs_of(run.open_round)
        for ref in self._others(keep):
            self._ports.blobs.retire(ref)
        if not state.active_runs:
            self._ports.blobs.drop_spares()
        institution = self._ports.institution
        self._ports.residuals.keep_only({run.run: needed_rounds(run, institution) for run in state.active_runs})
        self._ports.workbench.forget_runs(known=state.runs.keys(), keep={run.run for run in state.active_runs})

    def leave_nothing(self) -> None:
        """Delete every model, delta, residual and job folder: this institution has left."""
        for ref in self._others(set()):
            self._ports.blobs.delete(ref)
        self._ports.blobs.drop_spares()
        self._ports.residuals.keep_only({})
        self._ports.workbench.forget_runs(known=self._ports.mirror.state.runs.keys(), keep=())

    def _others(self, keep: set[str]) -> list[BlobRef]:
        return [ref for ref, _ in self._ports.blobs.list() if ref.root not in keep]
