"""The rules of a policy, as one table: stable code, field of policy.yaml, why it is there, and what it compares.

A code is all that the operator sees of a refusal; docs/operations.md lists them. `examine` says of each rule whether a plan
keeps it, `judge` names the broken ones, `exhausted` those budgets that a run has used up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from common.ledger.state import RoundRecord, RunRecord
from common.plan.tasks import Plugin
from common.statements.kinds import PlanStatement
from participant.policy import estimates
from participant.policy.estimates import GB
from participant.policy.model import Answer, Policy
from participant.policy.usage import Usage

VISIBILITY = {"none": 0, "pooled": 1, "institution": 2}
CONTRIBUTIONS = {"none": 0, "own": 1, "operator": 2}
NO_BOUND = "no bound"
UNKNOWN = "not measured yet"


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule that a plan or a run breaks. `line`: where policy.yaml says so; None where its default does."""

    code: str
    rule: str
    wanted: str
    got: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One rule, kept or broken, for people."""

    code: str
    rule: str
    wanted: str
    got: str
    kept: bool
    line: int | None
    why: str

    @property
    def finding(self) -> Finding:
        return Finding(self.code, self.rule, self.wanted, self.got, self.line)


@dataclass(frozen=True, slots=True)
class Compared:
    """What a rule wanted and got, in words, and whether that is kept."""

    wanted: str
    got: str
    kept: bool


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of the table."""

    code: str
    field: str
    why: str
    compare: Callable[[Policy, PlanStatement, Usage], Compared]


def _answer(policy: Policy, statement: PlanStatement, usage: Usage) -> Compared:
    return Compared("accept or ask", policy.answer, policy.answer != "refuse")


def _runs(policy: Policy, statement: PlanStatement, usage: Usage) -> Compared:
    kept = any(fnmatchcase(statement.run, pattern) for pattern in policy.runs)
    return Compared(" or ".join(policy.runs) or "none", statement.run, kept)


def _models(policy: Policy, statement: PlanStatement, usage: Usage) -> Compared:
    model = statement.plan.model.type
    return Compared(" or ".join(policy.models) or "none", model, model in policy.models)


def _quorum(policy: Policy, statement: PlanStatement, usage: Usage) -> Compared:
    quorum = statement.plan.quorum
    return Compared(f">= {policy.min_quorum}", str(quorum), quorum >= policy.min_quorum)


def _visibility(policy: Policy, statement: PlanStatement, usage: Usage) -> Compared:
    wanted, got = policy.metrics_visibility, statement.plan.metrics_visibility
    return Compared(f"at most {wanted}", got, VISIBILITY[got] <= VISIBILITY[wanted])


def _contributions(policy: Policy, statement: PlanStatement, usage: Usage) -> Compared:
    wanted, got = policy.contributions_visibility, statement.plan.contributions_visibility
    return Compared(f"at most {wanted}", got, CONTRIBUTIONS[got] <= CONTRIBUTIONS[wanted])


def _operator(policy: Policy, statement: PlanStatement, usage: Usage) -> Compared:
    rule = statement.plan.rule.type
    wanted = "any rule" if policy.allow_operator_rule else "a rule that everybody can recompute"
    return Compared(wanted, rule, rule != "operator" or policy.allow_operator_rule)


def _plugin(policy: Policy, statement: PlanStatement, usage: Usage) -> Compared:
    """A plugin is this institution's own program: it runs only where it was named with its version."""
    task, allowed = statement.plan.task, policy.allow_task_plugins
    wanted = " or ".join(allowed) or "none"
    if not isinstance(task, Plugin):
        return Compared(wanted, "none", True)
    return Compared(wanted, task.pinned, task.pinned in allowed)


def _audience(policy: Policy, statement: PlanStatement, usage: Usage) -> Compared:
    strangers = set(statement.plan.delta_audience) - set(policy.allow_delta_audience)
    allowed = ", ".join(policy.allow_delta_audience)
    got = ", ".join(sorted(strangers or statement.plan.delta_audience)) or "nobody"
    return Compared(f"only {allowed}" if allowed else "nobody", got, not strangers)


def _parameters(policy: Policy, statement: PlanStatement, usage: Usage) -> Compared:
    count = estimates.parameters(statement)
    return Compared(f"<= {policy.max_parameters:,}", f"{count:,}", count <= policy.max_parameters)


def _rounds(policy: Policy, statement: PlanStatement, usage: Usage) -> Compared:
    rounds = statement.plan.rounds
    return Compared(f"<= {policy.max_rounds:,}", f"{rounds:,}", rounds <= policy.max_rounds)


def _retention(policy: Policy, statement: PlanStatement, usage: Usage) -> Compared:
    """A bound in bytes is worth as many rounds as deltas fit into it: a round may have this institution's alone."""
    retention, bound = statement.plan.retention, policy.max_retention_rounds
    got = retention.rounds_kept(statement.plan.rounds, estimates.delta_bytes(statement))
    if retention.delta_rounds is None and retention.delta_bytes is None:
        shown = f"all {got:,}"
    else:
        shown = f"{got:,}" if got == retention.delta_rounds else f"up to {got:,}"
    return Compared(_at_most(bound, ""), shown, bound is None or got <= bound)


def _hours(gpu: bool) -> Callable[[Policy, PlanStatement, Usage], Compared]:
    def compare(policy: Policy, statement: PlanStatement, usage: Usage) -> Compared:
        bound = policy.budgets.gpu_hours if gpu else policy.budgets.cpu_hours
        hours = usage.expected_hours(statement.plan.rounds, gpu=gpu)
        if hours is None:
            return Compared(_at_most(bound, " h"), UNKNOWN, True)
        return Compared(_at_most(bound, " h"), _about(hours, " h"), bound is None or hours <= bound)

    return compare


def _bytes(
    budget: Callable[[Policy], float | None], needed: Callable[[PlanStatement], int]
) -> Callable[[Policy, PlanStatement, Usage], Compared]:
    def compare(policy: Policy, statement: PlanStatement, usage: Usage) -> Compared:
        bound, got = budget(policy), needed(statement) / GB
        return Compared(_at_most(bound, " GB"), _about(got, " GB"), bound is None or got <= bound)

    return compare


_USED = "A run takes time of machines that others here need; it is counted, and no round begins beyond the budget."
RULES: tuple[Rule, ...] = (
    Rule("policy-refuses-all", "answer", "An institution can stand aside without leaving.", _answer),
    Rule("run-not-listed", "runs", "A policy can be for certain runs only, by their names.", _runs),
    Rule("model-not-listed", "models", "Only architectures that were looked at here are trained here.", _models),
    Rule(
        "quorum-too-small",
        "min_quorum",
        "From a mean of two deltas, each contributor can compute the other's; so three is the least.",
        _quorum,
    ),
    Rule(
        "metrics-too-visible",
        "metrics_visibility",
        "A loss on own text tells something about that text; pooled, it is one of a sum over three or more.",
        _visibility,
    ),
    Rule(
        "contributions-too-visible",
        "contributions_visibility",
        "How far a delta moves a model, and where to, tells whose text is unlike the others', or worth little to them.",
        _contributions,
    ),
    Rule(
        "delta-audience",
        "allow_delta_audience",
        "Whoever reads a delta may learn about the text it was trained on.",
        _audience,
    ),
    Rule(
        "operator-rule",
        "allow_operator_rule",
        "Where the operator alone knows how deltas are combined, nobody else can recompute a round.",
        _operator,
    ),
    Rule(
        "task-plugin",
        "allow_task_plugins",
        "A task plugin is a program that reads the text; only versions that were looked at here run here.",
        _plugin,
    ),
    Rule(
        "model-too-large",
        "max_parameters",
        "A larger model can remember more of the text, and costs more.",
        _parameters,
    ),
    Rule("too-many-rounds", "max_rounds", "Each round sees the text again, and each costs time and traffic.", _rounds),
    Rule(
        "retention-too-long",
        "max_retention_rounds",
        "Kept deltas let others recompute a round, and can be stolen as long as they are kept.",
        _retention,
    ),
    Rule("gpu-hours-over-budget", "budgets.gpu_hours", _USED, _hours(gpu=True)),
    Rule("cpu-hours-over-budget", "budgets.cpu_hours", _USED, _hours(gpu=False)),
    Rule(
        "memory-over-budget",
        "budgets.memory_gb",
        "A worker that needs more memory than there is fails, and disturbs what runs beside it.",
        _bytes(lambda policy: policy.budgets.memory_gb, estimates.memory_bytes),
    ),
    Rule(
        "disk-over-budget",
        "budgets.disk_gb",
        "A full disk stops more than this daemon.",
        _bytes(lambda policy: policy.budgets.disk_gb, estimates.disk_bytes),
    ),
    Rule(
        "traffic-over-budget",
        "budgets.traffic_gb",
        "Models come in and deltas go out in every round, over a line that others here use too.",
        _bytes(lambda policy: policy.budgets.traffic_gb, estimates.traffic_bytes),
    ),
)

SPENT: Mapping[str, str] = {
    "gpu-hours-spent": "budgets.gpu_hours",
    "cpu-hours-spent": "budgets.cpu_hours",
    "traffic-spent": "budgets.traffic_gb",
}
"""Codes of budgets that a run has used up, and their fields."""

CODES: tuple[str, ...] = (*(rule.code for rule in RULES), *SPENT)
"""Every code that a policy gives. They are a contract: one is never used for something else, and none is renamed."""


def examine(
    policy: Policy, statement: PlanStatement, usage: Usage | None = None, lines: Mapping[str, int] | None = None
) -> tuple[Check, ...]:
    """What each rule wanted and got, in the order of the file.

    Args:
        usage: what is known of hours (participant.policy.usage); without it they are not measured, and break nothing.
        lines: the line of each field in policy.yaml, as LoadedPolicy has them.
    """
    return tuple(_check(rule, rule.compare(policy, statement, usage or Usage()), lines or {}) for rule in RULES)


def judge(
    policy: Policy, statement: PlanStatement, usage: Usage | None = None, lines: Mapping[str, int] | None = None
) -> tuple[Finding, ...]:
    """Every rule of the policy that the plan breaks; arguments as `examine`."""
    return tuple(check.finding for check in examine(policy, statement, usage, lines) if not check.kept)


def verdict(policy: Policy, findings: tuple[Finding, ...]) -> Answer:
    """What this institution answers: refuse where a rule is broken, else what the policy says to such plans."""
    return "refuse" if findings else policy.answer


def exhausted(policy: Policy, usage: Usage, lines: Mapping[str, int] | None = None) -> tuple[Finding, ...]:
    """Budgets that the run has used up: no further round of it begins here."""
    used = (
        ("gpu-hours-spent", policy.budgets.gpu_hours, usage.gpu_hours, " h"),
        ("cpu-hours-spent", policy.budgets.cpu_hours, usage.cpu_hours, " h"),
        ("traffic-spent", policy.budgets.traffic_gb, usage.traffic_bytes / GB, " GB"),
    )
    return tuple(
        Finding(code, SPENT[code], f"< {_number(bound)}{unit}", f"{_number(got)}{unit}", (lines or {}).get(SPENT[code]))
        for code, bound, got, unit in used
        if bound is not None and got >= bound
    )


def beyond_rounds(
    policy: Policy, run: RunRecord, record: RoundRecord, lines: Mapping[str, int] | None = None
) -> tuple[Finding, ...]:
    """A training round that only a control added to the plan which was accepted here, and that is beyond `max_rounds`."""
    number = len(run.committed()) + 1
    most = max(policy.max_rounds, run.statement.plan.rounds)
    if record.opened.task != "train" or number <= most:
        return ()
    line = (lines or {}).get("max_rounds")
    return (Finding("too-many-rounds", "max_rounds", f"<= {most:,}", f"{number:,}", line),)


def _check(rule: Rule, compared: Compared, lines: Mapping[str, int]) -> Check:
    line = lines.get(rule.field)
    return Check(rule.code, rule.field, compared.wanted, compared.got, compared.kept, line, rule.why)


def _at_most(bound: float | None, unit: str) -> str:
    return NO_BOUND if bound is None else f"<= {_number(bound)}{unit}"


def _about(value: float, unit: str) -> str:
    return f"about {_number(value)}{unit}" if value >= 0.01 else f"below 0.01{unit}"


def _number(value: float) -> str:
    """At most three significant digits where it is small, none after the point where it is large: 0.0321, 1.5, 1,200."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
