"""An adapter is a small trained part beside frozen weights: by name, by bits, and as others load it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from common.errors import MissingExtra, UsageError  # noqa: E402
from common.plan.adapters import LoRA  # noqa: E402
from common.plan.architectures import GPT2, Llama, Model  # noqa: E402
from common.tensors import model_header  # noqa: E402
from llmasos import extras  # noqa: E402
from llmasos.models.build import build_model, export_hf, manifest_of, write_tensors  # noqa: E402
from llmasos.models.export import export_base  # noqa: E402
from llmasos.tokenizers import bytes_tokenizer, save  # noqa: E402
from tests.unit.llmasos.models.test_build import ARCHITECTURES, TINY_GPT2, TINY_LLAMA  # noqa: E402

pytestmark = pytest.mark.torch

LORA = LoRA(r=2, lora_alpha=6)
IDS = torch.arange(12)[None]


def built(model: Model, adapter: LoRA = LORA, seed: int = 1) -> Any:
    return build_model(model, adapter=adapter, vocab_size=300, seed=seed)


def trained(model: Model, adapter: LoRA = LORA) -> Any:
    """As after training: B is not 0 any more."""
    module = built(model, adapter).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module


def logits(module: Any) -> torch.Tensor:
    with torch.no_grad():
        return module.eval()(input_ids=IDS).logits


@ARCHITECTURES
def test_only_the_adapter_is_trainable_and_comes_first_and_the_rest_is_called_as_without_it(model: Model) -> None:
    manifest = manifest_of(built(model))
    alone = manifest_of(build_model(model, vocab_size=300, seed=1))
    trainable = [entry for entry in manifest if entry.group == "trainable"]
    assert manifest[: len(trainable)] == tuple(trainable)
    expected = {
        f"{prefix}.{path}.lora_{matrix}.weight"
        for prefix in [
            entry.name.partition(".0.")[0] + f".{layer}" for entry in alone if ".0." in entry.name for layer in (0, 1)
        ]
        for path in model.linear_layers
        for matrix in "AB"
    }
    assert {entry.name for entry in trainable} == expected
    assert [(entry.name, entry.shape) for entry in manifest[len(trainable) :]] == [(e.name, e.shape) for e in alone]
    assert {entry.group for entry in manifest[len(trainable) :]} == {"frozen"}


def test_shapes_are_the_rank_by_inputs_and_outputs_by_the_rank() -> None:
    shapes = {entry.name: entry.shape for entry in manifest_of(built(TINY_GPT2))}
    assert shapes["transformer.h.0.mlp.c_fc.lora_A.weight"] == (2, 16)
    assert shapes["transformer.h.0.mlp.c_fc.lora_B.weight"] == (64, 2)
    assert shapes["transformer.h.0.mlp.c_fc.weight"] == (16, 64)


@ARCHITECTURES
def test_a_plans_linear_layers_are_those_that_a_block_has(model: Model) -> None:
    from transformers.pytorch_utils import Conv1D

    module = build_model(model, vocab_size=300, seed=0)
    found = {
        name.partition(".0.")[2]
        for name, part in module.named_modules()
        if isinstance(part, (torch.nn.Linear, Conv1D)) and ".0." in name
    }
    assert found == set(model.linear_layers)


@pytest.mark.parametrize(
    ("model", "targets", "expected"),
    [
        (TINY_GPT2, ("c_attn",), {"attn.c_attn"}),
        (TINY_GPT2, ("c_proj",), {"attn.c_proj", "mlp.c_proj"}),
        (TINY_GPT2, ("mlp.c_proj",), {"mlp.c_proj"}),
        (TINY_LLAMA, ("q_proj", "v_proj"), {"self_attn.q_proj", "self_attn.v_proj"}),
    ],
)
def test_target_modules_are_named_by_the_end_of_their_names(
    model: Model, targets: tuple[str, ...], expected: set[str]
) -> None:
    adapter = LoRA(r=2, target_modules=targets)
    names = [entry.name for entry in manifest_of(built(model, adapter)) if entry.group == "trainable"]
    assert {name.partition(".0.")[2].rpartition(".lora_")[0] for name in names if ".0." in name} == expected
    assert set(adapter.targets(model)) == expected


@ARCHITECTURES
def test_before_training_the_model_computes_what_its_base_computes(model: Model) -> None:
    assert torch.equal(logits(built(model)), logits(build_model(model, vocab_size=300, seed=1)))


def test_initial_adapters_are_a_function_of_the_seed_in_these_very_bits(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    module = built(TINY_GPT2, seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    assert module.training
    trainable = [entry for entry in manifest_of(module) if entry.group == "trainable"]
    write_tensors(module, tmp_path / "adapter", trainable)
    data = (tmp_path / "adapter").read_bytes()[len(model_header(trainable)) :]
    assert hashlib.sha256(data).hexdigest()[:16] == "50ac117c2fd27b65"
    wide = dict(built(GPT2(n_layer=1, n_head=2, n_embd=768, n_positions=16), LoRA(r=64)).named_parameters())
    first = wide["transformer.h.0.attn.c_attn.lora_A.default.weight"]
    assert first.std().item() == pytest.approx((3 * 768) ** -0.5, rel=0.02)
    assert not wide["transformer.h.0.attn.c_attn.lora_B.default.weight"].any()


@ARCHITECTURES
def test_an_export_is_the_merged_model_and_the_adapter_and_others_load_both(tmp_path: Path, model: Model) -> None:
    from transformers import AutoModelForCausalLM

    source = trained(model)
    save(bytes_tokenizer(), tmp_path / "tokenizer.json")
    expected = logits(source)
    export_hf(source, tmp_path / "tokenizer.json", tmp_path / "model")
    export_base(source, tmp_path / "tokenizer.json", tmp_path / "base")
    assert torch.equal(logits(source), expected), "an export changes nothing"

    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "model", local_files_only=True)
    assert type(merged) is type(source)
    assert torch.allclose(logits(merged), expected, atol=1e-5)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", local_files_only=True)
    assert torch.equal(logits(base), logits(build_model(model, vocab_size=300, seed=1)))
    assert not torch.allclose(logits(base), expected, atol=1e-2)
    adapted = peft.PeftModel.from_pretrained(base, tmp_path / "model" / "adapter")
    assert torch.equal(logits(adapted), expected)
    assert torch.allclose(logits(adapted.merge_and_unload()), logits(merged), atol=1e-6)


def test_the_adapter_s_files_are_peft_s_own_and_equal_for_equal_models(tmp_path: Path) -> None:
    save(bytes_tokenizer(), tmp_path / "tokenizer.json")
    for folder in ("a", "b"):
        export_hf(trained(TINY_GPT2), tmp_path / "tokenizer.json", tmp_path / folder)
    files = {path.name: path.read_bytes() for path in (tmp_path / "a" / "adapter").iterdir()}
    assert set(files) == {"adapter_config.json", "adapter_model.safetensors"}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "b" / "adapter").iterdir()}
    config = json.loads(files["adapter_config.json"])
    assert (config["r"], config["lora_alpha"], config["peft_type"], config["fan_in_fan_out"]) == (2, 6, "LORA", True)
    assert config["target_modules"] == ["c_attn", "c_fc", "c_proj"]
    assert (config["inference_mode"], config["task_type"]) == (True, "CAUSAL_LM")


def test_a_model_without_an_adapter_has_no_base_to_export(tmp_path: Path) -> None:
    save(bytes_tokenizer(), tmp_path / "tokenizer.json")
    with pytest.raises(UsageError, match="The model has no adapter"):
        export_base(build_model(TINY_GPT2, vocab_size=300, seed=0), tmp_path / "tokenizer.json", tmp_path / "base")
    assert not (tmp_path / "base").exists()


def test_an_adapter_without_peft_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = extras.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "peft" else found(name))
    with pytest.raises(MissingExtra, match="To train an adapter, peft must be installed") as caught:
        built(TINY_GPT2)
    assert "pip install 'llmasos[train]'" in str(caught.value)
    assert isinstance(build_model(TINY_LLAMA, vocab_size=300, seed=0), torch.nn.Module)


def test_dropout_of_the_adapter_is_the_plan_s() -> None:
    module = built(Llama(num_hidden_layers=1, hidden_size=16), LoRA(r=2, lora_dropout="0.25"))
    layers = [part for part in module.modules() if isinstance(part, torch.nn.Dropout)]
    assert {layer.p for layer in layers} == {0.25}


def test_rank_stabilised_lora_scales_by_the_root_and_merges(tmp_path: Path) -> None:
    plain, stable = (
        trained(TINY_GPT2, LoRA(r=4, lora_alpha=2)),
        trained(TINY_GPT2, LoRA(r=4, lora_alpha=1, use_rslora=True)),
    )
    assert torch.allclose(logits(plain), logits(stable), atol=1e-6), "2 / 4 is 1 / √4"
    from transformers import AutoModelForCausalLM

    save(bytes_tokenizer(), tmp_path / "tokenizer.json")
    export_hf(stable, tmp_path / "tokenizer.json", tmp_path / "model")
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "model")), logits(stable), atol=1e-5)
