"""A prepared folder is pinned by digest, made whole or not at all, and equal for equal input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.numpy import load as safetensors_load  # noqa: E402

from common.blobs.reference import CHUNK_BYTES  # noqa: E402
from common.errors import (  # noqa: E402
    AlreadyInitialised,
    BadBlobReference,
    InvalidConfiguration,
    MissingExtra,
    NotInitialised,
    StorageFailure,
    TooLittleData,
    UsageError,
)
from common.statements.kinds import PlanStatement  # noqa: E402
from common.terminal import exit_code_of  # noqa: E402
from llmasos import extras  # noqa: E402
from llmasos.cli import app as llmasos_app  # noqa: E402
from llmasos.generation import generate_text, untrained_tensors  # noqa: E402
from llmasos.models.build import build_model, manifest_of, read_tensors  # noqa: E402
from llmasos.preparation import Prepared, file_reference, load_prepared, prepare, random_suffix  # noqa: E402
from llmasos.simulation.final_model import export_final  # noqa: E402
from llmasos.tokenizers import bytes_tokenizer, load, save, vocab_size_of  # noqa: E402
from tests.support.texts import make_public_text  # noqa: E402

pytestmark = pytest.mark.torch

PLAN = """\
apiVersion: llmasos/v1
name: tiny
seed: 3
model: {type: gpt2, n_layer: 1, n_head: 2, n_embd: 16, n_positions: 16}
tokenizer: {type: bpe, vocab_size: 300, text: ./public}
local: {steps: 2, batch_size: 2, sequence_length: 16}
"""


def write_plan(folder: Path, text: str = PLAN) -> Path:
    folder.mkdir(exist_ok=True)
    if not (folder / "public").exists():
        make_public_text(folder / "public")
    (folder / "plan.yaml").write_text(text)
    return folder / "plan.yaml"


def prepared(tmp_path: Path, out: str = "out") -> Prepared:
    return prepare(write_plan(tmp_path / "plans"), tmp_path / out, suffix=lambda: "0a1b2c")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_prepared_run_loads_again_as_what_was_made(tmp_path: Path) -> None:
    made = prepared(tmp_path)
    assert made.draft.run == "tiny-0a1b2c"
    assert sorted(files(made.folder)) == ["draft.json", "model.safetensors", "plan.yaml", "tokenizer.json"]
    assert load_prepared(made.folder) == made
    assert (made.folder / "plan.yaml").read_text() == PLAN


def test_the_draft_pins_model_manifest_and_tokenizer(tmp_path: Path) -> None:
    made = prepared(tmp_path)
    draft = made.draft
    assert draft.initial.model == file_reference(made.model, "blake3")
    assert draft.initial.tokenizer == file_reference(made.tokenizer, "blake3")
    vocab_size = vocab_size_of(load(made.tokenizer))
    assert vocab_size == 300
    expected = build_model(draft.plan.model, vocab_size=vocab_size, seed=3)
    assert draft.manifest == manifest_of(expected)
    loaded = build_model(draft.plan.model, vocab_size=vocab_size, seed=4)
    read_tensors(loaded, made.model, draft.manifest)
    for name, value in expected.named_parameters():
        assert torch.equal(value, loaded.get_parameter(name)), name


def test_a_plan_with_an_adapter_is_prepared_beside_the_same_frozen_weights(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    plan = write_plan(tmp_path / "plans", PLAN + "adapter: {type: lora, r: 2}\n")
    made, again = (prepare(plan, tmp_path / out, suffix=lambda: "0a1b2c") for out in ("a", "b"))
    assert files(made.folder) == files(again.folder)
    alone = prepare(write_plan(tmp_path / "plans"), tmp_path / "alone", suffix=lambda: "0a1b2c")
    found, expected = (safetensors_load(one.model.read_bytes()) for one in (made, alone))
    frozen = {entry.name for entry in made.draft.manifest if entry.group == "frozen"}
    assert frozen == set(expected)
    assert all(found[name].tobytes() == expected[name].tobytes() for name in expected)
    assert all(value.any() == (".lora_A." in name) for name, value in found.items() if name not in frozen)


def test_a_final_model_with_an_adapter_is_exported_with_its_base_and_writes_text(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    made = prepare(write_plan(tmp_path / "plans", PLAN + "adapter: {type: lora}\n"), tmp_path / "out")
    export_final(made, made.model, tmp_path / "model", base=tmp_path / "base")
    both = [safetensors_load((tmp_path / name / "model.safetensors").read_bytes()) for name in ("model", "base")]
    assert all(both[0][name].tobytes() == both[1][name].tobytes() for name in both[1]), "B is 0 before training"
    assert (tmp_path / "model" / "adapter" / "adapter_config.json").is_file()
    assert generate_text(tmp_path / "model", "The ", max_new_tokens=3).startswith("The ")


def test_plan_export_makes_a_model_folder_of_a_runs_tensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, out = prepared(tmp_path), tmp_path / "model"
    fetched = tmp_path / "fetched.safetensors"
    fetched.write_bytes(made.model.read_bytes())
    command = ["plan", "export", str(made.folder), str(fetched), "--out", str(out)]
    assert exit_code_of(llmasos_app, command) == 0
    assert f'Next: llmasos generate {out} "TEXT"' in capsys.readouterr().out
    exported = safetensors_load((out / "model.safetensors").read_bytes())
    initial = safetensors_load(made.model.read_bytes())
    assert all(exported[name].tobytes() == initial[name].tobytes() for name in exported.keys() & initial.keys())
    assert exit_code_of(llmasos_app, command) == 2
    assert "model exists; it is not overwritten. fix: Name another --out." in " ".join(capsys.readouterr().err.split())


def test_plan_export_of_another_runs_tensors_says_which_tensor_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = prepared(tmp_path)
    (tmp_path / "plans" / "plan.yaml").write_text(PLAN.replace("n_embd: 16", "n_embd: 32"))
    other = prepare(tmp_path / "plans" / "plan.yaml", tmp_path / "other", suffix=lambda: "0a1b2d")
    command = ["plan", "export", str(made.folder), str(other.model), "--out", str(tmp_path / "model")]
    assert exit_code_of(llmasos_app, command) != 0
    err = " ".join(capsys.readouterr().err.split())
    assert "transformer.wte.weight" in err
    assert not (tmp_path / "model").exists()


def test_a_plan_with_personal_layers_keeps_them_out_of_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_plan(tmp_path, PLAN + "personal: [ln_1, h.0.mlp.c_fc]\n")
    made = prepare(tmp_path / "plan.yaml", tmp_path / "out", suffix=lambda: "0a1b2c")
    own = [entry.name for entry in made.draft.manifest if entry.group == "personal"]
    assert own == [name for name in own if ".ln_1." in name or ".h.0.mlp.c_fc." in name]
    assert own
    groups = [entry.group for entry in made.draft.manifest]
    assert groups == sorted(groups, key=("trainable", "frozen", "personal").index)
    assert not set(own) & safetensors_load(made.model.read_bytes()).keys()
    export_final(made, made.model, tmp_path / "model", base=tmp_path / "base")
    assert untrained_tensors(tmp_path / "model") == tuple(own)
    assert generate_text(tmp_path / "model", "a", max_new_tokens=2, seed=1).startswith("a")
    assert exit_code_of(llmasos_app, ["generate", str(tmp_path / "model"), "a", "--max-new-tokens", "2"]) == 0
    assert f"{len(own)} tensors of this model have initial values ({own[0]}, …)" in capsys.readouterr().err
    weights = safetensors_load((tmp_path / "model" / "model.safetensors").read_bytes())
    plan = made.draft.plan
    initial = build_model(plan.model, vocab_size=made.draft.manifest[0].shape[0], seed=plan.seed).state_dict()
    assert all(weights[name].tobytes() == initial[name].numpy().tobytes() for name in own)


@pytest.mark.parametrize(
    ("personal", "message"),
    [
        ("[lm_head]", r"personal names lm_head, which no trained tensor's name has; they are transformer\.wte\.weight"),
        ("[ln]", r"personal names ln, which no trained tensor's name has"),
        ("[transformer]", r"personal names all [0-9]+ trained tensors; expected at least one"),
    ],
)
def test_personal_layers_that_do_not_fit_the_model_are_refused(tmp_path: Path, personal: str, message: str) -> None:
    write_plan(tmp_path, PLAN + f"personal: {personal}\n")
    with pytest.raises(InvalidConfiguration, match=message):
        prepare(tmp_path / "plan.yaml", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_draft_is_canonical_json(tmp_path: Path) -> None:
    made = prepared(tmp_path)
    content = (made.folder / "draft.json").read_bytes()
    assert PlanStatement.model_validate_json(content) == made.draft
    assert (
        content == json.dumps(json.loads(content), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    )


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    assert files(prepared(tmp_path, "a").folder) == files(prepared(tmp_path, "b").folder)


def test_runs_of_one_plan_have_ids_of_their_own() -> None:
    assert len({random_suffix() for _ in range(20)}) > 15
    assert all(len(random_suffix()) == 6 for _ in range(5))


def test_a_long_plan_name_still_gives_a_run_id(tmp_path: Path) -> None:
    name = "a" * 49 + "-" + "b" * 13
    plan = write_plan(tmp_path / "plans", PLAN.replace("name: tiny", f"name: {name}"))
    assert prepare(plan, tmp_path / "out", suffix=lambda: "0a1b2c").draft.run == "a" * 49 + "-0a1b2c"


def test_bytes_and_given_tokenizers_need_no_text(tmp_path: Path) -> None:
    bpe = "{type: bpe, vocab_size: 300, text: ./public}"
    plan = write_plan(tmp_path / "plans", PLAN.replace(bpe, "{type: bytes}"))
    by_bytes = prepare(plan, tmp_path / "a", suffix=lambda: "0a1b2c")
    save(bytes_tokenizer(), tmp_path / "plans" / "mine.json")
    plan.write_text(PLAN.replace(bpe, "{type: given, path: mine.json}"))
    given = prepare(plan, tmp_path / "b", suffix=lambda: "0a1b2c")
    assert given.draft.initial == by_bytes.draft.initial
    assert given.draft.manifest[0].shape == (257, 16)


def test_a_consortium_on_sha256_gets_sha256_references(tmp_path: Path) -> None:
    made = prepare(write_plan(tmp_path / "plans"), tmp_path / "out", suffix=lambda: "0a1b2c", algorithm="sha256")
    assert made.draft.initial.model.algorithm == "sha256"
    assert load_prepared(made.folder) == made


def test_a_file_of_several_chunks_has_a_reference(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"x" * (CHUNK_BYTES + 1))
    (tmp_path / "nothing").write_bytes(b"")
    reference = file_reference(tmp_path / "blob", "blake3")
    assert (reference.size, reference.chunks) == (CHUNK_BYTES + 1, 2)
    assert file_reference(tmp_path / "nothing", "sha256").root.startswith("e3b0c44298fc1c14")


def test_a_taken_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(AlreadyInitialised, match=r"out exists already and is not an empty folder\."):
        prepared(tmp_path)
    assert files(tmp_path / "out") == {"mine.txt": b"mine"}
    (tmp_path / "out" / "mine.txt").unlink()
    assert prepared(tmp_path).draft.run == "tiny-0a1b2c"


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ("./public", "./absent", UsageError, "absent is not a folder of text"),
        (
            "./public",
            "./empty",
            TooLittleData,
            "empty, which tokenizer.text names, holds no text to train a tokenizer on",
        ),
        ("n_head: 2", "n_head: 3", InvalidConfiguration, "n_head must divide n_embd"),
        ("seed: 3", "sead: 3", InvalidConfiguration, "sead"),
    ],
)
def test_a_plan_that_cannot_be_prepared_leaves_nothing_behind(
    tmp_path: Path, old: str, new: str, error: type[Exception], message: str
) -> None:
    plan = write_plan(tmp_path / "plans", PLAN.replace(old, new))
    (tmp_path / "plans" / "empty").mkdir()
    with pytest.raises(error, match=message):
        prepare(plan, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["plans"]


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_changed_file_is_refused(tmp_path: Path, name: str) -> None:
    folder = prepared(tmp_path).folder
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(BadBlobReference, match=rf"{name} is blake3:[0-9a-f]+… .* bytes\), the draft says blake3:"):
        load_prepared(folder)
    (folder / name).unlink()
    with pytest.raises(StorageFailure, match=rf"{name} could not be read: No such file"):
        load_prepared(folder)


def test_a_folder_without_a_sound_draft_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotInitialised, match=r"holds no draft\.json, so it is not a prepared run"):
        load_prepared(tmp_path)
    for content in (b"{}", b"{", b'{"run": 1.5}'):
        (tmp_path / "draft.json").write_bytes(content)
        with pytest.raises(InvalidConfiguration, match=r"draft\.json is not a draft of a plan statement"):
            load_prepared(tmp_path)


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "torch" else object())
    with pytest.raises(MissingExtra, match=r"To prepare a plan, torch must be installed") as caught:
        prepared(tmp_path)
    assert "pip install 'llmasos[train]'" in str(caught.value)
