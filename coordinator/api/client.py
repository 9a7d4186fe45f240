"""The calling end of Operations: what the operator's commands use, from any host.

with OperatorSession(address, genesis, TlsFiles(key, certificate)) as session:
    for view in session.watch("tiny-3f2a90"): ...
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import asdict

from common.statements.kinds import Role
from common.wire.errors import rpc_errors
from common.wire.session import CALL_SECONDS, COMMAND_SECONDS, Session
from common.wire.v1 import operations_pb2
from coordinator.api.convert_views import (
    estimate_view_from_wire,
    institution_from_wire,
    log_line_from_wire,
    run_view_from_wire,
    status_from_wire,
)
from coordinator.ports import NOTHING, CoordinatorStatus, EstimateView, InstitutionView, LogLine, RunView, Steering


class OperatorSession(Session):
    """A session whose certificate belongs to a member with the role `operator`; else each call raises RoleMissing."""

    def invite(self, institution: str, *, expires_hours: int, roles: Sequence[Role]) -> str:
        """The armoured invitation of a new institution."""
        request = operations_pb2.InviteRequest(institution=institution, expires_hours=expires_hours, roles=roles)
        return str(self.call(lambda stubs: stubs.operations.Invite(request, timeout=COMMAND_SECONDS)).invitation)

    def institutions(self) -> tuple[InstitutionView, ...]:
        """Members and open invitations."""
        request = operations_pb2.ListInstitutionsRequest()
        reply = self.call(lambda stubs: stubs.operations.ListInstitutions(request, timeout=CALL_SECONDS))
        return tuple(institution_from_wire(view) for view in reply.institutions)

    def start_run(self, plan_json: bytes) -> str:
        """The id of a run that starts with this draft; its blobs are uploaded before."""
        request = operations_pb2.StartRunRequest(plan_json=plan_json)
        return str(self.call(lambda stubs: stubs.operations.StartRun(request, timeout=COMMAND_SECONDS)).run)

    def runs(self) -> tuple[RunView, ...]:
        """Every run's view."""
        request = operations_pb2.ListRunsRequest()
        reply = self.call(lambda stubs: stubs.operations.ListRuns(request, timeout=CALL_SECONDS))
        return tuple(run_view_from_wire(view) for view in reply.runs)

    def watch(self, run: str, *, timeout: float | None = None) -> Generator[RunView, None, None]:
        """The run's view now and at each change, until the run ended; closing the iterator ends the call.

        Raises:
            UnknownObject: no run, or more than one, has this prefix; and what `Session.call` raises.
            CoordinatorUnreachable: also after `timeout` seconds.
        """
        with rpc_errors(self.address):
            stream = self.stubs().operations.WatchRun(operations_pb2.WatchRunRequest(run=run), timeout=timeout)
            try:
                for view in stream:
                    yield run_view_from_wire(view)
            finally:
                stream.cancel()

    def control(self, run: str, action: str, reason: str, steering: Steering = NOTHING) -> int:
        """Pauses, resumes, extends, rolls back or aborts a run; the ledger index of the statement that says so."""
        given = {name: value for name, value in asdict(steering).items() if value is not None}
        request = operations_pb2.ControlRunRequest(run=run, action=action, reason=reason, **given)
        return int(self.call(lambda stubs: stubs.operations.ControlRun(request, timeout=COMMAND_SECONDS)).index)

    def revoke(self, institution: str, reason: str) -> int:
        """Ends a membership; the index of the roster that says so."""
        request = operations_pb2.RevokeRequest(institution=institution, reason=reason)
        return int(self.call(lambda stubs: stubs.operations.Revoke(request, timeout=COMMAND_SECONDS)).index)

    def delete_metrics(self, run: str, institution: str = "") -> int:
        """Deletes metrics of a run that has ended, one institution's or all; how many records there were."""
        request = operations_pb2.DeleteMetricsRequest(run=run, institution=institution)
        return int(self.call(lambda stubs: stubs.operations.DeleteMetrics(request, timeout=COMMAND_SECONDS)).deleted)

    def withdraw_proposal(self, payload_sha256: str) -> None:
        """Takes back a draft that awaits approvals."""
        request = operations_pb2.WithdrawProposalRequest(payload_sha256=bytes.fromhex(payload_sha256))
        self.call(lambda stubs: stubs.operations.WithdrawProposal(request, timeout=COMMAND_SECONDS))

    def inquire(self, plan_json: bytes, *, wait_seconds: float) -> tuple[EstimateView, ...]:
        """What every active trainer's policy would say to a draft."""
        request = operations_pb2.InquireRequest(plan_json=plan_json, wait_milliseconds=round(wait_seconds * 1000))
        reply = self.call(lambda stubs: stubs.operations.Inquire(request, timeout=CALL_SECONDS + wait_seconds))
        return tuple(estimate_view_from_wire(view) for view in reply.estimates)

    def logs(self, run: str, institution: str = "", *, follow: bool = False) -> Generator[LogLine, None, None]:
        """A run's events, oldest first; closing the iterator ends the call.

        Raises:
            UnknownObject: no run, or more than one, has this prefix; and what `Session.call` raises.
        """
        request = operations_pb2.RunLogsRequest(run=run, institution=institution, follow=follow)
        with rpc_errors(self.address):
            stream = self.stubs().operations.RunLogs(request)
            try:
                for line in stream:
                    yield log_line_from_wire(line)
            finally:
                stream.cancel()

    def status(self) -> CoordinatorStatus:
        """The coordinator's own state."""
        request = operations_pb2.StatusRequest()
        return status_from_wire(self.call(lambda stubs: stubs.operations.Status(request, timeout=CALL_SECONDS)))
