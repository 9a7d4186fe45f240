"""Virtual tokens: only they are trained, they stand before the text, and peft and our own loading compute the same."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from common.errors import UsageError  # noqa: E402
from common.plan.adapters import PromptTuning  # noqa: E402
from llmasos.generation import generate_text, load_module  # noqa: E402
from llmasos.models.build import build_model, export_hf, manifest_of, read_tensors, write_tensors  # noqa: E402
from llmasos.models.export import export_base  # noqa: E402
from llmasos.tokenizers import bytes_tokenizer, save  # noqa: E402
from tests.unit.llmasos.models.test_architectures import TINY  # noqa: E402

pytestmark = pytest.mark.torch

DECODERS = pytest.mark.parametrize("name", [name for name, model in TINY.items() if "causal-lm" in model.heads])
TOKENS = 3
IDS = torch.arange(20).reshape(2, 10)


def built(name: str, seed: int = 1) -> Any:
    return build_model(TINY[name], vocab_size=257, seed=seed, adapter=PromptTuning(num_virtual_tokens=TOKENS))


def trained(name: str) -> Any:
    module = built(name)
    with torch.no_grad():
        module.prompt_encoder.weight.add_(torch.randn((TOKENS, 16), generator=torch.Generator().manual_seed(3)))
    return module


def logits(module: Any, **more: Any) -> torch.Tensor:
    with torch.no_grad():
        return module.eval()(input_ids=IDS, **more).logits


@DECODERS
def test_only_virtual_tokens_are_trained_and_the_rest_is_called_as_without_them(name: str) -> None:
    module = built(name)
    first, *rest = manifest_of(module)
    assert (first.name, first.shape, first.group) == ("prompt_embeddings", (TOKENS, 16), "trainable")
    alone = manifest_of(build_model(TINY[name], vocab_size=257, seed=1))
    assert [(entry.name, entry.group) for entry in rest] == [(entry.name, "frozen") for entry in alone]
    module(input_ids=IDS).logits.square().sum().backward()
    assert {key for key, value in module.named_parameters() if value.grad is not None} == {"prompt_encoder.weight"}
    assert torch.equal(built(name).prompt_encoder.weight, module.prompt_encoder.weight)
    assert not torch.equal(built(name, seed=2).prompt_encoder.weight, module.prompt_encoder.weight)


@DECODERS
def test_they_stand_before_the_text(name: str) -> None:
    module, base = trained(name), build_model(TINY[name], vocab_size=257, seed=1).eval()
    before = module.prompt_encoder.weight.detach().expand(2, -1, -1)
    with torch.no_grad():
        embedded = torch.cat((before, base.get_input_embeddings()(IDS)), dim=1)
        expected = base(inputs_embeds=embedded).logits[:, TOKENS:]
    assert torch.allclose(logits(module), expected, atol=1e-6)
    assert torch.allclose(logits(module, attention_mask=torch.ones_like(IDS)), expected, atol=1e-6)
    assert not torch.allclose(expected, logits(base), atol=1e-3)


@DECODERS
def test_peft_and_our_own_loading_compute_the_same(tmp_path: Path, name: str) -> None:
    from transformers import AutoModelForCausalLM

    module = trained(name)
    save(bytes_tokenizer(), tmp_path / "tokenizer.json")
    export_hf(module, tmp_path / "tokenizer.json", tmp_path / "model")
    export_base(module, tmp_path / "tokenizer.json", tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    adapted = peft.PeftModel.from_pretrained(base, tmp_path / "model" / "adapter")
    assert torch.allclose(logits(adapted)[:, TOKENS:], logits(module), atol=1e-6)
    assert torch.equal(logits(load_module(tmp_path / "model")), logits(module))


def test_text_is_generated_with_them_and_a_cache(tmp_path: Path) -> None:
    module = trained("llama")
    save(bytes_tokenizer(), tmp_path / "tokenizer.json")
    export_hf(module, tmp_path / "tokenizer.json", tmp_path / "model")
    ids = list(b"abc")
    with torch.no_grad():
        for _ in range(8):
            ids.append(int(module.eval()(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    assert 256 not in ids
    assert generate_text(tmp_path / "model", "abc", max_new_tokens=8, temperature=0) == bytes_tokenizer().decode(ids)


def test_a_model_file_and_a_copy_keep_them(tmp_path: Path) -> None:
    module, other = trained("gpt2"), built("gpt2", seed=2)
    write_tensors(module, tmp_path / "model", manifest_of(module))
    read_tensors(other, tmp_path / "model", manifest_of(module))
    assert torch.equal(logits(other), logits(module))
    copied = copy.deepcopy(module)
    with torch.no_grad():
        copied.prompt_encoder.weight.zero_()
    assert not torch.allclose(logits(copied), logits(module), atol=1e-4), "a copy has virtual tokens of its own"


def test_what_cannot_be_called_or_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="takes input_ids, attention_mask and past_key_values, by name"):
        trained("gpt2")(IDS, None)
    with pytest.raises(UsageError, match="takes no labels and no position_ids"):
        trained("gpt2")(input_ids=IDS, labels=IDS)
    with torch.no_grad():
        assert torch.equal(trained("gpt2").eval()(IDS).logits, logits(trained("gpt2")))
    save(bytes_tokenizer(), tmp_path / "tokenizer.json")
    export_hf(trained("gpt2"), tmp_path / "tokenizer.json", tmp_path / "model")
    weights = tmp_path / "model" / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(UsageError, match="holds an adapter that cannot be read"):
        load_module(tmp_path / "model")
