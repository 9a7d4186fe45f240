"""gRPC's standard health service on both listeners."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from common.wire.channel import enrolment_channel, work_channel
from tests.support.api import CONSORTIUM, Scene

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(params=["enrolment", "work"])
def stub(request: pytest.FixtureRequest, scene: Scene) -> Iterator[health_pb2_grpc.HealthStub]:
    ca_pem = scene.consortium.authority.certificate_pem
    if request.param == "enrolment":
        channel = enrolment_channel(scene.addresses.enrolment, consortium=CONSORTIUM, ca_pem=ca_pem)
    else:
        files = scene.consortium.tls("north")
        keys = {"key_pem": files.key.read_bytes(), "cert_pem": files.certificate.read_bytes()}
        channel = work_channel(scene.addresses.work, consortium=CONSORTIUM, ca_pem=ca_pem, **keys)
    with channel:
        yield health_pb2_grpc.HealthStub(channel)


def test_a_coordinator_serves_until_something_stands_in_the_way(stub: health_pb2_grpc.HealthStub, scene: Scene) -> None:
    for service in ("", "llmasos.v1.Work"):
        assert stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=30).status == SERVING
    scene.ports.faults.append("The disk is full.")
    assert stub.Check(health_pb2.HealthCheckRequest(), timeout=30).status == NOT_SERVING


def test_a_service_that_is_none_is_not_found(stub: health_pb2_grpc.HealthStub) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        stub.Check(health_pb2.HealthCheckRequest(service="elsewhere"), timeout=30)
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND


def test_watching_is_not_offered(stub: health_pb2_grpc.HealthStub) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        next(stub.Watch(health_pb2.HealthCheckRequest(), timeout=30))
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
