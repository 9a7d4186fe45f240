"""Log: signed heads and proofs, for members on the work listener and for anybody on the enrolment listener."""

from __future__ import annotations

from common.wire.convert_log import head_to_wire
from common.wire.v1 import log_pb2
from coordinator.api.calls import Call
from coordinator.api.convert import head_request_from_wire, prove_from_wire
from coordinator.ports import LogHeads


class LogServicer:
    """The Log service, docs/protocol.md#checkpoints. Proofs are hashes alone, so it asks nobody who they are.

    Args:
        cosigned: whether checkpoints come with cosignatures: these bear institutions' names, for members to read.
    """

    def __init__(self, log: LogHeads, *, cosigned: bool) -> None:
        self._log, self._cosigned = log, cosigned

    def Head(self, request: log_pb2.HeadRequest, call: Call) -> log_pb2.HeadResponse:  # noqa: N802  gRPC's name
        return head_to_wire(self._log.head(head_request_from_wire(request), cosigned=self._cosigned))

    def Prove(self, request: log_pb2.ProveRequest, call: Call) -> log_pb2.ProveResponse:  # noqa: N802
        receipt = self._log.receipt(prove_from_wire(request), cosigned=self._cosigned)
        return log_pb2.ProveResponse(receipt=receipt)
