"""Prefix tuning and p-tuning: peft's tensors, the seed's bits, what a prefix means, and files that compute the same."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from common.errors import UsageError  # noqa: E402
from common.plan.adapters import PrefixTuning, PTuning, VirtualTokens  # noqa: E402
from llmasos.evaluation.folder import EvaluationOptions, evaluate  # noqa: E402
from llmasos.generation import generate_text, load_module  # noqa: E402
from llmasos.models.adapters import adapter_of, is_adapter_tensor, tensor_name  # noqa: E402
from llmasos.models.build import build_model, export_hf, manifest_of, read_tensors, write_tensors  # noqa: E402
from llmasos.models.export import export_base  # noqa: E402
from llmasos.models.prompts import prompt_of  # noqa: E402
from llmasos.tokenizers import bytes_tokenizer, save  # noqa: E402
from tests.unit.llmasos.models.test_architectures import TINY  # noqa: E402

pytestmark = pytest.mark.torch

DECODERS = ("gpt2", "qwen3", "transformer")
TOKENS = 3
ADAPTERS: dict[str, VirtualTokens] = {
    "prefix": PrefixTuning(num_virtual_tokens=TOKENS),
    "projected": PrefixTuning(num_virtual_tokens=TOKENS, prefix_projection=True, encoder_hidden_size=5),
    "mlp": PTuning(num_virtual_tokens=TOKENS, encoder_hidden_size=5),
    "lstm": PTuning(num_virtual_tokens=TOKENS, encoder_reparameterization_type="LSTM", encoder_hidden_size=5),
}
BITS = {
    "prefix": "57e646b66e820eb9",
    "projected": "b2cb266e0a4071f6",
    "mlp": "f4a2857e0bc0ce0b",
    "lstm": "bcf9df4c31069a7d",
}
EVERY = pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name in DECODERS for kind in ("prefix", "mlp")] + [("qwen3", "projected"), ("gpt2", "lstm")],
)
IDS = torch.arange(20).reshape(2, 10)


def built(name: str, kind: str, seed: int = 1) -> Any:
    return build_model(TINY[name], vocab_size=257, seed=seed, adapter=ADAPTERS[kind])


def trained(name: str, kind: str) -> Any:
    module = built(name, kind)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.prompt_encoder.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
    return module


def logits(module: Any, **more: Any) -> torch.Tensor:
    with torch.no_grad():
        return module.eval()(input_ids=IDS, **more).logits


@EVERY
def test_tensors_are_peft_s_and_they_alone_get_gradients(name: str, kind: str) -> None:
    module, plain = built(name, kind), build_model(TINY[name], vocab_size=257, seed=1)
    theirs = peft.get_peft_model(copy.deepcopy(plain), adapter_of(module)).prompt_encoder["default"]
    manifest = manifest_of(module)
    ours = {entry.name: entry.shape for entry in manifest if entry.group == "trainable"}
    expected = {f"prompt_encoder.{key}": tuple(value.shape) for key, value in theirs.named_parameters()}
    if kind == "prefix":
        expected = {"prompt_embeddings": expected["prompt_encoder.embedding.weight"]}
    assert ours == expected
    assert all(is_adapter_tensor(entry) for entry in ours)
    rest = [(entry.name, entry.shape, entry.group) for entry in manifest if entry.name not in ours]
    assert rest == [(entry.name, entry.shape, "frozen") for entry in manifest_of(plain)]
    module.train()(input_ids=IDS).logits.square().sum().backward()
    got = {tensor_name(key) for key, value in module.named_parameters() if value.grad is not None}
    assert got == ours.keys()


@pytest.mark.parametrize("kind", ADAPTERS)
def test_initial_tensors_are_a_function_of_the_seed_in_these_very_bits(kind: str) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (dict(built("gpt2", kind, seed=seed).prompt_encoder.named_parameters()) for seed in (7, 7, 8))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    assert not any(torch.equal(value, other[key]) for key, value in first.items() if value.dim() == 2)
    data = b"".join(value.detach().numpy().astype("<f4").tobytes() for value in first.values())
    assert hashlib.sha256(data).hexdigest()[:16] == BITS[kind]


@pytest.mark.parametrize("name", DECODERS)
def test_a_prefix_of_a_text_s_keys_and_values_is_that_text(name: str) -> None:
    module, base = built(name, "prefix"), build_model(TINY[name], vocab_size=257, seed=1).eval()
    before = torch.tensor([[40, 41, 42]])
    with torch.no_grad():
        cache = base(input_ids=before, use_cache=True).past_key_values
        states = [state for layer in cache.layers for state in (layer.keys[0], layer.values[0])]
        module.prompt_encoder.weight.copy_(torch.stack(states).permute(2, 0, 1, 3).reshape(TOKENS, -1))
        expected = base(input_ids=torch.cat((before.expand(2, -1), IDS), dim=1)).logits[:, TOKENS:]
    assert torch.allclose(logits(module), expected, atol=1e-5)
    assert torch.allclose(logits(module, attention_mask=torch.ones_like(IDS)), expected, atol=1e-5)
    padded = torch.ones_like(IDS)
    padded[1, -4:] = 0
    assert torch.allclose(logits(module, attention_mask=padded)[:, :-4], expected[:, :-4], atol=1e-5)


@EVERY
def test_peft_and_our_own_loading_compute_the_same(tmp_path: Path, name: str, kind: str) -> None:
    from transformers import AutoModelForCausalLM

    module = trained(name, kind)
    save(bytes_tokenizer(), tmp_path / "tokenizer.json")
    export_hf(module, tmp_path / "tokenizer.json", tmp_path / "model")
    export_base(module, tmp_path / "tokenizer.json", tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert not torch.allclose(logits(base), logits(module), atol=1e-3)
    adapted = peft.PeftModel.from_pretrained(base, tmp_path / "model" / "adapter")
    theirs = logits(adapted)[:, -IDS.shape[1] :]
    assert torch.allclose(theirs, logits(module), atol=1e-5)
    loaded = load_module(tmp_path / "model")
    assert torch.allclose(logits(loaded), logits(module), atol=1e-6)
    assert torch.equal(prompt_of(loaded), prompt_of(module))


@pytest.mark.parametrize("kind", ["prefix", "mlp"])
def test_text_is_generated_with_a_cache(tmp_path: Path, kind: str) -> None:
    module = trained("llama", kind)
    save(bytes_tokenizer(), tmp_path / "tokenizer.json")
    export_hf(module, tmp_path / "tokenizer.json", tmp_path / "model")
    ids = list(b"abc")
    with torch.no_grad():
        for _ in range(8):
            ids.append(int(module.eval()(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    assert 256 not in ids
    assert generate_text(tmp_path / "model", "abc", max_new_tokens=8, temperature=0) == bytes_tokenizer().decode(ids)
    with torch.no_grad():
        first = module(input_ids=IDS[:, :6], attention_mask=torch.ones(2, 6), use_cache=True)
        rest = module(input_ids=IDS[:, 6:], attention_mask=torch.ones(2, 10), past_key_values=first.past_key_values)
    assert torch.allclose(torch.cat((first.logits, rest.logits), dim=1), logits(module), atol=1e-5)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_model_file_and_a_copy_keep_them(tmp_path: Path, kind: str) -> None:
    module, other = trained("gpt2", kind), built("gpt2", kind, seed=2)
    write_tensors(module, tmp_path / "model", manifest_of(module))
    read_tensors(other, tmp_path / "model", manifest_of(module))
    assert torch.equal(logits(other), logits(module))
    copied = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in copied.prompt_encoder.parameters():
            parameter.zero_()
    assert not torch.allclose(logits(copied), logits(module), atol=1e-4)


def test_training_in_half_precision_keeps_keys_of_one_type() -> None:
    module = trained("gpt2", "projected")
    with torch.autocast("cpu", torch.bfloat16):
        module.train()(input_ids=IDS).logits.float().square().mean().backward()
    assert all(bool(value.grad.isfinite().all()) for value in module.prompt_encoder.parameters())


def test_a_prefix_of_another_model_is_one_sentence(tmp_path: Path) -> None:
    save(bytes_tokenizer(), tmp_path / "tokenizer.json")
    export_hf(trained("gpt2", "prefix"), tmp_path / "tokenizer.json", tmp_path / "gpt2")
    export_hf(trained("qwen3", "prefix"), tmp_path / "tokenizer.json", tmp_path / "qwen3")
    source = tmp_path / "gpt2" / "adapter" / "adapter_model.safetensors"
    (tmp_path / "qwen3" / "adapter" / "adapter_model.safetensors").write_bytes(source.read_bytes())
    with pytest.raises(UsageError, match=r"virtual tokens of shape \(3, 64\); this model's are 48 numbers each"):
        load_module(tmp_path / "qwen3")


@pytest.mark.parametrize("kind", ["prefix", "mlp"])
def test_a_folder_is_evaluated_in_windows_that_leave_room_for_them(tmp_path: Path, kind: str) -> None:
    module = trained("gpt2", kind)
    save(bytes_tokenizer(), tmp_path / "tokenizer.json")
    export_hf(module, tmp_path / "tokenizer.json", tmp_path / "model")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("abcdefghijklm" * 5)
    found = evaluate(tmp_path / "model", tmp_path / "text", EvaluationOptions(ngram=False))
    assert found.sequence_length == 16 - TOKENS
    short = evaluate(tmp_path / "model", tmp_path / "text", EvaluationOptions(ngram=False, sequence_length=4))
    assert short.sequence_length == 4
    assert short.whole.model != found.whole.model
    with pytest.raises(UsageError, match="sequence_length is 14, expected 1 to 13"):
        evaluate(tmp_path / "model", tmp_path / "text", EvaluationOptions(sequence_length=14))
