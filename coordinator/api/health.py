"""The standard health service, on both listeners. `Check` and no `Watch`, which would hold a thread for each probe.

Source: https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from common.errors import UnknownObject
from common.health import Health
from coordinator.api.calls import Call

SERVICE = "grpc.health.v1.Health"
_SERVICES = frozenset({"", *(f"llmasos.v1.{name}" for name in ("Work", "Blobs", "Operations", "Log", "Enrolment"))})


class HealthServicer:
    """Says SERVING or NOT_SERVING of all services together: they share ledger, disk and engine."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def Check(self, request: Any, call: Call) -> Any:  # noqa: N802  gRPC's name
        del call
        if request.service not in _SERVICES:
            raise UnknownObject(f"There is no service {request.service[:100]!r} here.")
        states = health_pb2.HealthCheckResponse
        return states(status=states.NOT_SERVING if self._health.ready() else states.SERVING)


def add_health_to_server(servicer: HealthServicer, server: Any) -> None:
    """`Check` and no more."""
    check = grpc.unary_unary_rpc_method_handler(
        servicer.Check,
        request_deserializer=health_pb2.HealthCheckRequest.FromString,
        response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
    )
    server.add_registered_method_handlers(SERVICE, {"Check": check})
