"""What institutions measured: checked against the commitment in the ledger, kept beside it, shown as far as the plan allows."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import BadCommitment, UnknownObject, UsageError
from common.ledger.state import RoundRecord, RunRecord
from common.logs import get_logger
from common.statements.envelope import Statement, UnverifiedStatement
from common.statements.kinds import Contribution
from common.strict_json import StrictJsonError, dumps, loads
from coordinator.ledger import Ledger
from coordinator.ports import EvaluationView, Metrics
from coordinator.rounds.phases import Evaluations, EvaluationSums
from coordinator.store.database import Database, MetricsRow

log = get_logger(__name__)

MAX_METRICS_BYTES = 64 * 1024
POOL_AT_LEAST = 3
"""Sums over fewer institutions would show single ones'."""


class MeasuredLoss(BaseModel):
    """A sum of losses, nats × 2^16, and over how many tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    loss_sum_fixed: int = Field(ge=0, lt=2**53)
    num_tokens: int = Field(ge=0, lt=2**40)


class ContributionMetrics(BaseModel):
    """What travels beside a contribution where the plan lets it: held-out loss of the round's base model."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    evaluation: MeasuredLoss
    train_loss_fixed: int | None = Field(default=None, ge=0, lt=2**53)


def metrics_row(
    run: RunRecord, statement: Statement | UnverifiedStatement, metrics: Metrics | None
) -> MetricsRow | None:
    """The row to keep for a contribution, or None where the plan keeps metrics at home.

    Raises:
        BadCommitment: metrics are absent, too large, not well formed, or not what was committed to.
    """
    if run.statement.plan.metrics_visibility == "none" or not isinstance(statement.predicate, Contribution):
        return None
    committed = statement.predicate.metrics_commitment
    if metrics is None or committed is None:
        raise BadCommitment("The plan asks for metrics beside each contribution; none came.")
    if len(metrics.content) > MAX_METRICS_BYTES or len(metrics.salt) != 32:
        raise BadCommitment(
            f"Metrics have {len(metrics.content):,} bytes and a salt of {len(metrics.salt)}, "
            f"expected at most {MAX_METRICS_BYTES:,} and 32."
        )
    if not hmac.compare_digest(sha256(metrics.salt + metrics.content).hexdigest(), committed):
        raise BadCommitment("Metrics and salt do not give the commitment in the contribution.")
    parse_metrics(metrics.content)
    return MetricsRow(statement.digest, run.run, metrics.content, metrics.salt)


def parse_metrics(content: bytes) -> ContributionMetrics:
    """
    Raises:
        BadCommitment: the bytes are not metrics.
    """
    try:
        canonical = dumps(loads(content, max_bytes=MAX_METRICS_BYTES, max_depth=4)) == content
        measured = ContributionMetrics.model_validate_json(content)
    except (StrictJsonError, ValidationError) as err:
        raise BadCommitment("The metrics are not of the form that docs/protocol.md#metrics gives.") from err
    if not canonical:
        raise BadCommitment("The metrics are not canonical JSON: sorted keys, no spaces.")
    return measured


@dataclass(frozen=True, slots=True)
class _Read:
    """What was read of one run's closed rounds, until somebody's measurements may be deleted."""

    run: str
    deletions: int
    departures: object
    closed: dict[int, tuple[EvaluationSums, ...]] = field(default_factory=dict)


class StoredMeasurements:
    """The engine's Measurements, from the metrics table."""

    def __init__(self, ledger: Ledger, database: Database) -> None:
        self._ledger = ledger
        self._database = database
        self._read = _Read("", -1, None)

    def evaluations(self, run: str) -> Evaluations:
        """Every institution's measurement, by round. On the engine's thread; a closed round is read once."""
        state, read = self._ledger.state, self._read
        if (read.run, read.deletions) != (run, self.deletions) or read.departures is not state.departures:
            read = self._read = _Read(run, self.deletions, state.departures)
        found: dict[int, tuple[EvaluationSums, ...]] = {}
        for record in state.runs[run].rounds:
            known = read.closed.get(record.number)
            found[record.number] = sums = self.of_round(record) if known is None else known
            if record.closed is not None:
                read.closed[record.number] = sums
        return {number: sums for number, sums in found.items() if sums}

    def of_round(self, record: RoundRecord) -> tuple[EvaluationSums, ...]:
        """What was measured in one round."""
        digests = [entry.place.digest for entry in record.contributions.values()]
        return _sums(record, self._database.metrics_of(digests))

    @property
    def deletions(self) -> int:
        """Grows with each deletion: what was composed of measurements before is out of date."""
        return self._database.deletions

    def delete(self, run: RunRecord, institution: str = "") -> int:
        """Delete what was measured in a run that has ended, by one institution or by all; how many records there were.

        Their commitments stay in the ledger. On the engine's thread.

        Raises:
            UsageError: the run goes on; its stop rules look at what was measured.
            UnknownObject: that institution contributed nothing to the run.
        """
        if run.ended is None:
            raise UsageError(
                f"Run {run.run} goes on: whether it stops depends on what was measured.",
                f"Wait until it has ended, or end it: llmasos-coordinator run abort {run.run}.",
            )
        digests = [
            entry.place.digest
            for record in run.rounds
            for name, entry in record.contributions.items()
            if institution in {"", name}
        ]
        if institution and not digests:
            raise UnknownObject(f"{institution} contributed nothing to {run.run}.")
        with self._database.transaction() as tx:
            deleted = tx.delete_metrics(digests)
        self._database.let_go_of_deleted()
        log.info("metrics deleted", extra={"run": run.run, "institution": institution, "records": deleted})
        return deleted


def _sums(record: RoundRecord, rows: Mapping[str, MetricsRow]) -> tuple[EvaluationSums, ...]:
    """A round's measurements, ascending by institution; what came with a late delta is of an older model, and left out."""
    found = []
    for name in sorted(record.contributions):
        entry = record.contributions[name]
        row = rows.get(entry.place.digest)
        if row is not None and entry.contribution.round == record.number:
            loss = parse_metrics(row.content).evaluation
            found.append(EvaluationSums(name, loss.loss_sum_fixed, loss.num_tokens))
    return tuple(found)


def visible(sums: Sequence[EvaluationSums], visibility: str) -> tuple[EvaluationView, ...]:
    """What an operator may see: the pool over three or more, and single institutions where the plan says so."""
    measured = [entry for entry in sums if entry.num_tokens > 0]
    views: list[EvaluationView] = []
    if visibility == "institution" or (visibility == "pooled" and len(measured) >= POOL_AT_LEAST):
        loss = sum(entry.loss_sum_fixed for entry in measured)
        views.append(EvaluationView("pooled", loss, sum(entry.num_tokens for entry in measured), len(measured)))
    if visibility == "institution":
        views += [EvaluationView(entry.institution, entry.loss_sum_fixed, entry.num_tokens, 1) for entry in measured]
    return tuple(views)
