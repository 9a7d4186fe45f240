"""A plan in words."""

from __future__ import annotations

from typing import Any

import pytest
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
    some = a_plan(codec={"type": "topk", "fraction": "0.02"})
    assert ", as topk with 0.02 of its numbers; what that loses is added" in " ".join(explain(some).prose)
    assert row(some, "codec", "fraction").meaning == "Share of a delta's numbers that travels."
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


def test_a_downlink_says_what_comes_and_where_what_it_loses_goes() -> None:
    plain, short, exact = (
        " ".join(explain(a_plan(downlink=downlink)).prose) for downlink in (None, {"type": "int8"}, {"type": "float32"})
    )
    assert "fetches the base model and measures" in plain
    assert "mean of the deltas, weighted by tokens. " in plain
    assert "fetches the base model, or what rounds added since the one that it holds, and measures" in short
    assert (
        "as int8 says it, so that this is all that who holds the base has to fetch; what that loses is added" in short
    )
    assert "as float32 says it" in exact
    assert "what that loses" not in exact
    adapted = " ".join(explain(a_plan(downlink={"type": "int8"}, adapter={"type": "lora"})).prose)
    assert "fetches the base model, or what rounds added since the one that it holds, and measures" in adapted
    assert row(a_plan(), "", "downlink").value == "null"
    assert not row(a_plan(downlink={"type": "int8"}), "downlink", "type").is_default


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


def told(**plan: object) -> str:
    return "\n".join(explain(a_plan(**plan)).prose)


def test_who_is_in_a_round_is_told() -> None:
    assert "invites every institution that accepted the plan;" in told()
    assert "invites 4 of the institutions that accepted the plan, in turn;" in told(
        cohort={"size": 4, "selection": "round-robin"}
    )
    over = told(cohort={"fraction": 0.5, "over_selection": 0.25})
    assert "invites a share of 0.5, and 0.25 of that beyond, of the institutions" in over
    assert "sealed when as many as were wanted have contributed" in over


def test_what_stays_in_the_house_and_what_pulls_is_told() -> None:
    assert "never leaves" not in told()
    assert "What is called ln_1, h.2 it trains for itself" in told(personal=["ln_1", "h.2"])
    assert "pulled back to the base model by 0.01 ×" in told(
        local={"fedprox_mu": "0.01", "steps": 2, "batch_size": 2, "sequence_length": 16}
    )


def test_what_becomes_of_late_deltas_is_told() -> None:
    assert "Nobody waits" not in told()
    text = told(mode={"type": "buffered", "buffer": 5, "max_staleness": 3})
    assert "sealed when 5 have contributed" in text
    assert (
        "Nobody waits: a delta that is done when its round is closed goes into the open one, up to 3 rounds late"
        in text
    )


def test_virtual_tokens_are_told() -> None:
    plan = a_plan(adapter={"type": "prompt-tuning", "num_virtual_tokens": 4}, local={"sequence_length": 8})
    assert adapter_text(plan) == "prompt-tuning, 4 virtual tokens"
    assert row(plan, "adapter", "num_virtual_tokens").value == "4"
    assert "of the adapter alone" in " ".join(explain(plan).prose)


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        ({"type": "lora", "use_dora": True}, "lora with DoRA, r 8 on all-linear"),
        ({"type": "ia3"}, "ia3 on keys, values and feed-forward"),
        ({"type": "ia3", "target_modules": ["c_attn"]}, "ia3 on c_attn"),
        ({"type": "prefix-tuning", "num_virtual_tokens": 4}, "prefix-tuning, 4 virtual tokens"),
        ({"type": "p-tuning", "num_virtual_tokens": 4}, "p-tuning, 4 virtual tokens"),
    ],
)
def test_every_adapter_has_words_and_a_number(adapter: dict[str, Any], words: str) -> None:
    plan = a_plan(adapter=adapter, local={"sequence_length": 8})
    assert adapter_text(plan) == words
    numbers = {derived.name: derived.value for derived in explain(plan).derived}
    if adapter["type"] in ("lora", "ia3"):
        layers = {"lora": 4, "ia3": 2}[adapter["type"]] if "target_modules" not in adapter else 1
        assert numbers["adapted layers"] == str(layers)
    else:
        assert numbers["room for text"] == str(plan.model.context_tokens - 4)
    assert row(plan, "adapter", "type").meaning.endswith(".")
