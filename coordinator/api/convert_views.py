"""Views of runs and institutions as wire messages, both ways: out from the servicer, back in an operator's command."""

from __future__ import annotations

from dataclasses import asdict, fields

from common.wire import check
from common.wire.convert import blob_ref_from_wire, blob_ref_to_wire, transfer_from_wire, transfer_to_wire
from common.wire.v1 import operations_pb2
from coordinator.ports import (
    CoordinatorStatus,
    EstimateView,
    EvaluationView,
    InstitutionView,
    LogLine,
    ParticipantView,
    RefusalView,
    RoundView,
    RunView,
)

_MAX_VIEWS = 100_000


def institution_to_wire(view: InstitutionView) -> operations_pb2.Institution:
    return operations_pb2.Institution(
        name=view.name,
        roles=view.roles,
        status=view.status,
        last_seen=view.last_seen,
        certificate_expires_at=view.certificate_expires_at,
    )


def institution_from_wire(message: operations_pb2.Institution) -> InstitutionView:
    return InstitutionView(
        name=message.name,
        roles=tuple(message.roles),
        status=message.status,
        last_seen=message.last_seen,
        certificate_expires_at=message.certificate_expires_at,
    )


def run_view_to_wire(view: RunView) -> operations_pb2.RunView:
    return operations_pb2.RunView(
        run=view.run,
        plan_name=view.plan_name,
        phase=view.phase,
        round=view.round,
        rounds_planned=view.rounds_planned,
        participants=[_participant_to_wire(participant) for participant in view.participants],
        rounds=[_round_to_wire(entry) for entry in view.rounds],
        refusals=[_refusal_to_wire(refusal) for refusal in view.refusals],
        end_reason=view.end_reason,
        model=None if view.model is None else blob_ref_to_wire(view.model),
        deadline=view.deadline,
        quorum=view.quorum,
        opened_at=view.opened_at,
        eta_seconds=view.eta_seconds,
        protocol_version=view.protocol_version,
    )


def run_view_from_wire(message: operations_pb2.RunView) -> RunView:
    return RunView(
        run=message.run,
        plan_name=message.plan_name,
        phase=message.phase,
        round=message.round,
        rounds_planned=message.rounds_planned,
        participants=tuple(map(_participant_from_wire, check.repeated(message, "participants", _MAX_VIEWS))),
        rounds=tuple(map(_round_from_wire, check.repeated(message, "rounds", _MAX_VIEWS))),
        refusals=tuple(map(_refusal_from_wire, check.repeated(message, "refusals", _MAX_VIEWS))),
        end_reason=message.end_reason,
        model=blob_ref_from_wire(message.model) if message.HasField("model") else None,
        deadline=message.deadline,
        quorum=message.quorum,
        opened_at=message.opened_at,
        eta_seconds=message.eta_seconds,
        protocol_version=message.protocol_version,
    )


def estimate_view_to_wire(view: EstimateView) -> operations_pb2.EstimateView:
    return operations_pb2.EstimateView(
        institution=view.institution,
        verdict=view.verdict,
        codes=view.codes,
        seconds_per_round=view.seconds_per_round,
        availability=view.availability,
    )


def estimate_view_from_wire(message: operations_pb2.EstimateView) -> EstimateView:
    return EstimateView(
        institution=message.institution,
        verdict=message.verdict,
        codes=tuple(message.codes),
        seconds_per_round=message.seconds_per_round,
        availability=tuple(message.availability),
    )


def log_line_to_wire(line: LogLine) -> operations_pb2.LogLine:
    return operations_pb2.LogLine(
        at=line.at, round=line.round, institution=line.institution, event=line.event, text=line.text
    )


def log_line_from_wire(message: operations_pb2.LogLine) -> LogLine:
    return LogLine(message.at, message.round, message.institution, message.event, message.text)


_STATUS_FIELDS = tuple(field.name for field in fields(CoordinatorStatus))


def status_to_wire(status: CoordinatorStatus) -> operations_pb2.StatusResponse:
    return operations_pb2.StatusResponse(**asdict(status))


def status_from_wire(message: operations_pb2.StatusResponse) -> CoordinatorStatus:
    return CoordinatorStatus(**{name: getattr(message, name) for name in _STATUS_FIELDS})


def _participant_to_wire(view: ParticipantView) -> operations_pb2.ParticipantView:
    return operations_pb2.ParticipantView(
        institution=view.institution,
        state=view.state,
        steps_done=view.steps_done,
        steps_total=view.steps_total,
        tokens_done=view.tokens_done,
        bytes_down=view.bytes_down,
        bytes_up=view.bytes_up,
        loss_fixed=view.loss_fixed,
        reasons=view.reasons,
        tokens_per_second=view.tokens_per_second,
        available_at=view.available_at,
        transfer=transfer_to_wire(view.transfer),
    )


def _participant_from_wire(message: operations_pb2.ParticipantView) -> ParticipantView:
    return ParticipantView(
        institution=message.institution,
        state=message.state,
        steps_done=message.steps_done,
        steps_total=message.steps_total,
        tokens_done=message.tokens_done,
        bytes_down=message.bytes_down,
        bytes_up=message.bytes_up,
        loss_fixed=message.loss_fixed if message.HasField("loss_fixed") else None,
        reasons=tuple(message.reasons),
        tokens_per_second=message.tokens_per_second,
        available_at=message.available_at,
        transfer=transfer_from_wire(message),
    )


def _round_to_wire(view: RoundView) -> operations_pb2.RoundView:
    return operations_pb2.RoundView(
        round=view.round,
        task=view.task,
        outcome=view.outcome,
        cohort=view.cohort,
        contributors=view.contributors,
        seconds=view.seconds,
        bytes_down=view.bytes_down,
        bytes_up=view.bytes_up,
        evaluations=[_evaluation_to_wire(evaluation) for evaluation in view.evaluations],
        reason=view.reason,
    )


def _round_from_wire(message: operations_pb2.RoundView) -> RoundView:
    return RoundView(
        round=message.round,
        task=message.task,
        outcome=message.outcome,
        cohort=tuple(message.cohort),
        contributors=tuple(message.contributors),
        seconds=message.seconds,
        bytes_down=message.bytes_down,
        bytes_up=message.bytes_up,
        evaluations=tuple(map(_evaluation_from_wire, message.evaluations)),
        reason=message.reason,
    )


def _evaluation_to_wire(view: EvaluationView) -> operations_pb2.EvaluationView:
    return operations_pb2.EvaluationView(
        scope=view.scope,
        loss_sum_fixed=view.loss_sum_fixed,
        num_tokens=view.num_tokens,
        institutions=view.institutions,
    )


def _evaluation_from_wire(message: operations_pb2.EvaluationView) -> EvaluationView:
    return EvaluationView(
        scope=message.scope,
        loss_sum_fixed=message.loss_sum_fixed,
        num_tokens=message.num_tokens,
        institutions=message.institutions,
    )


def _refusal_to_wire(view: RefusalView) -> operations_pb2.RefusalView:
    return operations_pb2.RefusalView(
        index=view.index,
        institution=view.institution,
        round=view.round,
        code=view.code,
        attribution=view.attribution,
        refused_sha256=view.refused_sha256,
    )


def _refusal_from_wire(message: operations_pb2.RefusalView) -> RefusalView:
    return RefusalView(
        index=message.index,
        institution=message.institution,
        round=message.round,
        code=message.code,
        attribution=message.attribution,
        refused_sha256=message.refused_sha256,
    )
