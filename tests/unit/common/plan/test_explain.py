"""A plan in words."""

from __future__ import annotations

from pydantic import BaseModel

from common.plan.explain import Row, adapter_text, explain
from common.plan.model import Plan
from tests.support.plans import a_plan


def leaves(section: BaseModel, path: str = "") -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            found |= leaves(value, f"{path}.{name}" if path else name)
        else:
            found.add((path, name))
    return found


def row(plan: Plan, section: str, field: str) -> Row:
    return next(one for one in explain(plan).rows if (one.section, one.field) == (section, field))


def number(plan: Plan, name: str) -> str:
    return next(one.value for one in explain(plan).derived if one.name == name)


def test_every_field_has_one_row_with_a_meaning() -> None:
    plan = a_plan(stop={"patience_rounds": 2})
    rows = explain(plan).rows
    assert {(one.section, one.field) for one in rows} == leaves(plan)
    assert len(rows) == len(leaves(plan))
    assert [f"{one.section}.{one.field}" for one in rows if not one.meaning] == []


def test_defaults_are_marked() -> None:
    plan = a_plan(local={"steps": 7, "sequence_length": 16})
    assert row(plan, "local", "steps") == Row("local", "steps", "7", False, "Optimizer steps a round.")
    assert row(plan, "local", "batch_size").is_default
    assert row(plan, "local.optimizer", "learning_rate").value == "0.002"
    assert row(plan, "model", "type").is_default
    assert not row(plan, "", "name").is_default


def test_another_member_of_a_union_is_no_default() -> None:
    plan = a_plan(model={"type": "llama"})
    assert not row(plan, "model", "type").is_default
    assert row(plan, "model", "hidden_size").is_default


def test_a_value_written_out_that_equals_the_default_is_a_default() -> None:
    assert row(a_plan(quorum=3), "", "quorum").is_default


def test_numbers_follow_from_the_plan() -> None:
    plan = a_plan(
        rounds=4,
        local={"steps": 5, "batch_size": 6, "micro_batch_size": 2, "sequence_length": 16},
        tokenizer={"type": "bytes"},
    )
    assert number(plan, "tokens a round") == "480"
    assert number(plan, "weight bound") == "536,870,911"
    assert number(plan, "accumulation") == "3"
    assert number(plan, "local steps in all") == "20"
    assert number(plan, "local tokens in all") == "1,920"
    assert number(plan, "vocabulary") == "257"
    assert number(plan, "parameters") == "unknown"
    assert number(a_plan(tokenizer={"type": "given", "path": "x.json"}), "vocabulary") == "unknown"


def test_a_codec_that_loses_something_says_where_that_goes() -> None:
    plain, short = (" ".join(explain(a_plan(codec={"type": name})).prose) for name in ("float32", "int8"))
    assert "It sends its delta (new minus base weights) and signs" in plain
    assert "base weights), as int8; what that loses is added to its next delta; and signs" in short
    assert row(a_plan(codec={"type": "int4"}), "codec", "type").meaning.startswith("Whole numbers from -7 to 7")
    assert not row(a_plan(codec={"type": "int4"}), "codec", "type").is_default


def test_an_adapter_is_told_where_it_changes_what_travels() -> None:
    plan = a_plan(adapter={"type": "lora", "r": 4, "target_modules": ["c_proj", "c_attn"]})
    prose = " ".join(explain(plan).prose)
    assert "fetches the base model (after its first round only the chunks with the adapter) and measures it" in prose
    assert "It sends its delta (new minus base weights, of the adapter alone) and signs" in prose
    assert number(plan, "adapted layers") == "3"
    assert row(plan, "adapter", "target_modules").value == "[c_proj, c_attn]"
    assert row(plan, "adapter", "lora_alpha").is_default
    assert adapter_text(plan) == "lora, r 4 on c_proj, c_attn"
    assert adapter_text(a_plan(adapter={"type": "lora"})) == "lora, r 8 on all-linear"
    assert adapter_text(a_plan()) == ""
    assert "adapted layers" not in {one.name for one in explain(a_plan()).derived}


def test_a_round_is_told_with_the_plans_numbers() -> None:
    prose = " ".join(explain(a_plan(quorum=4, deadline_seconds=90, delta_audience=["auditor"])).prose)
    assert "after 90 s" in prose
    assert "With 4 or more verified deltas it commits" in prose
    assert "readable by the coordinator, auditor" in prose
    assert "below 3" not in prose


def test_a_quorum_below_three_is_warned_of() -> None:
    assert "one institution can compute the other's" in " ".join(explain(a_plan(quorum=2)).prose)


def test_every_way_to_end_is_told() -> None:
    prose = explain(a_plan(stop={"target_perplexity": "12.5", "patience_rounds": 2})).prose[-1]
    assert prose.startswith("The run ends after round 2, or when the median held-out perplexity is 12.5 or below")
    assert "has not improved for 2 rounds" in prose
