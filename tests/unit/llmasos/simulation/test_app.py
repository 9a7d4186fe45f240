"""The whole order of things, with stand-ins for the daemons and a real preparation and export."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from common.errors import InvalidName, TooLittleData, UsageError
from common.plan.load import load_plan
from common.resources import config_path
from llmasos.simulation import app, deployment
from llmasos.simulation.app import DemoOptions, SimulationOptions, check_options, interruptible, write_plan
from llmasos.simulation.deployment import InstitutionFolder
from llmasos.simulation.layout import Layout
from tests.support.fake_daemons import FAKES, NAMES, a_report, a_view

PLAN = """
apiVersion: llmasos/v1
name: tiny
model: {type: gpt2, n_layer: 1, n_head: 2, n_embd: 16, n_positions: 16}
local: {steps: 2, batch_size: 2, sequence_length: 16}
rounds: 2
metrics_visibility: institution
"""


def folders(tmp_path: Path) -> tuple[InstitutionFolder, ...]:
    made = []
    for name in NAMES:
        folder = tmp_path / "texts" / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(4):
            (folder / f"{number}.txt").write_text(f"{name} {number} says that text is text. " * 40)
        made.append(InstitutionFolder(name, folder))
    return tuple(made)


def options(tmp_path: Path, **changes: Any) -> SimulationOptions:
    plan = tmp_path / "plan.yaml"
    plan.write_text(PLAN)
    fields: dict[str, Any] = {
        "institutions": folders(tmp_path),
        "out": tmp_path / "out",
        "plan": plan,
        "baselines": False,
        "commands": FAKES,
    }
    return SimulationOptions(**(fields | changes))


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `run watch` will print; a test may change it before it simulates."""
    script: dict[str, Any] = {"views": [a_view(ended=False), a_view()], "exit": 0}
    start = deployment.Deployment.start_coordinator

    def start_with_script(self: deployment.Deployment) -> None:
        start(self)
        (self.layout.coordinator / "script.json").write_text(json.dumps(script))
        if "verified" in script:
            (self.layout.coordinator / "verified.json").write_text(json.dumps(script["verified"]))

    monkeypatch.setattr(deployment.Deployment, "start_coordinator", start_with_script)
    return script


@pytest.mark.torch
def test_a_simulation_leaves_model_reports_and_explanations(
    tmp_path: Path, scripted: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.simulate(options(tmp_path)) == 0
    out = tmp_path / "out"
    report = json.loads((out / "report.json").read_text())
    assert report["succeeded"]
    assert report["final"]["perplexity"]["pooled"] == pytest.approx(60.34, abs=0.01)
    assert "<svg" in (out / "report.html").read_text()
    assert (out / "model" / "config.json").is_file()
    assert "Restart one participant by hand" in (out / "README.md").read_text()
    assert (out / "participants" / "north" / "participant.yaml").read_text().endswith("threads: 1\nranks: 1\n")
    told = capsys.readouterr()
    assert "held-out text of" in told.out
    assert "Verified from 4 sides, each by its own command" in told.out
    assert report["verification"]["result"] == "verified"
    assert report["verification"]["sides"]["north"]["rounds"] == "2 of 2 recomputed here, equal in every bit"
    assert "round 1 committed" in told.err


@pytest.mark.torch
def test_a_simulation_whose_verification_fails_exits_with_1_and_says_what_was_found(
    tmp_path: Path, scripted: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    text = "Round 1 of tiny was committed with another model than its contributions give."
    scripted["verified"] = a_report("failed", text)
    assert app.simulate(options(tmp_path)) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "Failed from 4 sides" in told
    assert f"failed coordinator, leaf 7: {text}" in told
    assert text in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.torch
def test_a_failed_run_exits_with_1_and_still_reports(
    tmp_path: Path, scripted: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    scripted["exit"] = 1
    scripted["views"] = [a_view() | {"end_reason": "no-quorum"}]
    assert app.simulate(options(tmp_path)) == 1
    assert json.loads((tmp_path / "out" / "report.json").read_text())["end_reason"] == "no-quorum"
    assert "The run failed: no-quorum." in (tmp_path / "out" / "report.html").read_text()
    assert "The run failed: no-quorum." in capsys.readouterr().out


@pytest.mark.torch
def test_where_the_plan_hides_institutions_numbers_the_final_model_is_measured_here(
    tmp_path: Path, scripted: dict[str, Any]
) -> None:
    for view in scripted["views"]:
        for entry in view["rounds"]:
            entry["evaluations"] = []
    assert app.simulate(options(tmp_path)) == 0
    found = json.loads((tmp_path / "out" / "report.json").read_text())["final"]["perplexity"]
    assert set(found["institutions"]) == set(NAMES)
    assert found["pooled"] == pytest.approx(257, rel=0.2)  # an untrained model over 257 tokens


@pytest.mark.torch
def test_a_quorum_above_the_number_of_institutions_is_a_usage_error(tmp_path: Path) -> None:
    few = options(tmp_path, institutions=folders(tmp_path)[:2])
    with pytest.raises(UsageError, match="The plan's quorum is 3, but only 2 institutions are named"):
        app.simulate(few)


def test_the_demo_refuses_a_python_without_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmasos.simulation.stdlib_corpus.stdlib_folder", lambda: tmp_path / "nowhere")
    with pytest.raises(TooLittleData, match="'networking' has 0 bytes"):
        app.demo(DemoOptions(out=tmp_path / "out", commands=FAKES))


def test_names_are_checked_before_anything_is_made(tmp_path: Path) -> None:
    one = folders(tmp_path)[0]
    with pytest.raises(UsageError, match="got none"):
        check_options(options(tmp_path, institutions=()))
    with pytest.raises(UsageError, match="got north twice"):
        check_options(options(tmp_path, institutions=(one, one)))
    with pytest.raises(InvalidName, match=r"'\.\./x' is not a name"):
        check_options(options(tmp_path, institutions=(InstitutionFolder("../x", one.folder),)))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("out", ["texts", "texts/north/out", "."])
def test_output_and_text_never_lie_in_each_other(tmp_path: Path, out: str) -> None:
    with pytest.raises(UsageError, match="lie in each other"):
        check_options(options(tmp_path, out=tmp_path / out))


def test_the_written_plan_is_the_shipped_one_with_public_text(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    write_plan(config_path("plans/demo.yaml"), layout, public=True)
    written = load_plan(layout.plan)
    shipped = load_plan(config_path("plans/demo.yaml"))
    assert written.tokenizer.type == "bpe"
    assert written.tokenizer.text == str(layout.public)
    assert written.model_copy(update={"tokenizer": shipped.tokenizer}) == shipped


def test_relative_paths_of_a_plan_still_lead_where_they_did(tmp_path: Path) -> None:
    plan = tmp_path / "plans" / "given.yaml"
    plan.parent.mkdir()
    text = PLAN.replace("type: gpt2", "type: gpt2, weights: ../model")
    plan.write_text(text + "tokenizer: {type: given, path: ../tokenizer.json}\n")
    layout = Layout(tmp_path / "out")
    layout.root.mkdir()
    write_plan(plan, layout, public=False)
    written = load_plan(layout.plan)
    tokenizer = written.tokenizer
    assert tokenizer.type == "given"
    assert Path(written.model.weights or "").resolve() == tmp_path / "model"
    assert Path(tokenizer.path).resolve() == tmp_path / "tokenizer.json"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_interrupts_like_ctrl_c_and_handlers_are_put_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), interruptible():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
