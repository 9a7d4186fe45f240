"""What the servicers ask of the coordinator: the seam between gRPC (coordinator.api) and everything that decides.

A servicer decodes, calls one of these, encodes. Commands go through `Desk` to the engine's queue and wait for its answer;
blob bytes go straight to the blob store and never pass the engine.

    ledger      entries, heads and proofs, witnesses, members
    commands    what changes something
    work        reports, inquiries, blobs, refused calls
    recovery    what institutions bring after a restore
    views       what operators see
"""

from __future__ import annotations

from coordinator.ports.commands import NOTHING, Desk, Enrolled, EnrolmentOffer, Metrics, RenewalOffer, Steering
from coordinator.ports.ledger import LedgerReader, LedgerSlice, LogHeads, Members, WitnessDesk
from coordinator.ports.recovery import RecoveryDesk
from coordinator.ports.views import (
    CoordinatorStatus,
    EstimateView,
    EvaluationView,
    InstitutionView,
    LogLine,
    ParticipantView,
    RefusalView,
    RoundView,
    RunView,
    Views,
)
from coordinator.ports.work import Access, Activity, Arrivals, Board, BytesMoved, Inquiries, Refusals, UploadPurpose

__all__ = [
    "NOTHING",
    "Access",
    "Activity",
    "Arrivals",
    "Board",
    "BytesMoved",
    "CoordinatorStatus",
    "Desk",
    "Enrolled",
    "EnrolmentOffer",
    "EstimateView",
    "EvaluationView",
    "Inquiries",
    "InstitutionView",
    "LedgerReader",
    "LedgerSlice",
    "LogHeads",
    "LogLine",
    "Members",
    "Metrics",
    "ParticipantView",
    "RecoveryDesk",
    "RefusalView",
    "Refusals",
    "RenewalOffer",
    "RoundView",
    "RunView",
    "Steering",
    "UploadPurpose",
    "Views",
    "WitnessDesk",
]
