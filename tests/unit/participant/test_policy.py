"""The institution's policy: each rule alone, all broken rules named, and the shipped file says what the defaults are."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from common.config import load_yaml
from common.resources import config_path
from participant.policy import Finding, Policy, judge
from tests.support.plans import a_plan
from tests.support.statements import a_plan_statement


def broken(policy: dict[str, Any], **plan: Any) -> list[str]:
    return [finding.code for finding in judge(Policy(**policy), a_plan_statement(plan=a_plan(**plan)))]


def test_an_ordinary_plan_is_accepted_by_the_default_policy() -> None:
    assert broken({}) == []


RULES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "policy-refuses-all": ({"answer": "refuse"}, {}),
    "quorum-too-small": ({}, {"quorum": 2}),
    "metrics-too-visible": ({"metrics_visibility": "pooled"}, {"metrics_visibility": "institution"}),
    "delta-audience": ({"allow_delta_audience": ["inspector"]}, {"delta_audience": ["inspector", "press"]}),
    "model-too-large": ({"max_parameters": 79}, {}),
    "too-many-rounds": ({"max_rounds": 1}, {}),
}


@pytest.mark.parametrize("code", RULES)
def test_one_broken_rule_is_one_code(code: str) -> None:
    policy, plan = RULES[code]
    assert broken(policy, **plan) == [code]


def test_what_lies_exactly_at_a_bound_is_accepted() -> None:
    policy = {"max_parameters": 80, "max_rounds": 2, "min_quorum": 2, "metrics_visibility": "none"}
    assert broken(policy, quorum=2, metrics_visibility="none") == []


def test_every_broken_rule_is_found_with_what_was_wanted_and_got() -> None:
    policy = Policy(answer="refuse", min_quorum=5, allow_delta_audience=("inspector",))
    findings = judge(policy, a_plan_statement(plan=a_plan(delta_audience=("press", "inspector", "board"))))
    assert findings == (
        Finding("policy-refuses-all", "answer", "accept", "refuse"),
        Finding("quorum-too-small", "min_quorum", ">= 5", "3"),
        Finding("delta-audience", "allow_delta_audience", "only those allowed", "board, press"),
    )


def test_the_shipped_file_is_the_default_policy() -> None:
    assert load_yaml(config_path("policy.yaml"), Policy) == Policy()


def test_a_rule_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"max_round\b[\s\S]*Extra inputs are not permitted"):
        Policy.model_validate({"max_round": 3})
