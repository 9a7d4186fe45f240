"""The institution's policy: each rule alone, all broken rules named, and the shipped file says what the defaults are."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from common.config import load_yaml
from common.resources import config_path
from common.terminal import WIDTH
from participant.policy import CODES, Finding, Policy, Usage, describe, examine, exhausted, judge, verdict
from participant.policy.estimates import delta_bytes
from participant.policy.rules import RULES
from tests.support.plans import a_plan
from tests.support.statements import a_plan_statement


def broken(policy: dict[str, Any], usage: Usage | None = None, **plan: Any) -> list[str]:
    return [finding.code for finding in judge(Policy(**policy), a_plan_statement(plan=a_plan(**plan)), usage)]


def test_an_ordinary_plan_breaks_no_rule_of_the_default_policy_which_asks() -> None:
    assert broken({}) == []
    assert verdict(Policy(), ()) == "ask"


DELTA_BYTES = delta_bytes(a_plan_statement())
MEASURED_ON_GPU = Usage(gpu_hours=1.0, rounds=1, seconds_per_round=3600.0, device="A GPU")
MEASURED_ON_CPU = Usage(seconds_per_round=3600.0, device="cpu")
PLUGIN = {"type": "plugin", "name": "chess", "version": "1.2.1", "model_head": "causal-lm"}
BREAKS: dict[str, tuple[dict[str, Any], dict[str, Any], Usage | None]] = {
    "policy-refuses-all": ({"answer": "refuse"}, {}, None),
    "run-not-listed": ({"runs": ["cardio-*", "lung-?"]}, {}, None),
    "model-not-listed": ({"models": ["llama"]}, {}, None),
    "quorum-too-small": ({}, {"quorum": 2}, None),
    "metrics-too-visible": ({}, {"metrics_visibility": "institution"}, None),
    "contributions-too-visible": ({}, {"contributions_visibility": "operator"}, None),
    "delta-audience": ({"allow_delta_audience": ["inspector"]}, {"delta_audience": ["inspector", "press"]}, None),
    "operator-rule": ({}, {"rule": {"type": "operator"}}, None),
    "task-plugin": ({"allow_task_plugins": ["chess==1.2.0", "go==1.2.1"]}, {"task": PLUGIN}, None),
    "model-too-large": ({"max_parameters": 79}, {}, None),
    "too-many-rounds": ({"max_rounds": 1}, {}, None),
    "retention-too-long": ({"max_retention_rounds": 1}, {}, None),
    "gpu-hours-over-budget": ({"budgets": {"gpu_hours": 1.9}}, {}, MEASURED_ON_GPU),
    "cpu-hours-over-budget": ({"budgets": {"cpu_hours": 1.9}}, {}, MEASURED_ON_CPU),
    "memory-over-budget": ({"budgets": {"memory_gb": 0.5}}, {}, None),
    "disk-over-budget": ({"budgets": {"disk_gb": 0.000001}}, {}, None),
    "traffic-over-budget": ({"budgets": {"traffic_gb": 0.000001}}, {}, None),
}


@pytest.mark.parametrize("code", BREAKS)
def test_one_broken_rule_is_one_code(code: str) -> None:
    policy, plan, usage = BREAKS[code]
    assert broken(policy, usage, **plan) == [code]


def test_every_rule_of_the_table_can_break() -> None:
    assert [rule.code for rule in RULES] == list(BREAKS)


def test_codes_are_a_stable_list() -> None:
    assert (*BREAKS, "gpu-hours-spent", "cpu-hours-spent", "traffic-spent") == CODES
    assert all(re.fullmatch(r"[a-z][a-z0-9-]{0,62}", code) for code in CODES)


def test_what_lies_exactly_at_a_bound_is_kept() -> None:
    policy = {
        "max_parameters": 80,
        "max_rounds": 2,
        "max_retention_rounds": 2,
        "min_quorum": 2,
        "metrics_visibility": "none",
        "budgets": {"gpu_hours": 2},
    }
    assert broken(policy, MEASURED_ON_GPU, quorum=2, metrics_visibility="none") == []


def test_a_plugin_is_accepted_by_name_and_version() -> None:
    assert broken({"allow_task_plugins": ["chess==1.2.1"]}, task=PLUGIN) == []


def test_null_is_no_bound() -> None:
    budgets = dict.fromkeys(("gpu_hours", "cpu_hours", "memory_gb", "disk_gb", "traffic_gb"))
    assert broken({"budgets": budgets}, MEASURED_ON_GPU) == []


def test_a_plan_that_keeps_few_deltas_keeps_a_bound_on_retention() -> None:
    assert broken({"max_retention_rounds": 1}, retention={"delta_rounds": 1}) == []


@pytest.mark.parametrize(
    ("retention", "got", "kept"),
    [
        ({}, "all 9", False),
        ({"delta_rounds": 2}, "2", True),
        ({"delta_rounds": 3}, "3", False),
        ({"delta_bytes": 2 * DELTA_BYTES}, "up to 2", True),
        ({"delta_bytes": 3 * DELTA_BYTES - 1}, "up to 2", True),
        ({"delta_bytes": 3 * DELTA_BYTES}, "up to 3", False),
        ({"delta_bytes": 1}, "up to 1", True),
        ({"delta_bytes": 50 * DELTA_BYTES}, "up to 9", False),
        ({"delta_bytes": 50 * DELTA_BYTES, "delta_rounds": 2}, "2", True),
        ({"delta_bytes": 2 * DELTA_BYTES, "delta_rounds": 5}, "up to 2", True),
    ],
    ids=str,
)
def test_a_bound_in_bytes_is_worth_as_many_rounds_as_deltas_fit_into_it(
    retention: dict[str, int], got: str, kept: bool
) -> None:
    statement = a_plan_statement(plan=a_plan(rounds=9, retention=retention))
    checks = {check.rule: check for check in examine(Policy(max_retention_rounds=2), statement)}
    found = checks["max_retention_rounds"]
    assert (found.wanted, found.got, found.kept) == ("<= 2", got, kept)


def test_hours_break_nothing_before_they_are_measured_on_that_device() -> None:
    assert broken({"budgets": {"gpu_hours": 0.001, "cpu_hours": 0.001}}) == []
    assert broken({"budgets": {"gpu_hours": 0.001}}, MEASURED_ON_CPU) == []


def test_a_run_may_fit_one_of_several_patterns() -> None:
    assert broken({"runs": ["cardio-*", "tiny-??????"]}) == []
    assert broken({"runs": []}) == ["run-not-listed"]


def test_every_broken_rule_is_found_with_line_wanted_and_got() -> None:
    policy = Policy(answer="refuse", min_quorum=5, allow_delta_audience=("inspector",))
    statement = a_plan_statement(plan=a_plan(delta_audience=("press", "inspector", "board")))
    findings = judge(policy, statement, lines={"answer": 3, "allow_delta_audience": 9})
    assert findings == (
        Finding("policy-refuses-all", "answer", "accept or ask", "refuse", 3),
        Finding("quorum-too-small", "min_quorum", ">= 5", "3", None),
        Finding("delta-audience", "allow_delta_audience", "only inspector", "board, press", 9),
    )
    assert verdict(Policy(answer="accept"), findings) == "refuse"


def test_the_examination_shows_kept_rules_too() -> None:
    checks = {check.rule: check for check in examine(Policy(), a_plan_statement(), lines={"max_rounds": 7})}
    assert len(checks) == len(RULES)
    assert all(check.kept for check in checks.values())
    rounds = checks["max_rounds"]
    assert (rounds.wanted, rounds.got, rounds.line) == ("<= 1,000", "2", 7)
    assert checks["budgets.gpu_hours"].got == "not measured yet"
    assert checks["max_retention_rounds"].wanted == "no bound"
    assert checks["allow_delta_audience"].wanted == checks["allow_delta_audience"].got == "nobody"


def test_a_spent_budget_is_named_with_what_was_used() -> None:
    policy = Policy.model_validate({"budgets": {"gpu_hours": 2, "cpu_hours": None, "traffic_gb": 1.5}})
    usage = Usage(gpu_hours=2.25, cpu_hours=900, traffic_bytes=1_500_000_000)
    assert exhausted(policy, usage, {"budgets.traffic_gb": 12}) == (
        Finding("gpu-hours-spent", "budgets.gpu_hours", "< 2 h", "2.25 h"),
        Finding("traffic-spent", "budgets.traffic_gb", "< 1.5 GB", "1.5 GB", 12),
    )
    assert exhausted(policy, Usage(gpu_hours=1.99, traffic_bytes=1_499_999_999)) == ()


# --- the file --------------------------------------------------------------------------------------------------------


def test_the_shipped_file_is_the_default_policy() -> None:
    assert load_yaml(config_path("policy.yaml"), Policy) == Policy()


def test_a_rule_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"max_round\b[\s\S]*Extra inputs are not permitted"):
        Policy.model_validate({"max_round": 3})


@pytest.mark.parametrize(
    "field", [{"runs": ["Cardio *"]}, {"agreement": "abc"}, {"budgets": {"gpu_hours": 0}}, {"max_load": -1}]
)
def test_a_value_outside_its_range_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Policy.model_validate(field)


def test_windows_are_checked_and_kept_in_their_shortest_form() -> None:
    policy = Policy.model_validate({"windows": ["sat,sun  00:00-24:00 UTC"]})
    assert policy.windows == ("sat,sun 00:00-24:00 UTC",)
    assert [str(window) for window in policy.timetable] == ["sat,sun 00:00-24:00 UTC"]
    with pytest.raises(ValidationError, match="expected a time zone"):
        Policy.model_validate({"windows": ["daily 22:00-06:00 Mars/Olympus"]})


def test_a_policy_is_described_in_lines_of_eighty_columns() -> None:
    policy = Policy.model_validate(
        {
            "windows": [f"mon-fri {hour:02d}:00-07:00 Europe/Berlin" for hour in range(18, 24)],
            "allow_delta_audience": ["inspector", "board"],
            "max_retention_rounds": 5,
            "max_load": 0.7,
            "agreement": "ab" * 32,
            "budgets": {"gpu_hours": None},
        }
    )
    for text in (describe(policy), describe(Policy())):
        assert max(map(len, text.splitlines())) <= WIDTH
    assert "answer        ask: a person decides" in describe(policy)
    assert "the coordinator and inspector, board" in describe(policy)
    assert "GPU hours" not in describe(policy)
    assert "100 CPU hours" in describe(policy)
