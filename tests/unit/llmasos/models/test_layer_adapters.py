"""DoRA and IA³ beside every architecture: peft's names and shapes, the seed's bits, and an export that computes the same."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

import numpy as np  # noqa: E402

from common.errors import InvalidConfiguration  # noqa: E402
from common.plan.adapters import IA3, LoRA  # noqa: E402
from llmasos.models.adapters import adapter_of, file_name, is_adapter_tensor, tensor_name  # noqa: E402
from llmasos.models.build import export_hf, manifest_of  # noqa: E402
from llmasos.models.export import export_base  # noqa: E402
from llmasos.models.magnitudes import fill_lengths  # noqa: E402
from llmasos.tokenizers import save  # noqa: E402
from tests.unit.llmasos.models.test_architectures import AUTO, TINY, TOKENIZER, built, outputs  # noqa: E402
from tests.unit.llmasos.models.test_pretrained import exported, filled  # noqa: E402

pytestmark = pytest.mark.torch

ADAPTERS = {"dora": LoRA(r=2, lora_alpha=6, use_dora=True), "ia3": IA3()}
KINDS = pytest.mark.parametrize("kind", ADAPTERS)
LAYOUTS = ("gpt2", "qwen3", "bert", "t5-gated", "transformer", "encoder-decoder")
CASES = [(name, TINY[name].heads[0]) for name in LAYOUTS] + [
    ("bert", "sequence-classification"),
    ("gpt2", "question-answering"),
]
MODELS = pytest.mark.parametrize(("name", "head"), CASES, ids=[f"{name}-{head}" for name, head in CASES])
BITS = {"dora": "aa2f98d0dd5dcdff", "ia3": "beea08e0b2386530"}


def trained(name: str, head: str, kind: str) -> Any:
    """As after training: no tensor of the adapter is what it began as."""
    module = built(name, head, adapter=ADAPTERS[kind])
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator))
    return module


def adapter_tensors(module: Any) -> dict[str, Any]:
    """By their names in the manifest."""
    return {
        tensor_name(name): value for name, value in module.named_parameters() if is_adapter_tensor(tensor_name(name))
    }


@KINDS
@MODELS
def test_names_and_shapes_are_peft_s_and_before_training_the_base_is_computed(name: str, head: str, kind: str) -> None:
    module, plain = built(name, head, adapter=ADAPTERS[kind]), built(name, head)
    theirs = peft.get_peft_model(copy.deepcopy(plain), adapter_of(module))
    expected = {
        key: value for key, value in peft.get_peft_model_state_dict(theirs).items() if "modules_to_save" not in key
    }
    heads = {key for key in expected if not is_adapter_tensor(key)}
    ours = adapter_tensors(module)
    assert {file_name(key): tuple(value.shape) for key, value in ours.items()} == {
        key: tuple(value.shape) for key, value in expected.items() if key not in heads
    }
    new = head in ("sequence-classification", "question-answering")
    assert bool(heads) == new
    manifest = manifest_of(module)
    trainable = {entry.name for entry in manifest if entry.group == "trainable"}
    assert trainable - ours.keys() == {key.removeprefix("base_model.model.") for key in heads}
    frozen = {entry.name for entry in manifest if entry.group == "frozen"}
    assert frozen | (trainable - ours.keys()) == {entry.name for entry in manifest_of(plain)}
    if kind == "dora":
        for key, value in ours.items():
            if key.endswith("magnitude_vector"):
                torch.testing.assert_close(value, expected[file_name(key)], rtol=1e-6, atol=0)
    else:
        assert all(bool((value == 1).all()) for value in ours.values())
    before, after = outputs(plain), outputs(module)
    rounding = 1e-5 if kind == "dora" else 0.0
    assert all(torch.allclose(after[key], value, rtol=rounding, atol=rounding) for key, value in before.items())


@KINDS
@MODELS
def test_an_export_is_merged_and_peft_computes_the_same(tmp_path: Path, name: str, head: str, kind: str) -> None:
    import transformers

    module = trained(name, head, kind)
    expected = outputs(module)
    save(TOKENIZER, tmp_path / "tokenizer.json")
    export_hf(module, tmp_path / "tokenizer.json", tmp_path / "model")
    export_base(module, tmp_path / "tokenizer.json", tmp_path / "base")
    assert all(torch.equal(outputs(module)[key], value) for key, value in expected.items()), "an export changes nothing"
    auto = getattr(transformers, AUTO[head])
    base = auto.from_pretrained(tmp_path / "base")
    assert any(not torch.allclose(outputs(base)[key], value, atol=1e-3) for key, value in expected.items())
    merged = outputs(auto.from_pretrained(tmp_path / "model"))
    assert all(torch.allclose(merged[key], value, rtol=1e-4, atol=1e-4) for key, value in expected.items())
    adapted = peft.PeftModel.from_pretrained(base, tmp_path / "model" / "adapter")
    assert all(torch.allclose(outputs(adapted)[key], value, atol=1e-6) for key, value in expected.items())
    theirs = outputs(adapted.merge_and_unload())
    assert all(torch.allclose(theirs[key], value, rtol=1e-5, atol=1e-5) for key, value in merged.items())


@KINDS
def test_initial_adapters_are_a_function_of_the_seed_in_these_very_bits(kind: str) -> None:
    torch.manual_seed(5)
    first = adapter_tensors(built("llama", "causal-lm", seed=7, adapter=ADAPTERS[kind]))
    torch.manual_seed(6)
    again = adapter_tensors(built("llama", "causal-lm", seed=7, adapter=ADAPTERS[kind]))
    assert all(torch.equal(first[key], value) for key, value in again.items())
    data = b"".join(value.detach().numpy().astype("<f4").tobytes() for value in first.values())
    assert hashlib.sha256(data).hexdigest()[:16] == BITS[kind]


def test_magnitudes_are_those_of_the_folder_s_weights(tmp_path: Path) -> None:
    source = exported(tmp_path / "model", "gpt2", "causal-lm")
    module = filled(tmp_path / "model", TINY["gpt2"], "causal-lm", adapter=ADAPTERS["dora"])
    assert torch.allclose(outputs(module)["logits"], outputs(source)["logits"], atol=1e-5)
    weight = source.transformer.h[0].mlp.c_fc.weight
    found = adapter_tensors(module)["transformer.h.0.mlp.c_fc.lora_magnitude_vector"]
    torch.testing.assert_close(found, weight.norm(dim=0), rtol=1e-6, atol=0)


@pytest.mark.parametrize("inputs", [1, 2, 3, 16, 37])
def test_lengths_are_exact_to_a_rounding(inputs: int) -> None:
    weights_OI = np.random.default_rng(1).normal(size=(5, inputs)).astype(np.float32)
    lengths_O = np.zeros(5, np.float32)
    fill_lengths(lengths_O, weights_OI, layer="x")
    expected = np.sqrt((weights_OI.astype(np.longdouble) ** 2).sum(1))
    assert (np.abs(lengths_O - expected) <= np.spacing(lengths_O)).all()


def test_an_output_without_weights_has_no_direction(tmp_path: Path) -> None:
    source = built("llama", "causal-lm")
    with torch.no_grad():
        source.model.layers[1].mlp.up_proj.weight[3] = 0
    save(TOKENIZER, tmp_path / "tokenizer.json")
    export_hf(source, tmp_path / "tokenizer.json", tmp_path / "model")
    with pytest.raises(
        InvalidConfiguration,
        match=r"output 3 of layer model\.layers\.1\.mlp\.up_proj are 0; DoRA divides by their length",
    ):
        filled(tmp_path / "model", TINY["llama"], "causal-lm", adapter=ADAPTERS["dora"])


def test_embeddings_that_are_the_head_too_get_no_adapter() -> None:
    module = built("gpt2", "causal-lm", adapter=ADAPTERS["dora"])
    assert module.lm_head.weight is module.transformer.wte.weight
    assert not any("wte" in key or "lm_head" in key for key in adapter_tensors(module))


def test_targets_of_vectors_are_named_by_the_end_of_their_names() -> None:
    def suffixes(adapter: IA3, name: str) -> dict[str, tuple[int, ...]]:
        found = adapter_tensors(built(name, TINY[name].heads[0], adapter=adapter))
        return {key.partition(".0.")[2]: tuple(value.shape) for key, value in found.items() if ".0." in key}

    assert suffixes(IA3(target_modules=("c_proj",)), "gpt2") == {
        "attn.c_proj.ia3_l": (16, 1),
        "mlp.c_proj.ia3_l": (1, 64),
    }
    assert suffixes(IA3(), "bert") == {
        "attention.self.key.ia3_l": (16, 1),
        "attention.self.value.ia3_l": (16, 1),
        "output.dense.ia3_l": (1, 24),
    }


def test_dropout_and_a_stable_rank_go_with_magnitudes(tmp_path: Path) -> None:
    adapter = LoRA(r=4, lora_alpha=1, use_rslora=True, use_dora=True, lora_dropout="0.5")
    module = built("gpt2", "causal-lm", adapter=adapter)
    ids = torch.arange(8)[None]
    with torch.no_grad():
        for key, value in adapter_tensors(module).items():
            if key.endswith("lora_B.weight"):
                value.add_(0.1)
    torch.manual_seed(1)
    module.train()(input_ids=ids).logits.square().sum().backward()
    assert all(bool(value.grad.isfinite().all()) for value in adapter_tensors(module).values())
    save(TOKENIZER, tmp_path / "tokenizer.json")
    export_hf(module, tmp_path / "tokenizer.json", tmp_path / "model")
    import transformers

    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert torch.allclose(outputs(merged)["logits"], outputs(module)["logits"], atol=1e-4)
