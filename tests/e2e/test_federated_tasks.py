"""BERT, translation and LoRA, each in a federation of three: real daemons, real workers, and what comes out is a model that
plain transformers loads.

Each run is verified by the coordinator and by a participant; its held-out loss fell; `run export` and `plan export` make the
released folder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from common.terminal import exit_code_of
from coordinator.cli import app as operators_app
from llmasos.cli import app as users_app
from participant.cli import app as institutions_app
from tests.support.drafts import Draft
from tests.support.federations import NAMES, Federation
from tests.support.records import a_conversation, write_records
from tests.support.researching import write_pairs
from tests.support.texts import make_text

pytestmark = pytest.mark.torch

LOCAL = {
    "steps": 5,
    "batch_size": 4,
    "sequence_length": 32,
    "optimizer": {"type": "adamw", "learning_rate": "0.01"},
    "schedule": {"type": "constant", "warmup_steps": 2},
}
BERT = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 64}
TRANSFORMER = {"architecture": "encoder-decoder", "num_layers": 2, "nhead": 2, "d_model": 32, "dim_feedforward": 64}
LLAMA = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "hidden_size": 32}
ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Released:
    """What a run left: its held-out loss before and after, and the released folder."""

    before: float
    after: float
    model: Path


def trained(root: Path, data: Callable[[Path, int], object], **plan: Any) -> Released:
    """A federation of three runs the plan on what `data` writes for each; all that is promised of any task is checked."""
    pytest.importorskip("torch")
    from llmasos.preparation import load_prepared
    from tests.support.jobs import a_training_plan, make_prepared

    fields = {"local": LOCAL, "rounds": ROUNDS, "quorum": 3, "evaluation": {"max_tokens": 256}}
    prepared = load_prepared(make_prepared(root / "plan", a_training_plan(**(fields | plan))))
    with Federation(root / "federation", worker=None) as federation:
        for number, name in enumerate(NAMES):
            (federation.data(name) / "text.txt").unlink()
            data(federation.data(name), number)
        federation.start_participants()
        run = federation.start_run(Draft(prepared.draft, prepared.folder))
        ended = federation.wait_until_ended(run)
        outcomes = [(record.closed.outcome, len(record.contributions)) for record in ended.rounds if record.closed]
        assert outcomes == [("committed", len(NAMES))] * (ROUNDS + 1), "every round, and the last evaluation"
        home = str(federation.coordinator_home)
        with federation.operator() as session:
            (view,) = session.runs()
        pooled = [entry for record in view.rounds for entry in record.evaluations if entry.scope == "pooled"]
        tensors, model = root / "final.safetensors", root / "model"
        assert exit_code_of(operators_app, ["run", "export", run, "--out", str(tensors), "--home", home]) == 0
        assert exit_code_of(operators_app, ["verify", run, "--home", home]) == 0
        blobs = ["--blobs", f"{home}/blobs", "--no-fetch", "--home", str(federation.home("clinic"))]
        assert exit_code_of(institutions_app, ["verify", run, *blobs]) == 0
    assert exit_code_of(users_app, ["plan", "export", str(prepared.folder), str(tensors), "--out", str(model)]) == 0
    losses = [entry.loss_sum_fixed / entry.num_tokens for entry in pooled]
    assert len(losses) == ROUNDS + 1
    return Released(losses[0], losses[-1], model)


def documents(folder: Path, number: int) -> None:
    """Six texts of one institution's kind."""
    for one in range(6):
        text = make_text(NAMES[number], words=60, seed=one)
        (folder / f"{one}.txt").write_text(text, encoding="utf-8")


def pairs(folder: Path, number: int) -> None:
    write_pairs(folder, count=40, seed=number)


def conversations(folder: Path, number: int) -> None:
    """Answers to questions, as conversations and as prompts with responses."""
    records = [a_conversation(NAMES[number], one) for one in range(40)]
    write_records(folder / "records.jsonl", records)


def test_bert_in_a_federation_of_three_is_a_pretrained_model_of_transformers(tmp_path: Path) -> None:
    task = {"type": "masked-lm", "next_sentence": True}
    released = trained(tmp_path, documents, task=task, model={"type": "bert", **BERT})
    assert released.after < released.before - 0.3

    from transformers import AutoTokenizer, BertForPreTraining

    model, tokenizer = BertForPreTraining.from_pretrained(released.model), AutoTokenizer.from_pretrained(released.model)
    asked = tokenizer(f"a te{tokenizer.mask_token}t", "and one after it", return_tensors="pt")
    assert asked.input_ids[0, 0] == tokenizer.cls_token_id
    assert asked.token_type_ids.unique().tolist() == [0, 1]
    found = model(**asked)
    assert found.prediction_logits.isfinite().all()
    assert found.seq_relationship_logits.shape == (1, 2)


def test_translation_in_a_federation_of_three_is_a_model_that_transformers_generates_with(tmp_path: Path) -> None:
    task = {"type": "seq2seq", "source": "german", "target": "english"}
    released = trained(tmp_path, pairs, task=task, model={"type": "transformer", **TRANSFORMER})
    assert released.after < released.before - 0.3

    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from llmasos.generation import generate_text

    model = AutoModelForSeq2SeqLM.from_pretrained(released.model)
    tokenizer = AutoTokenizer.from_pretrained(released.model)
    ids = tokenizer("ein zwei", return_tensors="pt").input_ids
    written = model.generate(input_ids=ids, max_new_tokens=8, do_sample=False)[0]
    ours = generate_text(released.model, "ein zwei", max_new_tokens=8, temperature=0)
    assert tokenizer.decode(written, skip_special_tokens=True) == ours


def test_lora_dialogue_in_a_federation_of_three_is_one_model_and_an_adapter_of_peft(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    released = trained(
        tmp_path,
        conversations,
        task={"type": "instruction"},
        model={"type": "llama", **LLAMA, "intermediate_size": 64, "max_position_embeddings": 32},
        adapter={"type": "lora", "r": 4},
    )
    assert released.after < released.before

    from safetensors.numpy import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    adapter = load_file(released.model / "adapter" / "adapter_model.safetensors")
    learned = [values for name, values in adapter.items() if "lora_B" in name]
    assert learned
    assert all(values.any() for values in learned), "they begin at 0"
    model = AutoModelForCausalLM.from_pretrained(released.model)
    tokenizer = AutoTokenizer.from_pretrained(released.model)
    chat = [{"role": "user", "content": "7?"}]
    asked = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    assert tokenizer.decode(asked["input_ids"][0]) == "<|im_start|>user\n7?<|im_end|>\n<|im_start|>assistant\n"
    assert model.generate(**asked, max_new_tokens=4, do_sample=False).shape[0] == 1
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
