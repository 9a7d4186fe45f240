"""Operations: what operators ask, from any host. The interceptor has checked the role."""

from __future__ import annotations

from collections.abc import Iterator

from common.wire.v1 import operations_pb2
from coordinator.api.calls import Call
from coordinator.api.convert import (
    control_from_wire,
    delete_metrics_from_wire,
    inquire_from_wire,
    invite_from_wire,
    logs_from_wire,
    plan_json_from_wire,
    revoke_from_wire,
    run_prefix_from_wire,
    withdraw_from_wire,
)
from coordinator.api.convert_views import (
    estimate_view_to_wire,
    institution_to_wire,
    log_line_to_wire,
    run_view_to_wire,
    status_to_wire,
)
from coordinator.ports import Desk, Inquiries, Views


class OperationsServicer:
    """The Operations service, docs/protocol.md#transport."""

    def __init__(self, desk: Desk, views: Views, inquiries: Inquiries) -> None:
        self._desk, self._views, self._inquiries = desk, views, inquiries

    def Invite(self, request: operations_pb2.InviteRequest, call: Call) -> operations_pb2.InviteResponse:  # noqa: N802
        institution, hours, roles = invite_from_wire(request)
        return operations_pb2.InviteResponse(
            invitation=self._desk.invite(institution, expires_hours=hours, roles=roles)
        )

    def ListInstitutions(  # noqa: N802
        self, request: operations_pb2.ListInstitutionsRequest, call: Call
    ) -> operations_pb2.ListInstitutionsResponse:
        return operations_pb2.ListInstitutionsResponse(
            institutions=[institution_to_wire(view) for view in self._views.institutions()]
        )

    def StartRun(self, request: operations_pb2.StartRunRequest, call: Call) -> operations_pb2.StartRunResponse:  # noqa: N802
        return operations_pb2.StartRunResponse(run=self._desk.start_run(plan_json_from_wire(request)))

    def ListRuns(self, request: operations_pb2.ListRunsRequest, call: Call) -> operations_pb2.ListRunsResponse:  # noqa: N802
        return operations_pb2.ListRunsResponse(runs=[run_view_to_wire(view) for view in self._views.runs()])

    def WatchRun(self, request: operations_pb2.WatchRunRequest, call: Call) -> Iterator[operations_pb2.RunView]:  # noqa: N802
        for view in self._views.watch(run_prefix_from_wire(request)):
            yield run_view_to_wire(view)

    def ControlRun(self, request: operations_pb2.ControlRunRequest, call: Call) -> operations_pb2.ControlRunResponse:  # noqa: N802
        return operations_pb2.ControlRunResponse(index=self._desk.control_run(*control_from_wire(request)))

    def Revoke(self, request: operations_pb2.RevokeRequest, call: Call) -> operations_pb2.RevokeResponse:  # noqa: N802
        institution, reason = revoke_from_wire(request)
        return operations_pb2.RevokeResponse(index=self._desk.revoke(institution, reason))

    def WithdrawProposal(  # noqa: N802
        self, request: operations_pb2.WithdrawProposalRequest, call: Call
    ) -> operations_pb2.WithdrawProposalResponse:
        self._desk.withdraw_proposal(withdraw_from_wire(request))
        return operations_pb2.WithdrawProposalResponse()

    def DeleteMetrics(  # noqa: N802
        self, request: operations_pb2.DeleteMetricsRequest, call: Call
    ) -> operations_pb2.DeleteMetricsResponse:
        run, institution = delete_metrics_from_wire(request)
        return operations_pb2.DeleteMetricsResponse(deleted=self._desk.delete_metrics(run, institution))

    def Inquire(self, request: operations_pb2.InquireRequest, call: Call) -> operations_pb2.InquireResponse:  # noqa: N802
        plan_json, wait_seconds = inquire_from_wire(request)
        estimates = self._inquiries.ask(plan_json, wait_seconds)
        return operations_pb2.InquireResponse(estimates=[estimate_view_to_wire(view) for view in estimates])

    def RunLogs(self, request: operations_pb2.RunLogsRequest, call: Call) -> Iterator[operations_pb2.LogLine]:  # noqa: N802
        run, institution, follow = logs_from_wire(request)
        for line in self._views.logs(run, institution, follow=follow):
            if line is not None:
                yield log_line_to_wire(line)
            elif not call.is_active():
                return

    def Status(self, request: operations_pb2.StatusRequest, call: Call) -> operations_pb2.StatusResponse:  # noqa: N802
        return status_to_wire(self._views.status())
