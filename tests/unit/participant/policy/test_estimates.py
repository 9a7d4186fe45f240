"""What a plan costs: each formula, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from common.blobs.reference import CHUNK_BYTES
from common.codecs import CODECS
from common.statements.kinds import Tensor
from common.tensors import delta_size, model_size, trainable_header
from participant.policy import estimate
from participant.policy.estimates import RUNTIME_BYTES, activation_bytes, dora_bytes, memory_bytes, vocabulary
from tests.support.plans import a_plan
from tests.support.statements import a_blob_ref, a_plan_statement

MANIFEST = (
    {"name": "embedding", "shape": (100, 16)},
    {"name": "adapter", "shape": (10,), "group": "frozen"},
    {"name": "head", "shape": (5,), "group": "personal"},
)


def test_traffic_is_every_rounds_model_and_delta_the_last_evaluation_and_the_tokenizer() -> None:
    initial = {"model": a_blob_ref(size=7000), "tokenizer": a_blob_ref("tokenizer", size=300)}
    costs = estimate(a_plan_statement(plan=a_plan(rounds=3), manifest=MANIFEST, initial=initial))
    delta = delta_size([Tensor(name="embedding", shape=(100, 16))])  # frozen and personal tensors stay
    assert delta == len(trainable_header([Tensor(name="embedding", shape=(100, 16))])) + 4 * 1600
    assert costs.traffic_bytes == 300 + 3 * (7000 + delta) + 7000
    assert (costs.down_bytes_per_round, costs.up_bytes_per_round) == (7000, delta)


def test_of_a_model_with_an_adapter_the_first_round_fetches_all_and_later_ones_the_chunks_that_change() -> None:
    manifest = (
        {"name": "adapter", "shape": (1_048_576,)},  # 4 MiB behind the header: it ends in the second chunk
        {"name": "embedding", "shape": (3, 1_048_576), "group": "frozen"},
    )
    size = model_size([Tensor.model_validate(tensor) for tensor in manifest])
    initial = {"model": a_blob_ref(size=size), "tokenizer": a_blob_ref("tokenizer", size=300)}
    costs = estimate(a_plan_statement(plan=a_plan(rounds=3), manifest=manifest, initial=initial))
    assert costs.down_bytes_per_round == 2 * CHUNK_BYTES < size
    assert costs.traffic_bytes == 300 + size + 3 * (2 * CHUNK_BYTES + costs.up_bytes_per_round)
    assert (costs.parameters, costs.trained_parameters) == (4_194_304, 1_048_576)


def test_disk_is_model_and_delta_twice_and_three_snapshots() -> None:
    initial = {"model": a_blob_ref(size=7000), "tokenizer": a_blob_ref("tokenizer", size=300)}
    costs = estimate(a_plan_statement(manifest=MANIFEST, initial=initial))
    snapshot = 12 * 1605  # frozen tensors are in none
    personal = 4 * 4 * 5
    assert costs.disk_bytes == 2 * 7000 + 2 * costs.up_bytes_per_round + 3 * snapshot + personal


@pytest.mark.parametrize("name", ["bfloat16", "int8", "int4", "topk"])
def test_an_encoded_delta_is_smaller_on_the_way_and_leaves_two_residuals_at_home(name: str) -> None:
    initial = {"model": a_blob_ref(size=7000), "tokenizer": a_blob_ref("tokenizer", size=300)}
    plain = a_plan_statement(manifest=MANIFEST, initial=initial)
    statement = a_plan_statement(plan=a_plan(codec={"type": name}), manifest=MANIFEST, initial=initial)
    costs, as_trained = estimate(statement), estimate(plain).up_bytes_per_round
    assert costs.up_bytes_per_round == CODECS[name].encoded_size(statement.manifest) < as_trained
    deltas = as_trained + costs.up_bytes_per_round + 2 * 4 * 1600
    assert costs.disk_bytes == 2 * 7000 + deltas + 3 * 12 * 1605 + 4 * 4 * 5
    assert estimate(plain).traffic_bytes - costs.traffic_bytes == 2 * (as_trained - costs.up_bytes_per_round)


def test_memory_is_weights_gradients_moments_and_activations() -> None:
    statement = a_plan_statement(manifest=MANIFEST)
    state = 4 * 1615 + 12 * 1605
    assert estimate(statement).memory_bytes == RUNTIME_BYTES + state + activation_bytes(statement)
    local = {"steps": 2, "batch_size": 2, "sequence_length": 16, "fedprox_mu": "0.01"}
    pulled = a_plan_statement(plan=a_plan(local=local), manifest=MANIFEST)
    assert estimate(pulled).memory_bytes == estimate(statement).memory_bytes + 4 * 1600  # the shared base


@pytest.mark.parametrize(
    ("local", "expected"),
    [
        ({"batch_size": 4, "sequence_length": 8}, 4 * 8 * (17 * 16 * 4 + 3 * 257 * 4)),
        ({"batch_size": 4, "micro_batch_size": 2, "sequence_length": 8}, 2 * 8 * (17 * 16 * 4 + 3 * 257 * 4)),
        (
            {"batch_size": 4, "sequence_length": 8, "precision": "bfloat16"},
            4 * 8 * (17 * 16 * 2 + 3 * 257 * 4),
        ),
    ],
)
def test_activations_grow_with_the_micro_batch_and_shrink_with_precision(local: dict[str, Any], expected: int) -> None:
    assert activation_bytes(a_plan_statement(plan=a_plan(local={"steps": 2, **local}))) == expected


def test_a_llamas_activations_are_those_of_its_width_and_depth() -> None:
    model = {"type": "llama", "num_hidden_layers": 2, "hidden_size": 32, "max_position_embeddings": 16}
    plan = a_plan(model=model, local={"steps": 1, "batch_size": 1, "sequence_length": 16})
    assert activation_bytes(a_plan_statement(plan=plan)) == 16 * (17 * 32 * 2 * 4 + 3 * 257 * 4)


@pytest.mark.parametrize(
    ("tokenizer", "expected"),
    [
        ({"type": "bytes"}, 257),
        ({"type": "bpe", "vocab_size": 512, "text": "public"}, 512),
        ({"type": "given", "path": "tokenizer.json"}, 100),
    ],
)
def test_a_given_tokenizers_vocabulary_is_read_off_the_manifest(tokenizer: dict[str, Any], expected: int) -> None:
    assert vocabulary(a_plan_statement(plan=a_plan(tokenizer=tokenizer), manifest=MANIFEST)) == expected


def test_gradient_checkpointing_keeps_one_value_a_layer_and_one_layers_seventeen() -> None:
    model = {"type": "gpt2", "n_layer": 12, "n_head": 2, "n_embd": 32, "n_positions": 16}
    local = {"steps": 2, "batch_size": 2, "sequence_length": 16, "gradient_checkpointing": True}
    found = activation_bytes(a_plan_statement(plan=a_plan(model=model, local=local)))
    assert found == 32 * (32 * (12 + 17) * 4 + 3 * 257 * 4)


def test_virtual_tokens_take_part_in_a_sequence() -> None:
    adapter = {"type": "prompt-tuning", "num_virtual_tokens": 8}
    plan = a_plan(adapter=adapter, local={"steps": 1, "batch_size": 2, "sequence_length": 8})
    assert activation_bytes(a_plan_statement(plan=plan)) == 2 * (8 + 8) * (17 * 16 * 4 + 3 * 257 * 4)


def test_dora_multiplies_its_matrices_out_and_keeps_what_layers_gave() -> None:
    manifest = [
        {"name": "h.0.a.lora_A.weight", "shape": (2, 16)},
        {"name": "h.0.a.lora_B.weight", "shape": (48, 2)},
        {"name": "h.0.a.lora_magnitude_vector", "shape": (48,)},
        {"name": "h.0.b.lora_A.weight", "shape": (2, 64)},
        {"name": "h.0.b.lora_B.weight", "shape": (16, 2)},
        {"name": "embedding", "shape": (100, 16), "group": "frozen"},
    ]
    plain, dora = (
        a_plan_statement(
            plan=a_plan(
                adapter={"type": "lora", "r": 2, "use_dora": used},
                local={"steps": 1, "batch_size": 2, "sequence_length": 8},
            ),
            manifest=manifest,
        )
        for used in (False, True)
    )
    expected = 4 * (2 * 2 * 8 * (48 + 16) + 64 * 64 + 3 * 64 * 16)
    assert (dora_bytes(plain), dora_bytes(dora)) == (0, expected)
    assert memory_bytes(dora) - memory_bytes(plain) == expected


def test_a_tall_matrix_of_an_adapter_is_no_vocabulary() -> None:
    manifest = [
        {"name": "h.0.b.lora_B.weight", "shape": (5000, 16)},
        {"name": "embedding", "shape": (100, 16), "group": "frozen"},
    ]
    plan = a_plan(adapter={"type": "lora", "r": 16}, tokenizer={"type": "given", "path": "tokenizer.json"})
    assert vocabulary(a_plan_statement(plan=plan, manifest=manifest)) == 100
