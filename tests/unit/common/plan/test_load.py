"""Plans between YAML and the model."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import strict_json, strict_yaml
from common.errors import InvalidConfiguration
from common.plan.adapters import IA3, LoRA, NoAdapter
from common.plan.architectures import BERT, GPT2, T5, Llama, Transformer
from common.plan.load import load_plan, plan_schema, plan_yaml
from common.plan.local import MAX_NUM_TOKENS
from common.plan.model import Plan

SMALLEST = "apiVersion: llmasos/v1\nname: tiny\n"


def load(tmp_path: Path, text: str) -> Plan:
    path = tmp_path / "plan.yaml"
    path.write_text(text, encoding="utf-8")
    return load_plan(path)


def test_the_smallest_plan_is_all_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, SMALLEST) == Plan(apiVersion="llmasos/v1", name="tiny")


def test_numbers_are_exactly_those_written(tmp_path: Path) -> None:
    plan = load(tmp_path, SMALLEST + "local: {optimizer: {learning_rate: 0.1, epsilon: 1e-12, weight_decay: '0.05'}}\n")
    assert plan.local.optimizer.learning_rate == Decimal("0.1")
    assert plan.local.optimizer.epsilon == Decimal("1e-12")
    assert plan.local.optimizer.weight_decay == Decimal("0.05")


def test_overrides_win_and_none_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(SMALLEST + "rounds: 5\n")
    plan = load_plan(path, overrides={"local.steps": 3, "rounds": None})
    assert (plan.local.steps, plan.rounds) == (3, 5)


def test_the_environment_never_changes_a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMASOS_LOCAL__STEPS", "999")
    assert load(tmp_path, SMALLEST).local.steps == 25


WRONG = {
    "no version": ("name: tiny\n", r":1: apiVersion: expected a value, for it has no default\."),
    "another version": (
        "apiVersion: llmasos/v2\nname: x\n",
        r":1: apiVersion: expected 'llmasos/v1', got 'llmasos/v2'\.",
    ),
    "a bad name": (
        "apiVersion: llmasos/v1\nname: My Plan\n",
        r":2: name: expected 1 to 63 lower-case .*, got 'My Plan'\.",
    ),
    "an unknown field": (SMALLEST + "local:\n  stepz: 3\n", r":4: local\.stepz: unknown field; did you mean 'steps'\?"),
    "another model's field": (
        SMALLEST + "model:\n  type: gpt2\n  hidden_size: 3\n",
        r":5: model\.hidden_size: unknown field; known here: .*n_embd",
    ),
    "an unknown model": (
        SMALLEST + "model: {type: elmo}\n",
        r":3: model\.type: expected one of 'gpt2', 'llama', .*'transformer', got 'elmo'\.",
    ),
    "a model that cannot do the task": (
        SMALLEST + "model: {type: bert}\n",
        r"task causal-lm needs a model with head causal-lm \(gpt2, llama, .*, transformer with architecture decoder-only\), "
        r"got bert\.",
    ),
    "half of a Transformer": (
        SMALLEST + "model: {type: transformer, architecture: encoder-decoder}\n",
        r"got transformer with architecture encoder-decoder\.",
    ),
    "a T5 of one distance": (
        SMALLEST + "model: {type: t5, relative_attention_num_buckets: 64, relative_attention_max_distance: 64}\n",
        r"relative_attention_max_distance must exceed relative_attention_num_buckets",
    ),
    "virtual tokens beyond the context": (
        SMALLEST + "adapter: {type: prompt-tuning, num_virtual_tokens: 8}\n",
        r"adapter\.num_virtual_tokens 8 and local\.sequence_length 128 exceed the model's context 128\.",
    ),
    "virtual tokens of a model that sees all": (
        SMALLEST + "model: {type: bert}\ntask: {type: masked-lm}\nadapter: {type: prompt-tuning}\n",
        r"adapter prompt-tuning needs a model with head causal-lm, got head masked-lm of bert\.",
    ),
    "no model type": (
        SMALLEST + "model:\n  n_layer: 2\n",
        r":3: model\.type: expected one of 'gpt2', 'llama', .*'transformer', got nothing\.",
    ),
    "a word for a number": (
        SMALLEST + "local: {optimizer: {learning_rate: fast}}\n",
        r"learning_rate: .*, got 'fast'\.",
    ),
    "infinity": (SMALLEST + "max_delta_l2: Infinity\n", r":3: max_delta_l2: expected a finite number, got"),
    "zero steps": (SMALLEST + "local: {steps: 0}\n", r":3: local\.steps: expected at least 1, got 0\."),
    "heads that do not divide": (
        SMALLEST + "model: {type: gpt2, n_head: 3}\n",
        r":3: model: n_head must divide n_embd",
    ),
    "a context too short": (
        SMALLEST + "local: {sequence_length: 4096}\n",
        r"local\.sequence_length is 4096, the model's context 128\.",
    ),
    "bert for a causal task": (
        SMALLEST + "model: {type: bert}\n",
        r"task causal-lm needs a model with head causal-lm \(gpt2, llama, .*\), got bert\.",
    ),
    "a tokenizer larger than the embedding": (
        SMALLEST + "task: {type: masked-lm}\nmodel: {type: bert, vocab_size: 260}\n",
        r"tokenizer bytes has 261 tokens for task masked-lm, the model's embedding 260 rows \(model\.vocab_size\)",
    ),
    "a weight beyond the bound": (
        SMALLEST + "local: {steps: 1000000, batch_size: 65536}\n",
        rf":3: local: steps × batch_size × sequence_length is [0-9,]+, at most {MAX_NUM_TOKENS:,} a round\.",
    ),
    "a cohort below the quorum": (SMALLEST + "cohort: {size: 2}\n", r"cohort\.size 2 is below quorum 3\."),
    "a personal layer twice": (SMALLEST + "personal: [ln_1, ln_1]\n", r"personal names a layer twice\."),
    "no layer's name": (SMALLEST + "personal: [ln..1]\n", r"personal"),
    "a buffer and a part of everyone": (
        SMALLEST + "cohort: {size: 4}\nmode: {type: buffered, buffer: 3}\n",
        r"mode buffered invites everyone who accepted; leave cohort\.size and cohort\.fraction out\.",
    ),
    "a buffer below the quorum": (
        SMALLEST + "mode: {type: buffered, buffer: 2}\n",
        r"mode\.buffer 2 is below quorum 3\.",
    ),
    "two sizes of a cohort": (
        SMALLEST + "cohort: {size: 4, fraction: 0.5}\n",
        r":3: cohort: cohort has both size and fraction, expected one of them\.",
    ),
    "a selection of everyone": (
        SMALLEST + "cohort: {selection: available}\n",
        r":3: cohort: cohort\.selection available needs cohort\.size or cohort\.fraction to draw by\.",
    ),
    "more than everyone": (
        SMALLEST + "cohort: {over_selection: 0.25}\n",
        r":3: cohort: cohort\.over_selection needs cohort\.size or cohort\.fraction to invite more than\.",
    ),
    "a target that the model has not": (
        SMALLEST + "adapter: {type: lora, target_modules: [c_attn, q_proj, h.0.c_fc]}\n",
        r"adapter\.target_modules names q_proj, h\.0\.c_fc, which a block of gpt2 has not; "
        r"its linear layers are attn\.c_attn, attn\.c_proj, mlp\.c_fc, mlp\.c_proj",
    ),
    "half of a layer's name": (
        SMALLEST + "model: {type: llama}\nadapter: {type: lora, target_modules: [proj]}\n",
        r"adapter\.target_modules names proj, which a block of llama has not",
    ),
    "a target twice": (
        SMALLEST + "adapter: {type: lora, target_modules: [c_attn, c_attn]}\n",
        r":3: adapter: target_modules names a layer twice",
    ),
    "no target": (SMALLEST + "adapter: {type: lora, target_modules: []}\n", r"adapter\.target_modules"),
    "an adapter's field of another library": (
        SMALLEST + "adapter:\n  type: lora\n  rank: 4\n",
        r":5: adapter\.rank: unknown field; known here: .*lora_alpha",
    ),
    "another adapter": (
        SMALLEST + "adapter: {type: prefix}\n",
        r":3: adapter\.type: expected one of 'none', 'lora', 'ia3', .*'prefix-tuning', 'p-tuning', got 'prefix'\.",
    ),
    "a prefix of a model that writes another text": (
        SMALLEST + "model: {type: t5}\ntask: {type: seq2seq}\nadapter: {type: prefix-tuning}\n",
        r"adapter prefix-tuning needs a model with head causal-lm, got head seq2seq-lm of t5\.",
    ),
    "a prefix and layers computed again": (
        SMALLEST + "adapter: {type: prefix-tuning}\nlocal: {gradient_checkpointing: true, sequence_length: 64}\n",
        r"adapter prefix-tuning needs local\.gradient_checkpointing false: layers that are computed again have no cache",
    ),
    "a prefix out of sight": (
        SMALLEST
        + "model: {type: mistral, attention: {type: sliding-window}}\nadapter: {type: prefix-tuning}\n"
        + "local: {sequence_length: 64}\n",
        r"adapter prefix-tuning needs model\.attention full, got sliding-window: later tokens would not see the prefix",
    ),
    "a prefix beyond the context": (
        SMALLEST + "adapter: {type: prefix-tuning}\n",
        r"adapter\.num_virtual_tokens 16 and local\.sequence_length 128 exceed the model's context 128\.",
    ),
    "the width of no network": (
        SMALLEST + "adapter: {type: prefix-tuning, encoder_hidden_size: 8}\nlocal: {sequence_length: 64}\n",
        r":3: adapter: encoder_hidden_size needs prefix_projection: true",
    ),
    "p-tuning of a model that sees all": (
        SMALLEST + "model: {type: bert}\ntask: {type: masked-lm}\nadapter: {type: p-tuning}\n",
        r"adapter p-tuning needs a model with head causal-lm, got head masked-lm of bert\.",
    ),
    "an LSTM's layers without one": (
        SMALLEST + "adapter: {type: p-tuning, encoder_num_layers: 3}\n",
        r":3: adapter: encoder_num_layers and encoder_dropout are of encoder_reparameterization_type LSTM, got MLP",
    ),
    "dropout between one layer": (
        SMALLEST
        + "adapter:\n  {type: p-tuning, encoder_reparameterization_type: LSTM, encoder_num_layers: 1, encoder_dropout: 0.1}\n",
        r"encoder_dropout is between layers of the LSTM, and encoder_num_layers is 1: leave one out",
    ),
    "a network beyond the bound": (
        SMALLEST + "adapter: {type: p-tuning, encoder_hidden_size: 32769}\n",
        r"adapter\.encoder_hidden_size: expected at most 32768",
    ),
    "layers beyond the bound": (
        SMALLEST + "adapter: {type: p-tuning, encoder_reparameterization_type: LSTM, encoder_num_layers: 17}\n",
        r"adapter\.encoder_num_layers: expected at most 16",
    ),
    "virtual tokens beyond the bound": (
        SMALLEST + "adapter: {type: p-tuning, num_virtual_tokens: 4097}\n",
        r"adapter\.num_virtual_tokens: expected at most 4096",
    ),
    "a kind of LoRA": (
        SMALLEST + "adapter: {type: dora}\n",
        r"adapter\.type: expected one of 'none', 'lora', .* got 'dora'",
    ),
    "a vector's target that the model has not": (
        SMALLEST + "adapter: {type: ia3, target_modules: [k_proj]}\n",
        r"adapter\.target_modules names k_proj, which a block of gpt2 has not",
    ),
    "vectors for matrices' optimizer": (
        SMALLEST + "adapter: {type: ia3}\nlocal: {optimizer: {type: muon}}\n",
        r"adapter ia3 trains vectors, local\.optimizer muon matrices; expected another optimizer",
    ),
    "too many targets": (
        SMALLEST + f"adapter: {{type: lora, target_modules: {[f'a{number}' for number in range(101)]}}}\n",
        r"adapter\.target_modules.*at most 100",
    ),
    "a rank beyond the bound": (SMALLEST + "adapter: {type: lora, r: 4097}\n", r"adapter\.r: expected at most 4096"),
    "preferences without a model without": (
        SMALLEST + "task: {type: preference}\nadapter: {type: prompt-tuning}\n",
        r"task preference needs adapter lora or ia3, got prompt-tuning: without its adapter the model is the reference",
    ),
    "bpe without text": (SMALLEST + "tokenizer: {type: bpe}\n", r":3: tokenizer\.text: expected a value"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_plan_says_where_and_what(tmp_path: Path, name: str) -> None:
    text, message = WRONG[name]
    with pytest.raises(InvalidConfiguration, match=message):
        load(tmp_path, text)


def test_an_adapters_defaults_are_peft_s_names_and_all_linear_layers(tmp_path: Path) -> None:
    plan = load(tmp_path, SMALLEST + "adapter: {type: lora}\n")
    assert plan.adapter == LoRA(r=8, lora_alpha=16, lora_dropout=Decimal(0), target_modules="all-linear")
    assert plan.adapter.targets(plan.model) == ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    some = load(
        tmp_path, SMALLEST + "model: {type: llama}\nadapter: {type: lora, target_modules: [v_proj, mlp.up_proj]}\n"
    )
    assert isinstance(some.adapter, LoRA)
    assert some.adapter.targets(some.model) == ("self_attn.v_proj", "mlp.up_proj")
    assert load(tmp_path, plan_yaml(some)) == some
    assert Plan.model_validate_json(some.model_dump_json()) == some


def test_vectors_stand_by_default_where_the_paper_puts_them(tmp_path: Path) -> None:
    for model, before, after in (
        ("gpt2", ("mlp.c_proj",), ("attn.c_attn",)),
        ("qwen3", ("mlp.down_proj",), ("self_attn.k_proj", "self_attn.v_proj")),
        ("transformer", ("fc2",), ("self_attn.k_proj", "self_attn.v_proj")),
    ):
        plan = load(tmp_path, SMALLEST + f"model: {{type: {model}}}\nadapter: {{type: ia3}}\n")
        assert isinstance(plan.adapter, IA3)
        assert plan.adapter.targets(plan.model) == (*after, *before)
        assert plan.adapter.scaled_before(plan.model) == before
        assert load(tmp_path, plan_yaml(plan)) == plan
    for section in (BERT(), T5(), T5(feed_forward_proj="gated-gelu"), Transformer(architecture="encoder-decoder")):
        assert {*section.key_value_layers, *section.feed_forward_ends} <= {*section.linear_layers}


def test_a_plan_from_before_there_were_adapters_trains_the_whole_model(tmp_path: Path) -> None:
    assert load(tmp_path, SMALLEST).adapter == NoAdapter()


def test_a_shown_plan_holds_every_field_and_loads_back_equal(tmp_path: Path) -> None:
    plan = load(
        tmp_path, SMALLEST + "tokenizer: {type: bpe, text: 'no'}\ndescription: 'ja: nein'\nstop: {patience_rounds: 2}\n"
    )
    text = plan_yaml(plan)
    assert load(tmp_path, text) == plan
    shown = strict_yaml.read(text, source="shown").value
    assert list(shown) == list(Plan.model_fields)
    assert shown["local"]["optimizer"]["learning_rate"] == Decimal("0.002")
    assert "learning_rate: 0.002\n" in text
    assert "size: null\n" in text


_numbers = st.decimals(min_value="0.000001", max_value=10, allow_nan=False, allow_infinity=False, places=9)


@given(
    rate=_numbers,
    seed=st.integers(0, 2**32 - 1),
    model=st.sampled_from([GPT2(), Llama()]),
    name=st.from_regex(r"\A[a-z]{1,20}\Z"),
)
def test_any_plan_survives_yaml(rate: Decimal, seed: int, model: GPT2 | Llama, name: str) -> None:
    plan = Plan.model_validate(
        {
            "apiVersion": "llmasos/v1",
            "name": name,
            "seed": seed,
            "model": model,
            "local": {"optimizer": {"learning_rate": rate}},
        }
    )
    assert Plan.model_validate(strict_yaml.read(plan_yaml(plan), source="x").value) == plan


def test_the_schema_describes_every_field_for_editors() -> None:
    schema = json.loads(json.dumps(plan_schema()))
    assert schema["required"] == ["apiVersion", "name"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["rounds"]["description"].startswith("Training rounds")
    sections = {name: section["properties"] for name, section in schema["$defs"].items()}
    undescribed = [
        f"{section}.{field}"
        for section, fields in sections.items()
        for field, facts in fields.items()
        if "description" not in facts and field != "type" and "$ref" not in facts and "oneOf" not in facts
    ]
    assert undescribed == []


def test_the_schema_says_which_tag_means_which_section() -> None:
    discriminator = plan_schema()["properties"]["model"]["discriminator"]
    assert discriminator["propertyName"] == "type"
    types = {"gpt2", "llama", "mistral", "qwen2", "qwen3", "bert", "t5", "transformer", "pretrained"}
    assert set(discriminator["mapping"]) == types


@pytest.mark.parametrize(
    "section",
    [
        {"adapter": {"type": "lora", "target_modules": ["c_attn", "c_proj"]}},
        {"adapter": {"type": "ia3", "target_modules": ["c_attn"]}},
        {"personal": ["ln_f"]},
        {"task": {"type": "sequence-classification", "labels": ["no", "yes"]}},
        {
            "task": {
                "type": "mixture",
                "tasks": [{"weight": 1, "task": {"type": "causal-lm"}}, {"weight": 2, "task": {"type": "instruction"}}],
            }
        },
    ],
    ids=lambda section: next(iter(section)),
)
def test_a_plan_with_lists_is_the_same_plan_after_its_statement(section: dict[str, Any]) -> None:
    plan = Plan.model_validate({"apiVersion": "llmasos/v1", "name": "lists"} | section)
    assert strict_json.validate(Plan, strict_json.loads(plan.model_dump_json().encode(), max_bytes=10**6)) == plan
