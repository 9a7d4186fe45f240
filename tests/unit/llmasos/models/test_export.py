"""An exported folder is one that transformers loads by itself, offline, with the same logits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from common.errors import UsageError  # noqa: E402
from llmasos.models.build import build_model, export_hf, manifest_of, write_tensors  # noqa: E402
from llmasos.tokenizers import END_OF_DOCUMENT, bytes_tokenizer, save, train_bpe, vocab_size_of  # noqa: E402
from tests.support.texts import make_text  # noqa: E402
from tests.unit.llmasos.models.test_build import ARCHITECTURES, TINY_GPT2  # noqa: E402

pytestmark = pytest.mark.torch

TEXT = make_text("clinic", words=200, seed=0) + "naïve 北京\n"
BPE = train_bpe([TEXT], 300)


@ARCHITECTURES
@pytest.mark.parametrize("tokenizer", [BPE, bytes_tokenizer()], ids=["bpe", "bytes"])
def test_transformers_loads_the_folder_with_equal_logits_and_tokens(tmp_path: Path, model, tokenizer) -> None:  # type: ignore[no-untyped-def]
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = build_model(model, vocab_size=vocab_size_of(tokenizer), seed=1).eval()
    save(tokenizer, tmp_path / "tokenizer.json")
    export_hf(source, tmp_path / "tokenizer.json", tmp_path / "model")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    ids = torch.arange(14)[None] % 7
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, source(ids).logits)
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in source.state_dict().items())
    assert loaded.dtype == torch.float32

    loaded_tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert loaded_tokenizer(TEXT)["input_ids"] == tokenizer.encode(TEXT).ids
    assert loaded_tokenizer.decode(tokenizer.encode(TEXT).ids) == TEXT
    assert loaded_tokenizer.eos_token == END_OF_DOCUMENT
    assert loaded.generation_config.eos_token_id == loaded.config.eos_token_id == loaded_tokenizer.eos_token_id
    assert loaded.config.use_cache


def test_the_exported_weights_are_the_model_blob_s_bytes(tmp_path: Path) -> None:
    model = build_model(TINY_GPT2, vocab_size=300, seed=1)
    save(BPE, tmp_path / "tokenizer.json")
    write_tensors(model, tmp_path / "blob", manifest_of(model))
    for _ in range(2):
        export_hf(model, tmp_path / "tokenizer.json", tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == (tmp_path / "blob").read_bytes()
    assert (tmp_path / "model" / "tokenizer.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert model.config.use_cache is False
    assert json.loads((tmp_path / "model" / "config.json").read_bytes())["model_type"] == "gpt2"


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    save(bytes_tokenizer(), tmp_path / "tokenizer.json")
    with pytest.raises(UsageError, match="ends documents with token 256, the model knows 100 tokens"):
        export_hf(build_model(TINY_GPT2, vocab_size=100, seed=0), tmp_path / "tokenizer.json", tmp_path / "model")
    with pytest.raises(UsageError, match="The model has no transformers configuration"):
        export_hf(torch.nn.Linear(1, 1), tmp_path / "tokenizer.json", tmp_path / "model")
