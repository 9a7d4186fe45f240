"""Work: what institutions ask. Each call decodes, asks a port, encodes."""

from __future__ import annotations

import math

from common.wire.convert import MAX_FOLLOW_BYTES, entries_to_wire
from common.wire.messages import LedgerEntries
from common.wire.v1 import work_pb2
from coordinator.api.calls import Call
from coordinator.api.convert import activity_from_wire, estimate_from_wire, follow_from_wire, submit_from_wire
from coordinator.ports import Board, Desk, Inquiries, LedgerReader, LedgerSlice

_WAIT_SLICE_SECONDS = 1.0
_NEVER = 2**62
"""An index that no ledger reaches."""


class WorkServicer:
    """The Work service, docs/protocol.md#transport."""

    def __init__(self, ledger: LedgerReader, desk: Desk, board: Board, inquiries: Inquiries) -> None:
        self._ledger, self._desk, self._board, self._inquiries = ledger, desk, board, inquiries

    def Follow(self, request: work_pb2.FollowRequest, call: Call) -> work_pb2.FollowResponse:  # noqa: N802  gRPC's name
        from_index, wait_seconds = follow_from_wire(request)
        self._board.heard(call.member)
        found = self._wait(from_index, wait_seconds, call)
        inquiries = self._inquiries.open_for(call.member)
        return entries_to_wire(LedgerEntries(from_index, found.envelopes, found.ledger_size, inquiries))

    def Submit(self, request: work_pb2.SubmitRequest, call: Call) -> work_pb2.SubmitResponse:  # noqa: N802
        envelope, metrics = submit_from_wire(request)
        index = self._desk.submit(call.member, envelope, metrics)
        return work_pb2.SubmitResponse(index=index)

    def Report(self, request: work_pb2.ReportRequest, call: Call) -> work_pb2.ReportResponse:  # noqa: N802
        return work_pb2.ReportResponse(round_open=self._board.report(call.member, activity_from_wire(request)))

    def Estimate(self, request: work_pb2.EstimateRequest, call: Call) -> work_pb2.EstimateResponse:  # noqa: N802
        self._inquiries.answer(call.member, estimate_from_wire(request))
        return work_pb2.EstimateResponse()

    def _wait(self, from_index: int, wait_seconds: float, call: Call) -> LedgerSlice:
        """Waits a second at a time, so that a caller who went away or was revoked does not keep the thread."""
        slices = max(1, math.ceil(wait_seconds / _WAIT_SLICE_SECONDS))
        for _ in range(slices):
            found = self._slice(from_index, wait_seconds / slices, call.member.name)
            if found.envelopes or self._inquiries.open_for(call.member) or not call.is_active():
                break
            call.check()
        return found

    def _slice(self, from_index: int, wait_seconds: float, reader: str) -> LedgerSlice:
        """Entries that this member may read; beyond the last one it waits in vain."""
        last = self._ledger.readable_until(reader)
        asked = from_index if last is None or from_index <= last else _NEVER
        found = self._ledger.slice(asked, max_bytes=MAX_FOLLOW_BYTES, wait_seconds=wait_seconds)
        last = self._ledger.readable_until(reader)  # it may have left, and been let go, while it waited
        if last is None:
            return found
        readable = found.envelopes[: max(0, last + 1 - from_index)]
        return LedgerSlice(from_index, readable, min(found.ledger_size, last + 1))
