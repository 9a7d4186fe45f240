"""A saved model is a folder of safetensors that loads to the same bits, also in transformers; anything else is refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from common.errors import LLMasOSError, StorageFailure, UsageError  # noqa: E402
from llmasos import models  # noqa: E402
from llmasos.datasets import Dataset  # noqa: E402
from llmasos.models import GPT, Llama  # noqa: E402
from llmasos.optimizers import Adam  # noqa: E402

pytestmark = pytest.mark.torch

TINY = {"n_layer": 1, "n_head": 2, "n_embd": 8, "n_positions": 16}


@pytest.fixture
def saved(data: Dataset, tmp_path: Path) -> Path:
    model = GPT(**TINY)
    model.fit(data.train, Adam(lr=1e-2), steps=2, batch_size=2)
    return model.save(tmp_path / "model")


def test_a_saved_model_loads_to_the_same_bits(data: Dataset, tmp_path: Path) -> None:
    for model in (GPT(**TINY, dropout=0.1), Llama(16, 1, 2, max_position_embeddings=16)):
        model.fit(data.train, Adam(lr=1e-2), steps=2, batch_size=2)
        path = model.save_pretrained(tmp_path / type(model).__name__)
        found = models.load(path)
        assert type(found) is type(model)
        assert found.section == model.section
        state = model.module.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in found.module.state_dict().items())
        assert found.evaluate(data.test).loss == model.evaluate(data.test).loss
        assert found.generate_text("car", max_new_tokens=5) == model.generate_text("car", max_new_tokens=5)
        assert not (path / "training.safetensors").exists()


def test_transformers_loads_it_and_what_transformers_saved_is_loaded(saved: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    theirs = AutoModelForCausalLM.from_pretrained(saved)
    assert AutoTokenizer.from_pretrained(saved).decode([0]) == "<|endoftext|>"
    theirs.save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs" / "tokenizer.json").write_bytes((saved / "tokenizer.json").read_bytes())
    found = GPT.from_pretrained(tmp_path / "theirs")
    for name, value in GPT.load(saved).module.state_dict().items():
        assert torch.equal(value, found.module.state_dict()[name])


def test_a_folder_named_as_a_pickle_says_what_it_is(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = GPT.load(saved).save(tmp_path / "llm_model.pt")
    assert (
        "llm_model.pt is a folder with model.safetensors, not a pickle; GPT.load reads it." in capsys.readouterr().err
    )
    assert "no pickle" in (path / "README.md").read_text()
    assert GPT.load(path).num_parameters() > 0


def test_saving_again_takes_the_place_of_the_model_and_of_nothing_else(saved: Path, tmp_path: Path) -> None:
    model = GPT.load(saved)
    (saved / "stray").write_text("from before")
    model.save(saved)
    assert not (saved / "stray").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"], "nothing half-written is left"
    for other in ("notes.txt", "folder"):
        path = tmp_path / other
        if other == "folder":
            path.mkdir()
            path /= "kept"
        path.write_text("mine")
        with pytest.raises(UsageError, match=f"{other} exists and is no model folder"):
            model.save(tmp_path / other)
        assert path.read_text() == "mine"


def test_half_written_and_foreign_folders_are_refused_in_one_sentence(saved: Path, tmp_path: Path) -> None:
    weights = saved / "model.safetensors"
    whole = weights.read_bytes()
    for size in (0, 5, 1000, len(whole) - 1):
        weights.write_bytes(whole[:size])
        with pytest.raises(
            UsageError,
            match=r"model holds (safetensors that are damaged or half written|a model that cannot be loaded): .*",
        ):
            GPT.load(saved)
    weights.unlink()
    with pytest.raises(UsageError, match=r"model holds no model\.safetensors"):
        GPT.load(saved)
    weights.write_bytes(whole)
    (saved / "training.safetensors").write_bytes(b"half")
    with pytest.raises(StorageFailure, match=r"training\.safetensors is damaged or half written.*Remove that file"):
        GPT.load(saved)
    (saved / "training.safetensors").unlink()
    assert GPT.load(saved).num_parameters() > 0
    pickled = tmp_path / "old.pt"
    pickled.write_bytes(pickle.dumps({}))
    with pytest.raises(UsageError, match=r"old\.pt is a file, expected a folder .* pickled models are never read"):
        GPT.load(pickled)
    with pytest.raises(UsageError, match="absent does not exist"):
        GPT.load(tmp_path / "absent")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", r"config\.json is not JSON; it may be half written"),
        ("tokenizer.json", r"tokenizer\.json is not a tokenizers JSON file.*Name a tokenizer\.json"),
        ("llmasos.json", r"llmasos\.json is damaged: it does not say which model this is.*Remove it, or save"),
    ],
)
def test_half_a_json_file_is_one_sentence(saved: Path, name: str, message: str) -> None:
    whole = (saved / name).read_bytes()
    for size in (1, len(whole) * 2 // 3, len(whole) - 2):
        (saved / name).write_bytes(whole[:size])
        with pytest.raises(LLMasOSError, match=message):
            GPT.load(saved)
    (saved / name).unlink()
    if name != "llmasos.json":  # without its card it is a model as transformers writes one
        missing = rf"{name} could not be read: No such file.*Name a |it holds no {name}.*Put the model's own there"
        with pytest.raises(LLMasOSError, match=missing):
            GPT.load(saved)


def test_weights_of_which_a_part_is_missing_are_not_made_up(saved: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(saved / "model.safetensors")
    del tensors["transformer.h.0.ln_1.weight"]
    save_file(tensors, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"model lacks transformer\.h\.0\.ln_1\.weight, which the plan's model has"):
        GPT.load(saved)


def test_another_class_or_setting_is_named(saved: Path) -> None:
    with pytest.raises(UsageError, match="holds a GPT, expected a Llama"):
        Llama.load(saved)
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "activation_function": "relu"}))
    with pytest.raises(UsageError, match=r'says activation_function "relu", this release .* compute with "gelu_new"'):
        GPT.load(saved)


def test_a_model_without_weights_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="This GPT has no weights yet"):
        GPT().save(tmp_path / "model")
    with pytest.raises(UsageError, match="To save a model, the model needs a tokenizer"):
        GPT(**TINY, vocab_size=300).save(tmp_path / "model")
    assert not list(tmp_path.iterdir())
