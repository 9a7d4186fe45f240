"""An exported folder is one that transformers loads by itself, offline, with the same logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from common.errors import UsageError  # noqa: E402
from common.plan.tasks import Instruction  # noqa: E402
from llmasos.datasets.records import Example  # noqa: E402
from llmasos.models.build import build_model, export_hf, manifest_of, write_tensors  # noqa: E402
from llmasos.preparation import load_prepared  # noqa: E402
from llmasos.simulation.final_model import export_final  # noqa: E402
from llmasos.tasks.instruction import Conversations, turns_of  # noqa: E402
from llmasos.tokenizers import END_OF_DOCUMENT, bytes_tokenizer, load, save, train_bpe, vocab_size_of  # noqa: E402
from llmasos.tokenizers.special import vocabulary_of  # noqa: E402
from tests.support.jobs import a_training_plan, make_prepared  # noqa: E402
from tests.support.tasks import MODELS  # noqa: E402
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


def released(folder: Path, task: dict[str, Any], model: dict[str, Any] | None = None) -> Path:
    """What `plan prepare` and `plan export` make of a task, untrained."""
    plan = a_training_plan(task=task, **({} if model is None else {"model": model}))
    made = load_prepared(make_prepared(folder, plan))
    export_final(made, made.model, folder / "model")
    return folder / "model"


def test_a_chat_template_is_exported_and_writes_what_was_trained(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    quoted = {"prefix": "U'\"{{ 7*7 }}\\ß北<|u|>\n", "suffix": "{% raw %}\n"}
    task = {"type": "instruction", "template": {"user": quoted, "assistant": {"prefix": "A: ", "suffix": "<|stop|>"}}}
    tokenizer = AutoTokenizer.from_pretrained(released(tmp_path, task))
    chat = [{"role": "user", "content": "{{ 1 }}"}, {"role": "assistant", "content": "2"}]
    said = tokenizer.apply_chat_template(chat, tokenize=False)
    assert said == quoted["prefix"] + "{{ 1 }}" + quoted["suffix"] + "A: 2<|stop|>"
    assert tokenizer.apply_chat_template(chat[:1], tokenize=False, add_generation_prompt=True).endswith("raw %}\nA: ")
    ends = json.loads((tmp_path / "model" / "generation_config.json").read_bytes())["eos_token_id"]
    assert tokenizer.convert_ids_to_tokens(ends) == ["<|endoftext|>", "<|stop|>"]
    ours, plan = load(tmp_path / "model" / "tokenizer.json"), Instruction.model_validate(task)
    maker = Conversations(plan, turns_of(plan.template, ours), vocabulary_of(ours), 200)
    example = Example("a:1", {"messages": chat})
    (row,) = maker.encode(example, ours.encode_batch(maker.texts(example))).rows
    assert tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False) == list(row[0])[:-1], "but for its end"


def test_labels_marks_and_padding_are_exported_by_transformers_names(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    task = {"type": "sequence-classification", "labels": ["calm", "loud"]}
    folder = released(tmp_path, task, MODELS["sequence-classification"])
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.config.id2label == {0: "calm", 1: "loud"}
    assert (tokenizer.pad_token, tokenizer.cls_token, tokenizer.sep_token) == ("[PAD]", "[CLS]", "[SEP]")
    ids = tokenizer(["a", "bc"], padding=True)["input_ids"]
    assert [tokenizer.convert_ids_to_tokens(row) for row in ids] == [
        ["[CLS]", "a", "[SEP]", "[PAD]"],
        ["[CLS]", "b", "c", "[SEP]"],
    ]
    found = pipeline("text-classification", str(folder), device="cpu")("a", top_k=None)
    assert {one["label"] for one in found} == {"calm", "loud"}


def test_what_a_pipeline_reads_is_what_the_task_trained(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = released(tmp_path, {"type": "seq2seq"}, MODELS["seq2seq"])
    assert AutoTokenizer.from_pretrained(folder)("a").input_ids == [ord("a"), 256]
    mlm = {"type": "masked-lm", "next_sentence": True}
    tokenizer = AutoTokenizer.from_pretrained(released(tmp_path / "mlm", mlm, MODELS["masked-lm"]))
    pair = tokenizer("a", "b")
    assert tokenizer.convert_ids_to_tokens(pair.input_ids) == ["[CLS]", "a", "[SEP]", "b", "[SEP]"]
    assert pair.token_type_ids == [0, 0, 0, 1, 1]


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    save(bytes_tokenizer(), tmp_path / "tokenizer.json")
    with pytest.raises(UsageError, match="ends documents with token 256, the model knows 100 tokens"):
        export_hf(build_model(TINY_GPT2, vocab_size=100, seed=0), tmp_path / "tokenizer.json", tmp_path / "model")
    with pytest.raises(UsageError, match="The model has no transformers configuration"):
        export_hf(torch.nn.Linear(1, 1), tmp_path / "tokenizer.json", tmp_path / "model")
