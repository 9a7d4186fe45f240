"""Text comes out of a model folder, the same for the same seed, and other folders are refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from common.errors import MissingExtra, UsageError  # noqa: E402
from common.plan.architectures import BERT, GPT2, Llama  # noqa: E402
from llmasos import extras, generation  # noqa: E402
from llmasos.generation import Sampling, generate_text  # noqa: E402
from llmasos.models.build import build_model, export_hf  # noqa: E402
from llmasos.tokenizers import bytes_tokenizer, save  # noqa: E402
from tests.unit.llmasos.models.test_build import TINY_GPT2, TINY_LLAMA  # noqa: E402

pytestmark = pytest.mark.torch


def export(folder: Path, model: GPT2 | Llama = TINY_GPT2) -> Path:
    module = build_model(model, vocab_size=257, seed=0)
    with torch.no_grad():  # so that it has opinions: initial weights give nearly even odds
        for parameter in module.parameters():
            parameter.mul_(20)
    folder.mkdir()
    save(bytes_tokenizer(), folder / "given.json")
    export_hf(module, folder / "given.json", folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("generation") / "model")


def test_a_prompt_is_continued_the_same_way_for_the_same_seed(folder: Path) -> None:
    first = generate_text(folder, "ab", max_new_tokens=8, seed=1)
    assert first.startswith("ab")
    assert len(first) > 2
    assert generate_text(folder, "ab", max_new_tokens=8, seed=1) == first
    assert generate_text(folder, "ab", max_new_tokens=8, seed=2, temperature=5.0) != first


@pytest.mark.parametrize("model", [TINY_GPT2, TINY_LLAMA], ids=["gpt2", "llama"])
def test_greedy_text_is_the_likeliest_token_each_time(tmp_path: Path, model) -> None:  # type: ignore[no-untyped-def]
    path = export(tmp_path / "model", model)
    loaded = generation.load_module(path)
    ids = list(b"ab")
    with torch.no_grad():
        for _ in range(10):
            ids.append(int(loaded(torch.tensor([ids])).logits[0, -1].argmax()))
    stream = generation._continue(loaded, list(b"ab"), Sampling(temperature=0))
    assert [next(stream) for _ in range(10)] == ids[2:]
    cut = ids[: ids.index(256)] if 256 in ids else ids
    assert generate_text(path, "ab", max_new_tokens=10, temperature=0) == bytes(cut).decode(errors="replace")


def test_the_likeliest_of_one_is_greedy(folder: Path) -> None:
    greedy = generate_text(folder, "ab", max_new_tokens=8, temperature=0)
    assert generate_text(folder, "ab", max_new_tokens=8, top_k=1, seed=9) == greedy


def test_text_goes_on_beyond_the_context(folder: Path) -> None:
    model = generation.load_module(folder)
    for length in (1, 16, 40):
        stream = generation._continue(model, [97] * length, Sampling())
        assert len([next(stream) for _ in range(50)]) == 50


def test_an_empty_prompt_begins_a_document(folder: Path) -> None:
    assert isinstance(generate_text(folder, "", max_new_tokens=4), str)
    assert generate_text(folder, "abc", max_new_tokens=0) == "abc"


def test_text_ends_where_the_model_ends_a_document(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "_continue", lambda *_: iter([*b"xy", 256, *b"never"]))
    assert generate_text(folder, "ab", max_new_tokens=50) == "abxy"


def spoiled(folder: Path, target: Path, name: str, content: bytes | None) -> Path:
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    if content is None:
        (target / name).unlink()
    else:
        (target / name).write_bytes(content)
    return target


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, r"is no model folder: it holds no config\.json"),
        ("model.safetensors", None, r"is no model folder: it holds no model\.safetensors"),
        ("config.json", b"{", "holds a model that cannot be loaded"),
        ("config.json", b"[]", "holds a model of a type not in gpt2, llama"),
        ("config.json", b'{"model_type": "evil"}', "holds a model of a type not in gpt2, llama"),
        ("model.safetensors", b"\0" * 40, "holds a model that cannot be loaded"),
        ("tokenizer.json", b"{}", r"tokenizer\.json is not a tokenizers JSON file"),
    ],
)
def test_a_folder_that_is_no_model_is_refused(
    folder: Path, tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        generate_text(spoiled(folder, tmp_path / "model", name, content), "x")


def test_a_model_that_ends_in_something_else_says_in_what(tmp_path: Path) -> None:
    module = build_model(BERT(hidden_size=32, num_attention_heads=2), vocab_size=257, seed=0, head="masked-lm")
    save(bytes_tokenizer(), tmp_path / "tokenizer.json")
    export_hf(module, tmp_path / "tokenizer.json", tmp_path / "model")
    with pytest.raises(UsageError, match=r"holds a bert that ends in masked-lm, expected one that ends in causal-lm\."):
        generation.load_module(tmp_path / "model")


def test_code_in_a_model_folder_is_not_executed(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    path = spoiled(folder, tmp_path / "model", "config.json", json.dumps(config).encode())
    (path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    generate_text(path, "x", max_new_tokens=1)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1.0}, "temperature is -1.0, expected 0 to 100"),
        ({"temperature": float("nan")}, "temperature is nan, expected 0 to 100"),
        ({"top_k": 0}, "top_k is 0, expected 1 or more"),
        ({"max_new_tokens": -1}, "max_new_tokens is -1, expected 0 or more"),
    ],
)
def test_settings_out_of_range_are_named(folder: Path, settings, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=message):
        generate_text(folder, "x", **settings)


def test_missing_packages_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "transformers" else object())
    with pytest.raises(MissingExtra, match="To generate text, transformers must be installed"):
        generate_text(folder, "x")
