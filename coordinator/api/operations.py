"""Operations: what operators ask, from any host. The interceptor has checked the role."""

from __future__ import annotations

from collections.abc import Iterator

from common.wire.v1 import operations_pb2
from coordinator.api.calls import Call
from coordinator.api.convert import (
    control_from_wire,
    invite_from_wire,
    plan_json_from_wire,
    run_prefix_from_wire,
)
from coordinator.api.convert_views import institution_to_wire, run_view_to_wire
from coordinator.ports import Desk, Views


class OperationsServicer:
    """The Operations service, docs/protocol.md#transport."""

    def __init__(self, desk: Desk, views: Views) -> None:
        self._desk, self._views = desk, views

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
        run, action, reason = control_from_wire(request)
        return operations_pb2.ControlRunResponse(index=self._desk.control_run(run, action, reason))
