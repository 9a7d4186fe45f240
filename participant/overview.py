"""What `llmasos-participant status` shows, as values: from the home folder alone, whether a daemon runs or not.

with PlanDesk(home, clock) as desk:
    overview(desk, clock.now())             # JSON values by name
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from common.clock import rfc3339
from common.errors import InvalidConfiguration, LLMasOSError
from common.identity.certificates import load_certificate
from common.ledger.state import RunRecord
from common.statements.envelope import parse
from common.statements.kinds import Answer, Attestation, Contribution
from common.windows import next_closing, next_opening
from participant.config import HomeLayout, TransferSettings, load_config
from participant.datasets import data_sets
from participant.memory.journal import Egress, Journal
from participant.memory.orders import Orders
from participant.memory.records import Records
from participant.plans.deciding import PlanDesk
from participant.policy import LoadedPolicy, Policy, Usage, usage_of
from participant.policy.estimates import GB
from participant.speed import limits_at
from participant.status import read_status

WEEK = timedelta(days=7)
LOSS_SCALE = 2**16
"""Losses are kept as nats × 2^16 (docs/protocol.md)."""


def overview(desk: PlanDesk, now: datetime) -> dict[str, Any]:
    """Everything that `status` says."""
    layout = desk.layout
    journal, orders, records = Journal(layout.journal), Orders(layout.journal), Records(layout.journal)
    try:
        daemon = read_status(layout.status)
        loaded, problem = _policy(desk)
        runs = [run for run in desk.runs() if desk.institution in run.accepted]
        left = journal.egress()
        return daemon | {
            "plans_waiting": daemon.get("plans_waiting", []) if daemon["running"] else _open_plans(desk),
            "institution": desk.institution,
            "consortium": desk.state.genesis.consortium,
            "ledger_entries": len(journal.ledger()),
            "two_histories": bool(journal.checkpoints_of("conflicting")),
            "new_lineages": [each.digest for each in journal.lineages() if not each.accepted_at],
            "hours": _hours(loaded.policy if loaded else None, now),
            "speed": _speed(layout, now),
            "data": [each.model_dump(mode="json") for each in data_sets(layout)],
            "bytes_sent": sum(entry.bytes for entry in left),
            "contributions": len({entry.digest for entry in left if entry.kind == "contribution"}),
            "left_the_house": left_the_house(journal, now - WEEK, runs),
            "runs": [_run(run, records, usage_of(run, records, journal), loaded) for run in runs],
            "certificate": _certificate(layout, now),
            "policy_problem": problem,
            "orders": [
                {"order": order.kind, **order.payload, "at": order.at}
                for order in (orders.get("pause"), orders.get("leave"), orders.get("rotate"))
                if order is not None
            ],
        }
    finally:
        for part in (journal, orders, records):
            part.close()


def left_the_house(journal: Journal, since: datetime, runs: Iterable[RunRecord]) -> dict[str, Any]:
    """Bytes by kind since then, and who can read them."""
    left = journal.egress(rfc3339(since))
    by_kind: Counter[str] = Counter()
    for entry in left:
        by_kind[entry.kind] += entry.bytes
    auditors = sorted({name for run in runs for name in run.statement.plan.delta_audience})
    return {
        "since": rfc3339(since),
        "bytes": sum(by_kind.values()),
        "by_kind": dict(by_kind),
        "readers": ["coordinator", *auditors],
    }


def runs_of_egress(journal: Journal, runs: Iterable[RunRecord]) -> dict[str, str]:
    """The run that each booked digest belongs to: a statement's, a blob's, or that of the round which reports were of."""
    found: dict[str, str] = {}
    for run in runs:
        found |= {record.place.digest: run.run for record in run.rounds}
    for signed in journal.all_signed():
        predicate = parse(signed.envelope).predicate
        if isinstance(predicate, Answer | Attestation | Contribution):
            found[signed.digest] = predicate.run
        if isinstance(predicate, Contribution):
            found |= {ref.root: predicate.run for ref in predicate.blobs.values()}
    return found


def egress_of(journal: Journal, since: datetime | None, run: str | None, runs: Iterable[RunRecord]) -> list[Egress]:
    """What left since then, of one run or of all, oldest first."""
    left = journal.egress(rfc3339(since) if since is not None else "")
    if run is None:
        return left
    belongs = runs_of_egress(journal, runs)
    return [entry for entry in left if belongs.get(entry.digest) == run]


def perplexity(loss_sum_fixed: int, num_tokens: int) -> float:
    """exp of the mean loss; infinite where nothing was measured."""
    return math.exp(loss_sum_fixed / LOSS_SCALE / num_tokens) if num_tokens else math.inf


def _open_plans(desk: PlanDesk) -> list[dict[str, str]]:
    """Plans that nobody has answered or decided on, where no daemon says what they wait for; only trainers are asked."""
    if desk.institution not in desk.state.active_trainers:
        return []
    return [
        {"run": run.run, "why": "not answered, no daemon runs", "command": f"llmasos-participant plan accept {run.run}"}
        for run in desk.runs()
        if run.ended is None and desk.standing(run).state == "open"
    ]


def _policy(desk: PlanDesk) -> tuple[LoadedPolicy | None, str]:
    try:
        return desk.policy, ""
    except InvalidConfiguration as err:
        return None, err.message


def _hours(policy: Policy | None, now: datetime) -> dict[str, str]:
    """When the policy's windows close or open next; empty where they never do."""
    windows = policy.timetable if policy is not None else ()
    closes, opens = next_closing(windows, now), next_opening(windows, now)
    return {"closes": rfc3339(closes) if closes else "", "opens": rfc3339(opens) if opens else ""}


def _speed(layout: HomeLayout, now: datetime) -> dict[str, Any]:
    """How fast transfers may be now, Mbit/s, and until when; None where there is no limit."""
    try:
        settings = load_config(layout.home).transfer
    except InvalidConfiguration:
        settings = TransferSettings()  # what is wrong with the file, `doctor` and the next start say
    limits = limits_at(settings, now)
    return {"up": limits.up, "down": limits.down, "until": rfc3339(limits.until) if limits.until else ""}


def _run(run: RunRecord, records: Records, usage: Usage, loaded: LoadedPolicy | None) -> dict[str, Any]:
    alone = records.alone(run.run)
    return {
        "run": run.run,
        "ended": run.ended.reason if run.ended is not None else "",
        "rounds_committed": len(run.committed()),
        "rounds_planned": run.rounds_planned,
        "delta_audience": list(run.statement.plan.delta_audience),
        "budgets": _budgets(usage, loaded),
        "own_text": [
            {"round": each.round, "perplexity": perplexity(each.loss_sum_fixed, each.num_tokens)}
            for each in records.measurements(run.run)
        ],
        "alone": None
        if alone is None
        else {"steps": alone.steps, "perplexity": perplexity(alone.loss_sum_fixed, alone.num_tokens)},
    }


def _budgets(usage: Usage, loaded: LoadedPolicy | None) -> list[dict[str, Any]]:
    budgets = loaded.policy.budgets if loaded is not None else None
    used = (
        ("gpu_hours", usage.gpu_hours, budgets.gpu_hours if budgets else None),
        ("cpu_hours", usage.cpu_hours, budgets.cpu_hours if budgets else None),
        ("traffic_gb", usage.traffic_bytes / GB, budgets.traffic_gb if budgets else None),
    )
    return [{"budget": name, "used": amount, "limit": limit} for name, amount, limit in used if amount or limit]


def _certificate(layout: HomeLayout, now: datetime) -> dict[str, Any]:
    try:
        expires = load_certificate(layout.tls_certificate.read_bytes()).not_valid_after_utc
    except (OSError, LLMasOSError):
        return {"expires": "", "days_left": 0}
    return {"expires": rfc3339(expires), "days_left": (expires - now).days}
