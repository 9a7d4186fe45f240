"""Models are functions of plan, vocabulary and seed, and their manifests list each tensor once."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from common.errors import InvalidConfiguration, WrongTensors  # noqa: E402
from common.plan.architectures import GPT2, Llama  # noqa: E402
from llmasos.models.architecture import config_of, model_class  # noqa: E402
from llmasos.models.build import build_model, manifest_of, write_tensors  # noqa: E402

pytestmark = pytest.mark.torch

TINY_GPT2 = GPT2(n_layer=2, n_head=2, n_embd=16, n_positions=16)
TINY_LLAMA = Llama(
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    hidden_size=16,
    intermediate_size=24,
    max_position_embeddings=16,
)
UNTIED_LLAMA = TINY_LLAMA.model_copy(update={"tie_word_embeddings": False})
ARCHITECTURES = pytest.mark.parametrize("model", [TINY_GPT2, TINY_LLAMA, UNTIED_LLAMA], ids=["gpt2", "llama", "untied"])


def weights(model, seed: int) -> dict[str, torch.Tensor]:  # type: ignore[no-untyped-def]
    return dict(build_model(model, vocab_size=300, seed=seed).named_parameters())


@ARCHITECTURES
def test_initial_weights_are_a_function_of_the_seed(model) -> None:  # type: ignore[no-untyped-def]
    first = weights(model, 1)
    torch.manual_seed(999)
    again, other = weights(model, 1), weights(model, 2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if first[name].dim() == 2)


def test_initial_weights_are_these_very_bits(tmp_path: Path) -> None:
    model = build_model(TINY_GPT2, vocab_size=300, seed=7)
    write_tensors(model, tmp_path / "model.safetensors", manifest_of(model))
    data = b"".join(parameter.detach().numpy().astype("<f4").tobytes() for _, parameter in model.named_parameters())
    assert (tmp_path / "model.safetensors").read_bytes().endswith(data)
    assert hashlib.sha256(data).hexdigest()[:16] == "c7bbe9e0a331b324"


def test_building_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_model(TINY_GPT2, vocab_size=300, seed=1)
    assert torch.equal(torch.rand(3), expected)


def test_initial_weights_have_gpt2_s_scales() -> None:
    model = GPT2(n_layer=8, n_head=2, n_embd=64, n_positions=64)
    found = weights(model, 0)
    assert found["transformer.wte.weight"].std().item() == pytest.approx(0.02, rel=0.02)
    assert found["transformer.wte.weight"].mean().abs().item() < 0.001
    assert found["transformer.h.3.mlp.c_proj.weight"].std().item() == pytest.approx(0.02 / 4, rel=0.03)
    assert found["transformer.h.0.ln_1.weight"].eq(1).all()
    assert found["transformer.h.0.ln_1.bias"].eq(0).all()
    assert found["transformer.h.0.attn.c_attn.bias"].eq(0).all()


@ARCHITECTURES
def test_a_built_model_is_float32_and_runs(model) -> None:  # type: ignore[no-untyped-def]
    module = build_model(model, vocab_size=300, seed=1)
    assert module.training
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    assert (module.config._attn_implementation, module.config.use_cache) == ("sdpa", False)
    ids = torch.arange(12)[None]
    loss = module(input_ids=ids, labels=ids).loss
    assert loss.item() == pytest.approx(5.7, abs=0.1)  # ln 300


def test_dropout_comes_from_the_plan() -> None:
    config = config_of(TINY_GPT2.model_copy(update={"dropout": "0.25"}), vocab_size=300)
    assert (config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) == (0.25, 0.25, 0.25)


def test_tied_weights_stand_once_in_the_manifest() -> None:
    tied, untied = (
        [entry.name for entry in manifest_of(build_model(model, vocab_size=300, seed=0))]
        for model in (TINY_LLAMA, UNTIED_LLAMA)
    )
    assert tied[0] == "model.embed_tokens.weight"
    assert "lm_head.weight" not in tied
    assert untied == [*tied, "lm_head.weight"]
    assert manifest_of(build_model(TINY_GPT2, vocab_size=300, seed=0))[0].shape == (300, 16)


def test_frozen_tensors_and_persistent_buffers_come_last() -> None:
    module = build_model(TINY_GPT2, vocab_size=300, seed=0)
    module.transformer.wte.weight.requires_grad_(False)
    module.register_buffer("scale", torch.ones(2))
    module.register_buffer("steps", torch.ones(2, dtype=torch.int64))
    module.register_buffer("scratch", torch.ones(2), persistent=False)
    manifest = manifest_of(module)
    assert [(entry.name, entry.group) for entry in manifest[-2:]] == [
        ("transformer.wte.weight", "frozen"),
        ("scale", "frozen"),
    ]
    assert {entry.group for entry in manifest[:-2]} == {"trainable"}


def test_a_manifest_of_another_precision_is_refused() -> None:
    with pytest.raises(WrongTensors, match=r"Tensor transformer\.wte\.weight is torch\.bfloat16, expected float32"):
        manifest_of(build_model(TINY_GPT2, vocab_size=300, seed=0).to(torch.bfloat16))


def test_what_transformers_cannot_build_is_refused() -> None:
    with pytest.raises(InvalidConfiguration, match=r"The vocabulary holds 0 tokens, expected 1 to 2,097,152"):
        build_model(TINY_GPT2, vocab_size=0, seed=0)
    with pytest.raises(InvalidConfiguration, match=r"num_attention_heads is 5; rotary positions need an even number"):
        build_model(Llama(hidden_size=20, num_attention_heads=4, num_key_value_heads=4), vocab_size=300, seed=0)
    with pytest.raises(InvalidConfiguration, match=r"Model type 'mystery' is not one of gpt2, llama"):
        model_class("mystery")
