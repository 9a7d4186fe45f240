"""Work: what institutions ask. Each call decodes, asks a port, encodes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from common.wire.convert import MAX_FOLLOW_BYTES, entries_to_wire
from common.wire.convert_log import approve_from_wire, approved_to_wire, proposals_to_wire
from common.wire.convert_recovery import present_from_wire, wanted_to_wire
from common.wire.messages import LedgerEntries
from common.wire.v1 import work_pb2
from coordinator.api.calls import Call
from coordinator.api.convert import (
    FollowAsked,
    activity_from_wire,
    estimate_from_wire,
    follow_from_wire,
    submit_from_wire,
)
from coordinator.ports import Board, Desk, Inquiries, LedgerReader, LedgerSlice, LogHeads, RecoveryDesk, WitnessDesk

_WAIT_SLICE_SECONDS = 1.0
_NEVER = 2**62
"""An index that no ledger reaches."""


@dataclass(frozen=True, slots=True)
class WorkPorts:
    """What the service asks."""

    ledger: LedgerReader
    log: LogHeads
    witnesses: WitnessDesk
    desk: Desk
    board: Board
    inquiries: Inquiries
    recovery: RecoveryDesk


class WorkServicer:
    """The Work service, docs/protocol.md#transport."""

    def __init__(self, ports: WorkPorts) -> None:
        self._ledger, self._desk, self._board, self._inquiries = ports.ledger, ports.desk, ports.board, ports.inquiries
        self._log, self._witnesses, self._recovery = ports.log, ports.witnesses, ports.recovery

    def Follow(self, request: work_pb2.FollowRequest, call: Call) -> work_pb2.FollowResponse:  # noqa: N802  gRPC's name
        asked = follow_from_wire(request)
        self._board.heard(call.member)
        self._recovery.expect_following(call.member.name, asked.known, asked.lineage)
        if asked.cosignature is not None:
            self._witnesses.take(call.member, asked.cosignature)
        found = self._wait(asked, call)
        self._recovery.expect_following(call.member.name, asked.known, asked.lineage)
        return entries_to_wire(
            LedgerEntries(
                first_index=asked.from_index,
                envelopes=found.envelopes,
                ledger_size=found.ledger_size,
                inquiries=self._inquiries.open_for(call.member),
                checkpoint=self._log.newest().encode(),
                cosigned=self._witnesses.notes_beyond(asked.cosigned_size),
                open_proposals=self._desk.open_proposals,
            )
        )

    def Submit(self, request: work_pb2.SubmitRequest, call: Call) -> work_pb2.SubmitResponse:  # noqa: N802
        envelope, metrics = submit_from_wire(request)
        self._recovery.expect_following(call.member.name)
        index = self._desk.submit(call.member, envelope, metrics)
        return work_pb2.SubmitResponse(index=index)

    def Report(self, request: work_pb2.ReportRequest, call: Call) -> work_pb2.ReportResponse:  # noqa: N802
        self._recovery.expect_following(call.member.name)  # which rounds are open is not known
        return work_pb2.ReportResponse(round_open=self._board.report(call.member, activity_from_wire(request)))

    def Estimate(self, request: work_pb2.EstimateRequest, call: Call) -> work_pb2.EstimateResponse:  # noqa: N802
        self._inquiries.answer(call.member, estimate_from_wire(request))
        return work_pb2.EstimateResponse()

    def Proposals(self, request: work_pb2.ProposalsRequest, call: Call) -> work_pb2.ProposalsResponse:  # noqa: N802
        return proposals_to_wire(self._desk.proposals())

    def Approve(self, request: work_pb2.ApproveRequest, call: Call) -> work_pb2.ApproveResponse:  # noqa: N802
        return approved_to_wire(self._desk.approve(call.member, *approve_from_wire(request)))

    def Present(self, request: work_pb2.PresentRequest, call: Call) -> work_pb2.PresentResponse:  # noqa: N802
        self._board.heard(call.member)
        return wanted_to_wire(self._recovery.present(call.member, present_from_wire(request)))

    def _wait(self, asked: FollowAsked, call: Call) -> LedgerSlice:
        """Waits a second at a time, so that a caller who went away or was revoked does not keep the thread."""
        slices = max(1, math.ceil(asked.wait_seconds / _WAIT_SLICE_SECONDS))
        for _ in range(slices):
            found = self._slice(asked, asked.wait_seconds / slices, call.member.name)
            if found.envelopes or self._inquiries.open_for(call.member) or not call.is_active():
                break
            if self._witnesses.newly_covers(asked.cosigned_size) or self._recovery.pending:
                break
            call.check()
        return found

    def _slice(self, asked: FollowAsked, wait_seconds: float, reader: str) -> LedgerSlice:
        """Entries that this member may read; beyond the last one it waits in vain.

        Checkpoints it gets like everybody: they hold hashes alone, and show it that what it read was not cut off elsewhere.
        """
        last = self._ledger.readable_until(reader)
        from_index = asked.from_index
        found = self._ledger.slice(
            from_index if last is None or from_index <= last else _NEVER,
            max_bytes=MAX_FOLLOW_BYTES,
            wait_seconds=wait_seconds,
            or_when=lambda: self._witnesses.newly_covers(asked.cosigned_size) or self._recovery.pending,
        )
        last = self._ledger.readable_until(reader)  # it may have left, and been let go, while it waited
        if last is None:
            return found
        readable = found.envelopes[: max(0, last + 1 - from_index)]
        return LedgerSlice(from_index, readable, min(found.ledger_size, last + 1))
