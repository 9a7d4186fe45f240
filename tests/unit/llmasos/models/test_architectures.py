"""Every architecture with every head: what it computes, its initial bits, its manifest, and the folder that others load."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from common.errors import InvalidConfiguration  # noqa: E402
from common.plan.adapters import LoRA, NoAdapter  # noqa: E402
from common.plan.architectures import (  # noqa: E402
    BERT,
    GPT2,
    T5,
    Llama,
    Mistral,
    Model,
    Qwen2,
    Qwen3,
    RotaryDecoder,
    Transformer,
)
from llmasos.models.build import build_model, export_hf, manifest_of, read_tensors, write_tensors  # noqa: E402
from llmasos.models.classes import model_class  # noqa: E402
from llmasos.models.export import export_base  # noqa: E402
from llmasos.tokenizers import bytes_tokenizer, pad_id, save, vocab_size_of  # noqa: E402

pytestmark = pytest.mark.torch

ROTARY = {
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "hidden_size": 16,
    "intermediate_size": 24,
    "max_position_embeddings": 16,
}
TINY_T5 = T5(num_layers=2, num_heads=2, d_model=16, d_kv=8, d_ff=24)
TINY_TRANSFORMER = Transformer(d_model=16, nhead=2, num_layers=2, dim_feedforward=24, max_positions=16)
TINY: dict[str, Model] = {
    "gpt2": GPT2(n_layer=2, n_head=2, n_embd=16, n_positions=16),
    "llama": Llama(**ROTARY),
    "mistral": Mistral(**ROTARY),
    "qwen2": Qwen2(**ROTARY),
    "qwen3": Qwen3(**ROTARY, head_dim=12),
    "bert": BERT(
        num_hidden_layers=2, num_attention_heads=2, hidden_size=16, intermediate_size=24, max_position_embeddings=16
    ),
    "t5": TINY_T5,
    "t5-gated": TINY_T5.model_copy(update={"feed_forward_proj": "gated-gelu", "num_decoder_layers": 1}),
    "transformer": TINY_TRANSFORMER,
    "encoder-decoder": TINY_TRANSFORMER.model_copy(update={"architecture": "encoder-decoder"}),
}
CASES = [(name, head) for name, model in TINY.items() for head in model.heads]
EVERY = pytest.mark.parametrize(("name", "head"), CASES, ids=[f"{name}-{head}" for name, head in CASES])
TOKENIZER = bytes_tokenizer()
VOCABULARY = vocab_size_of(TOKENIZER)
LABELS, ROWS, WIDTH = 3, 2, 12
AUTO = {
    "causal-lm": "AutoModelForCausalLM",
    "masked-lm": "AutoModelForMaskedLM",
    "pre-training": "AutoModelForPreTraining",
    "seq2seq-lm": "AutoModelForSeq2SeqLM",
    "sequence-classification": "AutoModelForSequenceClassification",
    "question-answering": "AutoModelForQuestionAnswering",
}
WEIGHTS = {
    "gpt2": "dffe9f30e478f659",
    "llama": "3224684126b9b2a5",
    "mistral": "3224684126b9b2a5",
    "qwen2": "3b8ad473377de3a5",
    "qwen3": "35a2de8b9dd9fbdb",
    "bert": "53ac281eabdb4854",
    "t5": "099c566774e66fdb",
    "t5-gated": "2fbd6f9b2a4aed0e",
    "transformer": "8a2d58f7f7979268",
    "encoder-decoder": "6542c56a134e7d62",
}
"""The first digits of each first head's initial weights."""


def built(name: str, head: str, *, seed: int = 1, adapter: Any = NoAdapter()) -> Any:  # noqa: B008
    return build_model(
        TINY[name],
        vocab_size=VOCABULARY,
        seed=seed,
        adapter=adapter,
        head=head,
        num_labels=LABELS if head == "sequence-classification" else None,
        pad_token_id=pad_id(TOKENIZER),
    )


def outputs(module: Any) -> dict[str, torch.Tensor]:
    """Of two rows, the second of which ends in padding."""
    ids = torch.arange(ROWS * WIDTH).reshape(ROWS, WIDTH)
    mask = torch.ones_like(ids)
    ids[1, -3:], mask[1, -3:] = pad_id(TOKENIZER), 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    if module.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.arange(ROWS * 5).reshape(ROWS, 5)
    if module.config.model_type == "bert":
        inputs["token_type_ids"] = torch.tensor([[0] * 6 + [1] * 6] * ROWS)
    with torch.no_grad():
        found = module.eval()(**inputs)
    return {key: value for key, value in found.items() if "logits" in key}


SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "causal-lm": {"logits": (ROWS, WIDTH, VOCABULARY)},
    "masked-lm": {"logits": (ROWS, WIDTH, VOCABULARY)},
    "pre-training": {"prediction_logits": (ROWS, WIDTH, VOCABULARY), "seq_relationship_logits": (ROWS, 2)},
    "seq2seq-lm": {"logits": (ROWS, 5, VOCABULARY)},
    "sequence-classification": {"logits": (ROWS, LABELS)},
    "question-answering": {"start_logits": (ROWS, WIDTH), "end_logits": (ROWS, WIDTH)},
}


@EVERY
def test_a_head_gives_logits_of_these_shapes(name: str, head: str) -> None:
    module = built(name, head)
    assert module.training
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    found = outputs(module)
    assert {key: tuple(value.shape) for key, value in found.items()} == SHAPES[head]
    assert all(value.isfinite().all() for value in found.values())


@EVERY
def test_transformers_loads_the_folder_with_equal_logits(tmp_path: Path, name: str, head: str) -> None:
    import transformers

    source = built(name, head)
    save(TOKENIZER, tmp_path / "tokenizer.json")
    export_hf(source, tmp_path / "tokenizer.json", tmp_path / "model")
    auto = getattr(transformers, AUTO[head])
    loaded, report = auto.from_pretrained(tmp_path / "model", local_files_only=True, output_loading_info=True)
    assert type(loaded) is type(source) is model_class(TINY[name].model_type, head)
    assert [kind for kind, names in report.items() if names] == []
    expected = outputs(source)
    assert all(torch.equal(expected[key], value) for key, value in outputs(loaded).items())
    assert loaded.config.eos_token_id == pad_id(TOKENIZER)


@EVERY
def test_a_model_file_brings_back_every_tensor(tmp_path: Path, name: str, head: str) -> None:
    source, other = built(name, head, seed=1), built(name, head, seed=2)
    manifest = manifest_of(source)
    assert manifest_of(other) == manifest
    write_tensors(source, tmp_path / "model", manifest)
    assert any(not torch.equal(outputs(source)[key], value) for key, value in outputs(other).items())
    read_tensors(other, tmp_path / "model", manifest)
    assert all(torch.equal(outputs(source)[key], value) for key, value in outputs(other).items())
    groups = [entry.group for entry in manifest]
    assert groups == sorted(groups, reverse=True), "trainable ones first"
    assert len({entry.name for entry in manifest}) == len(manifest)


@pytest.mark.parametrize("name", TINY)
def test_initial_weights_are_these_very_bits(name: str) -> None:
    module = built(name, TINY[name].heads[0], seed=7)
    learning = b"".join(
        parameter.detach().numpy().astype("<f4").tobytes()
        for _, parameter in module.named_parameters()
        if parameter.requires_grad
    )
    assert hashlib.sha256(learning).hexdigest()[:16] == WEIGHTS[name]


@EVERY
def test_every_tensor_that_is_said_to_learn_gets_a_gradient(name: str, head: str) -> None:
    module = built(name, head).train()
    with torch.enable_grad():
        ids = torch.arange(ROWS * WIDTH).reshape(ROWS, WIDTH)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if module.config.is_encoder_decoder:
            inputs["decoder_input_ids"] = ids
        found = module(**inputs)
        generator = torch.Generator().manual_seed(1)
        sum(
            (value * torch.randn(value.shape, generator=generator)).sum()
            for key, value in found.items()
            if "logits" in key
        ).backward()
    still = [n for n, parameter in module.named_parameters() if parameter.requires_grad and parameter.grad is None]
    assert still == []
    frozen = [entry.name for entry in manifest_of(module) if entry.group == "frozen"]
    positions = ["model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight", "final_logits_bias"]
    assert frozen == (positions if name == "encoder-decoder" else [])


@pytest.mark.parametrize("name", TINY)
def test_linear_layers_are_those_that_blocks_have(name: str) -> None:
    from transformers.pytorch_utils import Conv1D

    blocks: dict[str, set[str]] = {}
    for place, part in built(name, TINY[name].heads[0]).named_modules():
        found = re.match(r"(.*?\.(?:h|layer|layers|block)\.\d+)\.(.+)", place)
        if found and isinstance(part, (torch.nn.Linear, Conv1D)):
            blocks.setdefault(found[1], set()).add(found[2])
    assert set().union(*blocks.values()) == set(TINY[name].linear_layers)
    assert len(blocks) == TINY[name].layers


@EVERY
def test_lora_trains_its_matrices_and_a_new_head_alone(tmp_path: Path, name: str, head: str) -> None:
    import transformers
    from peft import PeftModel

    plain, module = built(name, head), built(name, head, adapter=LoRA(r=2, lora_alpha=6))
    before = outputs(plain)
    assert all(torch.equal(before[key], value) for key, value in outputs(module).items())
    trained = [entry.name for entry in manifest_of(module) if entry.group == "trainable"]
    matrices = {entry for entry in trained if ".lora_" in entry}
    blocks = {entry.name.rpartition(".")[0] for entry in manifest_of(plain) if entry.name.endswith(".weight")}
    adapted = {layer for layer in blocks if any(layer.endswith(f".{path}") for path in TINY[name].linear_layers)}
    assert matrices == {f"{layer}.lora_{matrix}.weight" for layer in adapted for matrix in "AB"}
    assert {entry.partition(".")[0] for entry in trained if entry not in matrices} <= {
        "score",
        "classifier",
        "qa_outputs",
    }
    assert (len(trained) > len(matrices)) == (head in ("sequence-classification", "question-answering"))

    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    after = outputs(module)
    save(TOKENIZER, tmp_path / "tokenizer.json")
    export_hf(module, tmp_path / "tokenizer.json", tmp_path / "model")
    export_base(module, tmp_path / "tokenizer.json", tmp_path / "base")
    auto = getattr(transformers, AUTO[head])
    merged = outputs(auto.from_pretrained(tmp_path / "model"))
    assert all(torch.allclose(merged[key], value, atol=1e-4) for key, value in after.items())
    adapted_model = PeftModel.from_pretrained(auto.from_pretrained(tmp_path / "base"), tmp_path / "model" / "adapter")
    assert all(torch.allclose(outputs(adapted_model)[key], value, atol=1e-6) for key, value in after.items())


def test_a_classifier_reads_the_last_token_before_the_padding() -> None:
    module = built("gpt2", "sequence-classification").eval()
    end = pad_id(TOKENIZER)
    with torch.no_grad():
        short = module(input_ids=torch.tensor([[5, 6, 7]])).logits
        padded = module(input_ids=torch.tensor([[5, 6, 7, end, end], [1, 2, 3, 4, 5]])).logits
    assert torch.allclose(padded[:1], short, atol=1e-6)


def test_positions_of_the_transformer_are_the_paper_s() -> None:
    table = built("encoder-decoder", "seq2seq-lm").model.encoder.embed_positions.weight
    assert table[3, 1].item() == pytest.approx(torch.tensor(3 / 10000 ** (2 / 16)).sin().item(), abs=1e-6)
    assert table[3, 8 + 1].item() == pytest.approx(torch.tensor(3 / 10000 ** (2 / 16)).cos().item(), abs=1e-6)


def test_a_head_that_an_architecture_has_not_is_refused() -> None:
    with pytest.raises(
        InvalidConfiguration, match=r"model of type bert has no head 'causal-lm'; it has masked-lm, pre"
    ):
        built("bert", "causal-lm")
    with pytest.raises(InvalidConfiguration, match=r"num_labels is None; head sequence-classification needs a number"):
        build_model(TINY["bert"], vocab_size=9, seed=0, head="sequence-classification")
    with pytest.raises(
        InvalidConfiguration, match=r"Model type t5 has no head 'causal-lm'; expected one of seq2seq-lm"
    ):
        model_class("t5")


def test_rotary_positions_need_an_even_head() -> None:
    odd = Qwen3.model_validate({**ROTARY, "head_dim": 5})
    with pytest.raises(InvalidConfiguration, match=r"model\.head_dim is 5; rotary positions need an even number"):
        build_model(odd, vocab_size=9, seed=0)
    assert isinstance(odd, RotaryDecoder)
