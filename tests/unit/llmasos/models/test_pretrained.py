"""Initial weights from a folder: what was exported is what training starts from, and what does not fit is one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from common.errors import InvalidConfiguration, UsageError  # noqa: E402
from common.plan.adapters import LoRA, PromptTuning  # noqa: E402
from common.plan.architectures import Model  # noqa: E402
from common.plan.load import load_plan, plan_yaml  # noqa: E402
from common.plan.model import Plan  # noqa: E402
from common.plan.pretrained import section_of  # noqa: E402
from llmasos.models.build import build_model, export_hf, manifest_of, read_tensors  # noqa: E402
from llmasos.models.pretrained import fill_from_folder  # noqa: E402
from llmasos.preparation import prepare  # noqa: E402
from llmasos.tokenizers import save  # noqa: E402
from tests.unit.llmasos.models.test_architectures import (  # noqa: E402
    EVERY,
    LABELS,
    TINY,
    TOKENIZER,
    VOCABULARY,
    built,
    outputs,
)

pytestmark = pytest.mark.torch

PLAN = "apiVersion: llmasos/v1\nname: further\nlocal: {sequence_length: 16}\n"


def exported(folder: Path, name: str, head: str) -> Any:
    """A model, and the folder that it was exported to."""
    source = built(name, head, seed=1)
    save(TOKENIZER, folder.parent / "tokenizer.json")
    export_hf(source, folder.parent / "tokenizer.json", folder)
    return source


def edited(folder: Path, **changes: Any) -> None:
    """config.json with other values; None takes a key out."""
    path = folder / "config.json"
    config = json.loads(path.read_bytes()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def filled(folder: Path, model: Model, head: str, **more: Any) -> Any:
    labels = LABELS if head == "sequence-classification" else None
    module = build_model(model, vocab_size=VOCABULARY, seed=2, head=head, num_labels=labels, pad_token_id=256, **more)
    fill_from_folder(module, model, folder)
    return module


@EVERY
def test_the_folder_of_an_export_gives_the_model_back(tmp_path: Path, name: str, head: str) -> None:
    source = exported(tmp_path / "model", name, head)
    section = section_of({"type": "pretrained", "path": "model"}, tmp_path)
    model = TINY[name].model_validate(section)
    sizes = {"weights": "model", "vocab_size": VOCABULARY}
    if name.startswith("t5"):
        sizes["num_decoder_layers"] = model.layers - 2
    assert model == TINY[name].model_copy(update=sizes)
    module = filled(tmp_path / "model", model, head)
    assert all(torch.equal(outputs(source)[key], value) for key, value in outputs(module).items())


def test_a_head_that_the_folder_has_not_keeps_its_initial_weights(tmp_path: Path) -> None:
    for name, before in (("bert", "masked-lm"), ("llama", "causal-lm"), ("gpt2", "causal-lm")):
        folder = tmp_path / name
        source = exported(folder, name, before)
        for head, new in (
            ("sequence-classification", ("score", "classifier", "bert.pooler")),
            ("question-answering", ("qa_",)),
        ):
            fresh = dict(built(name, head, seed=2).named_parameters())
            module = filled(folder, TINY[name], head)
            taken = [value for key, value in module.named_parameters() if not key.startswith(new)]
            expected = [value for key, value in source.named_parameters() if not key.startswith(("cls", "lm_head"))]
            assert len(taken) == len(expected)
            assert all(torch.equal(one, other) for one, other in zip(taken, expected, strict=True))
            own = [key for key in fresh if key.startswith(new)]
            assert own
            assert all(torch.equal(module.get_parameter(key), fresh[key]) for key in own)


def test_an_adapter_stands_beside_the_folder_s_weights(tmp_path: Path) -> None:
    source = exported(tmp_path / "model", "qwen3", "causal-lm")
    module = filled(tmp_path / "model", TINY["qwen3"], "causal-lm", adapter=LoRA(r=2))
    assert torch.equal(outputs(module)["logits"], outputs(source)["logits"])
    prompted = filled(tmp_path / "model", TINY["qwen3"], "causal-lm", adapter=PromptTuning(num_virtual_tokens=2))
    frozen = {key: value for key, value in prompted.named_parameters() if not value.requires_grad}
    assert all(torch.equal(frozen[key], value) for key, value in source.named_parameters())


def test_a_plan_file_names_a_folder_and_the_run_starts_from_its_weights(tmp_path: Path) -> None:
    source = exported(tmp_path / "model", "qwen2", "causal-lm")
    (tmp_path / "plan.yaml").write_text(PLAN + "model: {type: pretrained, path: model}\n")
    plan = load_plan(tmp_path / "plan.yaml")
    assert (plan.model.type, plan.model.weights, plan.model.vocab_size) == ("qwen2", "model", VOCABULARY)
    made = prepare(tmp_path / "plan.yaml", tmp_path / "out", suffix=lambda: "000000")
    assert made.draft.plan == plan
    again = built("qwen2", "causal-lm", seed=5)
    read_tensors(again, made.model, made.draft.manifest)
    assert torch.equal(outputs(again)["logits"], outputs(source)["logits"])
    assert made.draft.manifest == manifest_of(source)

    (tmp_path / "shown.yaml").write_text(plan_yaml(plan))
    assert load_plan(tmp_path / "shown.yaml") == plan, "what `plan show` prints means the same"
    with pytest.raises(
        ValueError, match="type pretrained stands in plan files alone; expected the architecture itself"
    ):
        Plan.model_validate_json(
            b'{"apiVersion": "llmasos/v1", "name": "x", "model": {"type": "pretrained", "path": "."}}'
        )


Spoil = Callable[[Path], None]
WRONG_FILES: dict[str, tuple[Spoil, str]] = {
    "code of its own": (
        lambda folder: edited(folder, auto_map={"AutoModel": "evil.Model"}),
        r"config\.json has auto_map, which names code of its own; such code is never run here",
    ),
    "an unknown type": (
        lambda folder: edited(folder, model_type="elmo"),
        r"config\.json has model_type 'elmo'; expected one of gpt2, llama",
    ),
    "a size is missing": (lambda folder: edited(folder, hidden_size=None), r"config\.json has no hidden_size"),
    "half a configuration": (
        lambda folder: (folder / "config.json").write_text('{"model_type": "ll'),
        r"config\.json is not JSON; it may be half written",
    ),
    "no folder": (lambda folder: (folder / "config.json").unlink(), r"config\.json could not be read: No such file"),
    "a longer sequence than positions": (
        lambda folder: edited(folder, max_position_embeddings=8),
        r"local\.sequence_length is 16, the model's context 8",
    ),
    "another kind of model": (
        lambda folder: (folder / "config.json").write_text(
            json.dumps(
                {"model_type": "bert", "vocab_size": 257, "hidden_size": 16, "intermediate_size": 24}
                | {"num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 16}
            )
        ),
        r"task causal-lm needs a model with head causal-lm \(gpt2, .*\), got bert",
    ),
}
WRONG_WEIGHTS: dict[str, tuple[Spoil, str]] = {
    "half-written safetensors": (
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100]),
        r"holds safetensors that are damaged or half written",
    ),
    "pickled weights": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin") and None,
        r"holds no model\.safetensors; pytorch_model\.bin is a pickle, which can hold code and is never read",
    ),
    "another activation": (
        lambda folder: edited(folder, hidden_act="relu"),
        r'config\.json says hidden_act "relu", this release and the plan\'s model compute with "silu"',
    ),
    "scaled positions": (
        lambda folder: edited(folder, rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}),
        r"config\.json says rope_parameters .*linear",
    ),
    "a key nobody knows": (
        lambda folder: edited(folder, quantization_config={"bits": 4}),
        r"config\.json says quantization_config \{\"bits\": 4\}",
    ),
    "a layer more than the file has": (
        lambda folder: edited(folder, num_hidden_layers=3),
        r"lacks model\.layers\.2\..* and \d+ more tensors, which the plan's model has",
    ),
    "a layer less than the file has": (
        lambda folder: edited(folder, num_hidden_layers=1),
        r"holds model\.layers\.1\..* and \d+ more tensors, which the plan's model has not",
    ),
    "another width": (
        lambda folder: edited(folder, intermediate_size=32),
        r"holds model\.layers\.0\.mlp\..* in another shape than the plan's model has",
    ),
    "a tokenizer larger than the embedding": (
        lambda folder: edited(folder, vocab_size=100),
        r"tokenizer bytes has 257 tokens for task causal-lm, the model's embedding 100 rows",
    ),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_a_folder_that_cannot_be_a_plan_s_model_is_refused_when_the_plan_is_read(tmp_path: Path, case: str) -> None:
    spoil, message = WRONG_FILES[case]
    exported(tmp_path / "model", "llama", "causal-lm")
    spoil(tmp_path / "model")
    (tmp_path / "plan.yaml").write_text(PLAN + "model: {type: pretrained, path: model}\n")
    with pytest.raises(InvalidConfiguration, match=message):
        load_plan(tmp_path / "plan.yaml")


@pytest.mark.parametrize("case", WRONG_WEIGHTS)
def test_weights_that_do_not_fit_are_refused_when_the_plan_is_prepared(tmp_path: Path, case: str) -> None:
    spoil, message = WRONG_WEIGHTS[case]
    exported(tmp_path / "model", "llama", "causal-lm")
    spoil(tmp_path / "model")
    (tmp_path / "plan.yaml").write_text(PLAN + "model: {type: pretrained, path: model}\n")
    with pytest.raises((UsageError, InvalidConfiguration), match=message):
        prepare(tmp_path / "plan.yaml", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_personal_layers_and_a_folder_s_weights_do_not_go_together(tmp_path: Path) -> None:
    exported(tmp_path / "model", "gpt2", "causal-lm")
    (tmp_path / "plan.yaml").write_text(PLAN + "model: {type: pretrained, path: model}\npersonal: [ln_f]\n")
    with pytest.raises(InvalidConfiguration, match="personal layers need a model with random initial weights"):
        load_plan(tmp_path / "plan.yaml")
