"""What no open run needs is deleted: models, deltas whose rounds are closed, residuals, job folders with token files."""

from __future__ import annotations

from common.blobs.reference import BlobRef
from common.ledger.state import LedgerState, RunRecord
from participant.ports import AgentPorts
from participant.residuals import LOSSLESS, needed_rounds


class Tidying:
    """`tidy` as often as one likes; used by the agent's thread."""

    def __init__(self, ports: AgentPorts) -> None:
        self._ports = ports
        self._tidied: object = None

    def changed(self) -> None:
        """Work that broke off may have left something: the next `tidy` looks, though the rounds be the same."""
        self._tidied = None

    def tidy(self) -> None:
        """Keep of runs that go on: the newest models, tokenizers, deltas whose round is open, residuals that may be a start."""
        state, outbox = self._ports.mirror.state, self._ports.outbox
        rounds = _rounds(state)
        if rounds == self._tidied:
            return
        keep: set[str] = set()
        for run in state.active_runs:
            keep |= {run.model.root, run.statement.initial.tokenizer.root}
            keep |= {record.opened.inputs.model.root for record in run.rounds[-2:]}  # the next one is written over it
            if run.statement.plan.downlink is not None:
                keep |= self._newest_held(run)
            if run.open_round is not None:
                keep |= outbox.blobs_of(run.open_round)
                state_ref = run.open_round.opened.inputs.server_state
                keep |= {state_ref.root} if run.statement.plan.corrects and state_ref is not None else set()
        for ref in self._others(keep):
            self._ports.blobs.retire(ref)
        if not state.active_runs:
            self._ports.blobs.drop_spares()
        institution = self._ports.institution
        lossy = [run for run in state.active_runs if run.statement.plan.codec.type != LOSSLESS]
        self._ports.residuals.keep_only({run.run: needed_rounds(run, institution) for run in lossy})
        self._ports.workbench.forget_runs(known=state.runs.keys(), keep={run.run for run in state.active_runs})
        self._tidied = rounds

    def _newest_held(self, run: RunRecord) -> set[str]:
        """The newest of a run's models that is here: applied deltas may lead on from it, however many rounds were missed."""
        models = [run.model, *(record.opened.inputs.model for record in reversed(run.rounds))]
        return {next((ref.root for ref in models if self._ports.blobs.contains(ref)), run.model.root)}

    def leave_nothing(self) -> None:
        """Delete every model, delta, residual and job folder: this institution has left."""
        for ref in self._others(set()):
            self._ports.blobs.delete(ref)
        self._ports.blobs.drop_spares()
        self._ports.residuals.keep_only({})
        self._ports.workbench.forget_runs(known=self._ports.mirror.state.runs.keys(), keep=())

    def _others(self, keep: set[str]) -> list[BlobRef]:
        return [ref for ref, _ in self._ports.blobs.list() if ref.root not in keep]


def _rounds(state: LedgerState) -> tuple[object, ...]:
    """What decides about what is needed: which runs go on, and where each of them is."""
    return len(state.runs), *((run.run, len(run.rounds), run.open_round is None) for run in state.active_runs)
