"""run contributions at the coordinator: only where the plan shows the operator, and what leaving one out comes to."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import WorkerFailed
from common.terminal import WIDTH, exit_code_of
from coordinator.cli import app
from coordinator.measuring import Measurer
from tests.support import coordinators
from tests.support.coordinators import Coordinator
from tests.support.participants import RUN, FakeParticipant
from tests.support.plans import a_plan

Output = pytest.CaptureFixture[str]


def played(coordinator: Coordinator, **plan: Any) -> Coordinator:
    coordinator.start_run(**{"contributions_visibility": "operator"} | plan)
    coordinator.play()
    return coordinator


def run(coordinator: Coordinator, *words: str) -> int:
    return exit_code_of(app, ["run", "contributions", *words, "--home", str(coordinator.layout.home)])


def test_every_row_of_every_committed_round(coordinator: Coordinator, capsys: Output) -> None:
    assert run(played(coordinator), "tiny") == 0
    out = capsys.readouterr().out
    assert "ROUND  INSTITUTION  TOKENS   SHARE" in out
    assert out.count("north") == 2
    assert "Cosine: between the delta" in out
    assert "EFFECT" not in out
    assert max(map(len, out.splitlines())) <= WIDTH


def test_json_holds_every_figure_of_one_round(coordinator: Coordinator, capsys: Output) -> None:
    assert run(played(coordinator), RUN, "--round", "2", "--format", "json") == 0
    data = json.loads(capsys.readouterr().out)
    (figures,) = data["rounds"]
    assert (data["run"], figures["round"], figures["rule"]) == (RUN, 2, "weighted-mean")
    assert figures["step_l2"] > 0
    assert [row["institution"] for row in figures["rows"]] == ["east", "north", "south"]
    assert sum(row["share"] for row in figures["rows"]) == pytest.approx(1)
    assert all(row["l2"] > 0 and -1 <= row["cosine"] <= 1 for row in figures["rows"])


@pytest.mark.parametrize(
    ("shown", "whom"), [("none", "shows nobody"), ("own", "shows each institution alone")], ids=str
)
def test_a_plan_that_does_not_show_the_operator_is_refused_in_one_sentence(
    coordinator: Coordinator, capsys: Output, shown: str, whom: str
) -> None:
    assert run(played(coordinator, contributions_visibility=shown), RUN) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert f"error [not-authorised]: The plan of {RUN} {whom} what deltas did to the model" in err


def test_a_round_that_was_not_committed_names_those_that_were(coordinator: Coordinator, capsys: Output) -> None:
    assert run(played(coordinator), RUN, "--round", "9") == 2
    assert "has no committed training round of number 9; its newest: 1, 2." in capsys.readouterr().err
    assert run(coordinator, "other") == 2
    assert f"0 runs of this ledger begin with 'other'; runs here: {RUN}." in capsys.readouterr().err


def test_no_home_is_no_ledger(tmp_path: Path, capsys: Output) -> None:
    assert exit_code_of(app, ["run", "contributions", RUN, "--home", str(tmp_path / "none")]) == 2
    assert "holds no coordinator's ledger" in capsys.readouterr().err


def test_deltas_that_retention_gave_up_are_named(coordinator: Coordinator, capsys: Output) -> None:
    assert run(played(coordinator, retention={"delta_rounds": 1}), RUN) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Round 1, north: no norm and cosine:" in out
    assert "not held here" in out


def test_the_plot_is_an_svg_with_a_bar_for_each_institution(
    coordinator: Coordinator, tmp_path: Path, capsys: Output
) -> None:
    plot = tmp_path / "who.svg"
    assert run(played(coordinator), RUN, "--plot", str(plot)) == 0
    assert f"Plot: {plot}" in capsys.readouterr().out
    root = ElementTree.parse(plot).getroot()
    texts = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert f"{RUN}, rounds 1 to 2" in texts
    assert {"east", "north", "south", "tokens", "norm, mean", "cosine, mean"} <= set(texts)
    bars = [each for each in root.iter("{http://www.w3.org/2000/svg}rect") if each.get("class") != "page"]
    assert len(bars) == 9
    assert all(0 <= float(bar.get("x", "-1")) <= 1130 for bar in bars)
    assert run(coordinator, RUN, "--plot", str(tmp_path / "no" / "who.svg")) == 2
    assert "is no place for a file" in capsys.readouterr().err


# --- leaving one out -----------------------------------------------------------------------------------------------------


def test_the_folder_of_text_must_be_there(coordinator: Coordinator, tmp_path: Path, capsys: Output) -> None:
    assert run(played(coordinator), RUN, "--evaluate", str(tmp_path / "none")) == 2
    assert "does not exist" in capsys.readouterr().err


def test_a_process_that_cannot_measure_is_quoted(coordinator: Coordinator, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with (
        Measurer(coordinator.draft(), tmp_path / "tokenizer.json", tmp_path, tmp_path, 1) as measurer,
        pytest.raises(WorkerFailed, match=r"The process that measures models ended with exit code [1-9].*: \S+"),
    ):
        measurer.mean_loss(tmp_path / "model")


@pytest.mark.torch
def test_the_effect_is_measured_on_the_given_text(
    coordinator: Coordinator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    """A real model, and three deltas: two are a step of gradient descent on the text, south's is ten steps uphill."""
    torch = pytest.importorskip("torch")
    from llmasos.evaluation.perplexity import LOSS_SCALE, evaluate
    from llmasos.models.build import build_model, manifest_of, read_tensors, write_delta, write_tensors
    from llmasos.tasks.causal_lm import NextToken, window_row
    from llmasos.tokenizers import bytes_tokenizer, save

    text = tmp_path / "text"
    text.mkdir()
    (text / "a.txt").write_text("to be, or not to be: that is the question. " * 8)
    windows = [np.frombuffer((text / "a.txt").read_bytes(), np.uint8)[at : at + 17].astype(np.int64) for at in (0, 16)]
    plan = a_plan()
    model = build_model(plan.model, vocab_size=257, seed=0)
    manifest = manifest_of(model)
    write_tensors(model, tmp_path / "base", manifest)
    tokens = torch.from_numpy(np.stack(windows))
    model.eval()
    torch.nn.functional.cross_entropy(model(tokens[:, :-1]).logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    deltas = {}
    for name, rate in (("east", -0.01), ("north", -0.01), ("south", 0.1)):
        read_tensors(model, tmp_path / "base", manifest)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(parameter.grad, alpha=rate)
        write_delta(tmp_path / name, tmp_path / "base", model, manifest)
        deltas[name] = (tmp_path / name).read_bytes()
    save(bytes_tokenizer(), tmp_path / "tokenizer.json")
    monkeypatch.setattr(coordinators, "MANIFEST", manifest)
    monkeypatch.setattr(coordinators, "TOKENIZER", (tmp_path / "tokenizer.json").read_bytes())
    monkeypatch.setattr(FakeParticipant, "delta", lambda one: deltas[one.name])
    coordinator.start_run(base=(tmp_path / "base").read_bytes(), rounds=1, contributions_visibility="operator")
    coordinator.play()
    capsys.readouterr()

    assert run(coordinator, RUN, "--evaluate", str(text), "--plot", str(tmp_path / "who.svg"), "--format", "json") == 0
    (figures,) = json.loads(capsys.readouterr().out)["rounds"]
    assert "effect" in (tmp_path / "who.svg").read_text()
    read_tensors(model, coordinator.blobs.path(coordinator.run.model), manifest)
    content = np.frombuffer((text / "a.txt").read_bytes() + b"\0", np.uint8).astype(np.int64)
    content[-1] = 256  # the document's end
    windows = [content[at : at + 17] for at in range(0, len(content) - 1, 16)]
    sums = evaluate(model, NextToken(), map(window_row, windows), batch_size=2)
    assert figures["loss"] == pytest.approx(sums.loss_sum_fixed / LOSS_SCALE / sums.num_tokens, abs=1e-5)
    effects = {row["institution"]: row["effect"] for row in figures["rows"]}
    assert effects["south"] < 0 < min(effects["east"], effects["north"]), "south did harm, the others helped"
    cosines = {row["institution"]: row["cosine"] for row in figures["rows"]}
    assert cosines["south"] == pytest.approx(1, abs=1e-3)
    assert cosines["east"] == cosines["north"] == pytest.approx(-1, abs=1e-3)

    assert run(coordinator, RUN, "--evaluate", str(text)) == 0
    out = capsys.readouterr().out
    assert "EFFECT" in out
    assert "Above zero, it helped." in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= WIDTH
