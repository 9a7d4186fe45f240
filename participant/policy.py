"""The institution's policy: which plans it takes part in. A pure decision from policy.yaml and the plan; reasons are codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from common.names import Name
from common.statements.kinds import PlanStatement

_VISIBILITY = {"none": 0, "pooled": 1, "institution": 2}


class Policy(BaseModel):
    """HOME/policy.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    apiVersion: Literal["llmasos/v1"] = "llmasos/v1"  # noqa: N815  the field's name in declarative files
    answer: Annotated[Literal["accept", "refuse"], Field(description="To plans that break no rule below.")] = "accept"
    min_quorum: Annotated[int, Field(ge=1, description="With fewer, one contributor can compute another's delta.")] = 3
    metrics_visibility: Annotated[Literal["none", "pooled", "institution"], Field(description="At most.")] = (
        "institution"
    )
    allow_delta_audience: Annotated[
        tuple[Name, ...], Field(description="Auditors who may read this institution's deltas.")
    ] = ()
    max_parameters: Annotated[int, Field(ge=1)] = 10_000_000_000
    max_rounds: Annotated[int, Field(ge=1)] = 10_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule that a plan breaks."""

    code: str
    rule: str
    wanted: str
    got: str


def judge(policy: Policy, plan: PlanStatement) -> tuple[Finding, ...]:
    """Every rule of the policy that the plan breaks; none means accept."""
    parameters = sum(tensor.elements for tensor in plan.manifest)
    strangers = sorted(set(plan.plan.delta_audience) - set(policy.allow_delta_audience))
    visibility = plan.plan.metrics_visibility
    rules = (
        ("policy-refuses-all", "answer", "accept", policy.answer, policy.answer == "accept"),
        (
            "quorum-too-small",
            "min_quorum",
            f">= {policy.min_quorum}",
            str(plan.plan.quorum),
            plan.plan.quorum >= policy.min_quorum,
        ),
        (
            "metrics-too-visible",
            "metrics_visibility",
            f"at most {policy.metrics_visibility}",
            visibility,
            _VISIBILITY[visibility] <= _VISIBILITY[policy.metrics_visibility],
        ),
        ("delta-audience", "allow_delta_audience", "only those allowed", ", ".join(strangers), not strangers),
        (
            "model-too-large",
            "max_parameters",
            f"<= {policy.max_parameters:,}",
            f"{parameters:,}",
            parameters <= policy.max_parameters,
        ),
        (
            "too-many-rounds",
            "max_rounds",
            f"<= {policy.max_rounds}",
            str(plan.plan.rounds),
            plan.plan.rounds <= policy.max_rounds,
        ),
    )
    return tuple(Finding(code, rule, wanted, got) for code, rule, wanted, got, kept in rules if not kept)
