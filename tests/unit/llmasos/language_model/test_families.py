"""Every model of llmasos.models learns its task, is saved and loaded; the README's code runs as written."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import llmasos  # noqa: E402
from common.errors import InvalidConfiguration, UnreadableData, UsageError  # noqa: E402
from llmasos import models  # noqa: E402
from llmasos.adapters import IA3, Adapter, LoRA, PrefixTuning, PromptTuning, PTuning  # noqa: E402
from llmasos.datasets import Dataset, load_dataset  # noqa: E402
from llmasos.language_model.storing import card_of  # noqa: E402
from llmasos.losses import CausalLMLoss, MaskedLMLoss  # noqa: E402
from llmasos.models import BERT, GPT, T5, Llama, Mistral, Qwen2, Qwen3, Transformer  # noqa: E402
from llmasos.optimizers import Adam  # noqa: E402
from llmasos.simulation import final_model  # noqa: E402
from llmasos.tokenizers import train  # noqa: E402
from tests.support.researching import NUMBERS, WORDS, write_labelled, write_pairs, write_records  # noqa: E402
from tests.support.texts import make_institutions  # noqa: E402

pytestmark = pytest.mark.torch

PAIRS = {"type": "seq2seq", "source": "german", "target": "english"}
LABELLED = {"type": "sequence-classification", "labels": ["german", "english"]}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = write_pairs(tmp_path_factory.mktemp("pairs"), count=300)
    (public := tmp_path_factory.mktemp("public") / "numbers.txt").write_text(" ".join([*WORDS, *NUMBERS] * 50))
    return load_dataset(folder, train(public, 320), task=PAIRS)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = write_labelled(tmp_path_factory.mktemp("labelled"))
    return load_dataset(folder, train(folder, 300), task=LABELLED)


DECODERS: dict[str, Any] = {
    "Transformer": lambda: Transformer(16, 2, 1, max_positions=16, dropout=0.0),
    "GPT": lambda: GPT(1, 2, 16, 16),
    **{
        kind.__name__: lambda kind=kind: kind(16, 1, 2, max_position_embeddings=16)
        for kind in (Llama, Mistral, Qwen2, Qwen3)
    },
}


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_learns_text_and_comes_back_from_disk_with_and_without_its_card(
    name: str, data: Dataset, tmp_path: Path
) -> None:
    model = DECODERS[name]()
    history = model.fit(data.train, Adam(lr=1e-2), steps=15, batch_size=4)
    assert history[-1]["loss"] < history[0]["loss"]
    path = model.save(tmp_path / "model")
    text = model.generate_text("car", max_new_tokens=20, temperature=0)
    card = card_of(path)
    assert (card.kind, card.head) == (name, "causal-lm")
    assert card.model.model_dump(exclude={"head_dim"}) == model.section.model_dump(exclude={"head_dim"})
    for _ in range(2):
        found = type(model).load(path)
        assert found.generate_text("car", max_new_tokens=20, temperature=0) == text
        assert found.evaluate(data.test).loss == model.evaluate(data.test).loss
        (path / "llmasos.json").unlink(missing_ok=True)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Transformer(32, 4, 1, max_positions=16, dropout=0.0, architecture="encoder-decoder"),
        lambda: T5(32, 1, 4, dropout_rate=0.0),
    ],
    ids=["transformer", "t5"],
)
def test_an_encoder_decoder_learns_to_translate(make: Any, pairs: Dataset, tmp_path: Path) -> None:
    model = make()
    model.fit(pairs.train, Adam(lr=5e-3), steps=200, batch_size=16, sequence_length=16)
    assert model.evaluate(pairs.test, sequence_length=16).accuracy > 0.8
    assert model.generate_text("drei ein", temperature=0) == "three one"
    found = models.load(model.save(tmp_path / "model"))
    assert type(found) is type(model)
    assert found.generate_text("drei ein", temperature=0) == "three one"
    assert found.evaluate(pairs.test, sequence_length=16).loss == model.evaluate(pairs.test, sequence_length=16).loss
    assert llmasos.generate_text(tmp_path / "model", "drei ein", temperature=0) == "three one"
    (tmp_path / "model" / "llmasos.json").unlink()
    assert type(models.load(tmp_path / "model")) is type(model)


@pytest.mark.parametrize(
    "make",
    [lambda: BERT(16, 1, 2, max_position_embeddings=32, dropout=0.0), lambda: GPT(1, 2, 16, 32)],
    ids=["bert", "gpt"],
)
def test_texts_are_classified(make: Any, labelled: Dataset, tmp_path: Path) -> None:
    model = make()
    model.fit(labelled.train, Adam(lr=1e-2), steps=40, batch_size=8)
    measured = model.evaluate(labelled.test)
    assert (measured.accuracy, measured.tokens) == (1.0, len(labelled.test))
    assert measured.bits_per_byte is None
    assert measured.scores == {"accuracy": 1.0, "macro_f1": 1.0, "micro_f1": 1.0}
    assert measured.to_dict()["macro_f1"] == 1.0
    found = models.load(model.save(tmp_path / "model"))
    assert found.evaluate(labelled.test).loss == measured.loss
    assert found.num_labels == 2
    shares = found.classify("ein zwei drei")
    assert max(shares, key=lambda label: shares[label]) == "german"
    assert sum(shares.values()) == pytest.approx(1)
    for write in (found.generate_text, lambda prompt: llmasos.generate_text(tmp_path / "model", prompt)):
        with pytest.raises(UsageError, match=r"ends in sequence-classification, which writes no text"):
            write("ein")
    assert final_model.sample(tmp_path / "model", "ein") == ""
    with pytest.raises(UsageError, match=r"was fitted to task sequence-classification, expected task instruction"):
        found.chat([])


@pytest.mark.parametrize("next_sentence", [False, True])
def test_bert_learns_hidden_tokens_and_keeps_what_it_learned_for_another_task(
    next_sentence: bool, data: Dataset, tmp_path: Path
) -> None:
    model = BERT(16, 1, 2, max_position_embeddings=32, dropout=0.0)
    loss = MaskedLMLoss(next_sentence=True) if next_sentence else None
    history = model.fit(data.train, Adam(lr=1e-2), loss, steps=20, validation=data.validation)
    assert history[-1]["loss"] < history[0]["loss"]
    measured = model.evaluate(data.test)
    assert measured.accuracy is not None
    assert measured.bits_per_byte is None
    found = BERT.load(model.save(tmp_path / "model"))
    assert found.evaluate(data.test).loss == measured.loss
    assert found.head == ("pre-training" if next_sentence else "masked-lm")


def test_a_question_is_answered_in_the_words_of_its_text_and_a_turn_of_a_conversation_is_taken(tmp_path: Path) -> None:
    questions, talks = tmp_path / "questions", tmp_path / "talks"
    chosen = random.Random(0)
    asked, said = [], []
    for _ in range(200):
        first, second = chosen.sample(NUMBERS, 2)
        asked.append({"question": "which", "context": f"{first} red {second} blue", "answer": first})
        word = chosen.randrange(len(WORDS))
        said.append({"prompt": f"{WORDS[word]} {chosen.randrange(50)}", "response": NUMBERS[word]})
    write_records(questions, asked)
    write_records(talks, said)
    tokenizer = train(questions, 330, text_column="context")
    reader = BERT(32, 1, 4, max_position_embeddings=32, dropout=0.0)
    data = load_dataset(questions, tokenizer, task="question-answering", validation=0)
    reader.fit(data.train, Adam(lr=5e-3), steps=60, batch_size=16)
    assert reader.answer("which", "two red six blue") == "two"
    measured = reader.evaluate(data.test)
    assert (measured.accuracy or 0) > 0.9
    assert 0.8 < measured.scores["exact_match"] <= measured.scores["f1"] <= 1
    speaker = GPT(1, 2, 32, 32)
    data = load_dataset(talks, train(talks, 330, text_column="prompt"), task="instruction", validation=0)
    speaker.fit(data.train, Adam(lr=3e-3), steps=200, batch_size=16)
    assert speaker.chat([{"role": "user", "content": "zwei 7"}], temperature=0) == "two"
    with pytest.raises(UsageError, match="A message has role 'robot', expected one of system, user, assistant"):
        speaker.chat([{"role": "robot", "content": "x"}])


def test_another_task_keeps_what_was_learned_below_the_head(labelled: Dataset, tmp_path: Path) -> None:
    texts = load_dataset(write_labelled(tmp_path / "texts"), labelled.tokenizer)
    model = GPT(1, 2, 16, 32, tokenizer=labelled.tokenizer)
    model.fit(texts.train, Adam(lr=1e-2), steps=5)
    learned = model.module.state_dict()["transformer.h.0.mlp.c_fc.weight"].clone()
    model.fit(labelled.train, Adam(lr=1e-9), steps=1)
    torch.testing.assert_close(model.module.state_dict()["transformer.h.0.mlp.c_fc.weight"], learned)
    assert model.head == "sequence-classification"
    with pytest.raises(UsageError, match="ends in sequence-classification, task causal-lm needs causal-lm"):
        model.evaluate(texts.test, CausalLMLoss())


@pytest.mark.parametrize("adapter", [LoRA(r=2), LoRA(r=2, use_dora=True), IA3()], ids=["lora", "dora", "ia3"])
def test_an_adapter_alone_is_trained_and_saved_merged(data: Dataset, tmp_path: Path, adapter: Adapter) -> None:
    model = GPT(1, 2, 16, 16)
    model.fit(data.train, Adam(lr=1e-2), steps=5)
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    model.add_adapter(adapter)
    assert model.num_parameters() < 1000
    model.fit(data.train, Adam(lr=1e-2), steps=5)
    after = {name.replace(".base_layer.", "."): value for name, value in model.module.state_dict().items()}
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    path = model.save(tmp_path / "model")
    assert (path / "adapter" / "adapter_model.safetensors").is_file()
    assert GPT.load(path).evaluate(data.test).loss == pytest.approx(model.evaluate(data.test).loss, abs=1e-5)
    with pytest.raises(UsageError, match="The model has an adapter already"):
        model.add_adapter(LoRA())
    with pytest.raises(InvalidConfiguration, match=r"names q_proj, which a block of gpt2 has not; its linear"):
        GPT.load(path).add_adapter(LoRA(target_modules=("q_proj",)))
    with pytest.raises(
        InvalidConfiguration, match="adapter prompt-tuning needs a model with head causal-lm, got head masked"
    ):
        BERT(16, 1, 2, 32, vocab_size=257).add_adapter(PromptTuning())


@pytest.mark.parametrize(
    ("adapter", "numbers"),
    [
        (PromptTuning(num_virtual_tokens=3), 3 * 16),
        (PrefixTuning(num_virtual_tokens=3), 3 * 2 * 16),
        (PTuning(num_virtual_tokens=3, encoder_hidden_size=4), 3 * 16 + 17 * 4 + 5 * 4 + 5 * 16),
    ],
    ids=["prompt", "prefix", "p-tuning"],
)
def test_virtual_tokens_are_trained_saved_beside_the_model_and_go_on(
    data: Dataset, tmp_path: Path, adapter: Adapter, numbers: int
) -> None:
    model = GPT(1, 2, 16, 16)
    model.fit(data.train, Adam(lr=1e-2), steps=2)
    alone = model.evaluate(data.test).loss
    model.add_adapter(adapter)
    assert model.num_parameters() == numbers
    model.fit(data.train, Adam(lr=3e-2), steps=20)
    measured = model.evaluate(data.test).loss
    assert measured < alone
    path = model.save(tmp_path / "model")
    loaded = GPT.load(path)
    assert loaded.evaluate(data.test).loss == pytest.approx(measured, abs=1e-6)
    said = model.generate_text("a", max_new_tokens=8, temperature=0)
    assert loaded.generate_text("a", max_new_tokens=8, temperature=0) == said
    frozen = {name: value.clone() for name, value in loaded.module.state_dict().items() if "prompt" not in name}
    loaded.fit(data.train, Adam(lr=3e-2), steps=10)
    assert all(torch.equal(loaded.module.state_dict()[name], value) for name, value in frozen.items())
    again = GPT.load(loaded.save(tmp_path / "again"))
    assert again.evaluate(data.test).loss == pytest.approx(loaded.evaluate(data.test).loss, abs=1e-6) != measured
    with pytest.raises(UsageError, match=r"The model has an adapter already\..*Load the model without it"):
        loaded.add_adapter(LoRA())


def test_what_does_not_go_together_is_one_sentence(data: Dataset, pairs: Dataset, tmp_path: Path) -> None:
    with pytest.raises(
        InvalidConfiguration, match=r"fit: task causal-lm needs a model with head causal-lm .*, got bert"
    ):
        BERT(16, 1, 2).fit(data.train, loss=CausalLMLoss())
    with pytest.raises(
        InvalidConfiguration, match=r"fit: task seq2seq needs a model with head seq2seq-lm .*, got gpt2"
    ):
        GPT(1, 2, 16, 16).fit(pairs.train)
    with pytest.raises(UsageError, match="The data were loaded for task seq2seq, the loss is for causal-lm"):
        T5(32, 1, 4).fit(pairs.train, loss=CausalLMLoss())
    with pytest.raises(InvalidConfiguration, match=r"Transformer: architecture: expected .*, got 'encoder'"):
        Transformer(architecture="encoder")
    with pytest.raises(InvalidConfiguration, match=r"task: .*translation"):
        load_dataset(tmp_path, task="translation")
    with pytest.raises(UnreadableData, match=r"pairs\.jsonl:1 has no field 'source', 'target'; task seq2seq reads"):
        load_dataset(write_pairs(tmp_path / "pairs"), task="seq2seq")


def test_the_code_at_the_beginning_of_the_readme_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (Path(__file__).parents[4] / "README.md").read_text(encoding="utf-8")
    block = readme.partition("## As a library")[2].partition("```python\n")[2].partition("```")[0]
    code = block.partition("result = ")[0]
    small = code.replace("d_model=512, nhead=8, num_layers=6", "d_model=16, nhead=2, num_layers=1, max_positions=32")
    assert small != code
    make_institutions(tmp_path, count=1)["clinic"].rename(tmp_path / "corpus")
    monkeypatch.chdir(tmp_path)
    exec(small, {})
    told = capsys.readouterr().out
    assert "perplexity=" in told
    assert "今天天气怎么样？" in told
    assert sorted(os.listdir(tmp_path)) == ["corpus", "llm_model.pt"]
    assert llmasos.models.Transformer.load("llm_model.pt").vocab_size is not None
