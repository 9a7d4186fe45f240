"""A simulation called from Python: the same order of things as the command, quiet in a pipe, with a result to go on with."""

from __future__ import annotations

import json
import signal
import sys
import threading
import xml.etree.ElementTree as ET
from contextlib import ExitStack
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

import llmasos
from common.errors import LLMasOSError, RunFailed, UsageError
from common.plan.load import load_plan
from llmasos.commands import simulate as commands
from llmasos.flower.job import Resources
from llmasos.simulation import app, calling
from llmasos.simulation.app import SimulationOptions
from llmasos.simulation.cores import usable_cores
from llmasos.simulation.partition import Partition, SharedText
from llmasos.simulation.report_json import write_report_json
from llmasos.simulation.result import COLUMNS, SimulationResult
from tests.support.fake_daemons import NAMES
from tests.support.simulated import some_results
from tests.unit.llmasos.simulation.test_app import PLAN, folders


@pytest.fixture
def result(tmp_path: Path) -> SimulationResult:
    write_report_json(some_results(), model=tmp_path / "model", file=tmp_path / "report.json")
    return SimulationResult.load(tmp_path)


def test_rounds_are_rows_with_the_perplexity_of_the_model_before_them(result: SimulationResult) -> None:
    assert [row["round"] for row in result.rows] == [1, 2, 3]
    assert list(result.rows[0]) == [*COLUMNS, *(f"perplexity_{name}" for name in NAMES)]
    assert result.rows[-1]["perplexity"] == result.perplexity == pytest.approx(60.34, abs=0.01)
    assert result.rows[0]["contributors"] == 3
    assert result.institutions == NAMES
    assert result.alone["south"] == 80.0


def test_rounds_are_a_dataframe(result: SimulationResult) -> None:
    pytest.importorskip("pandas")
    frame = result.rounds
    assert list(frame.columns) == list(result.rows[0])
    assert frame["perplexity"].tolist() == [row["perplexity"] for row in result.rows]


def test_a_plot_has_the_curve_and_what_it_is_compared_with(result: SimulationResult, tmp_path: Path) -> None:
    root = ET.parse(result.plot().save(tmp_path / "rounds.svg")).getroot()
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"federated, pooled", "pooled data", "best alone", *NAMES} <= texts


def test_a_notebook_shows_result_curve_and_rounds(result: SimulationResult) -> None:
    shown = result._repr_html_()
    assert "2 rounds by 3 institutions: perplexity 60.34" in shown
    assert shown.count("<tr>") == 1 + 3
    assert "<svg" in shown


def test_a_failed_run_says_so_and_has_no_model(tmp_path: Path) -> None:
    write_report_json(some_results(succeeded=False), model=tmp_path / "model", file=tmp_path / "report.json")
    result = SimulationResult.load(tmp_path)
    assert "failed after 2 rounds" in repr(result)
    with pytest.raises(RunFailed, match="The run ended without a model"):
        result.model()


@pytest.mark.parametrize("content", [None, b"{half", b"[]", b"{}"])
def test_a_folder_without_a_report_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"report\.json is no report of a simulation"):
        SimulationResult.load(tmp_path)


def test_a_simulation_from_python_is_the_commands_quiet_where_nobody_watches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    asked: list[SimulationOptions] = []

    def run(options: SimulationOptions) -> int:
        asked.append(options)
        print("the table for people")
        print("round 1 committed", file=sys.stderr)
        options.out.mkdir(exist_ok=True)
        write_report_json(some_results(), model=options.out / "model", file=options.out / "report.json")
        return 0

    monkeypatch.setattr(app, "simulate", run)
    arguments: dict[str, Any] = {
        "institutions": {one.name: str(one.folder) for one in folders(tmp_path)},
        "out": str(tmp_path / "out"),
    }
    result = llmasos.simulate("plan.yaml", **arguments)
    assert capfd.readouterr() == ("", "")
    wanted = SimulationOptions(folders(tmp_path), tmp_path / "out", plan=Path("plan.yaml"), baselines=False)
    assert asked == [replace(wanted, resources=Resources(cores=usable_cores()))]
    assert result.succeeded
    assert result.report == json.loads((tmp_path / "out" / "report.json").read_text())
    llmasos.simulate("plan.yaml", **arguments, progress_bar=True)
    assert capfd.readouterr() == ("", "round 1 committed\n")


def test_one_folder_is_shared_out_among_virtual_institutions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(options: SimulationOptions) -> int:
        assert options.shared == SharedText(tmp_path, Partition("dirichlet", 4, 0.5), 7, "body", "ward")
        assert (options.engine, options.institutions) == ("flower", ())
        found = options.resources
        assert (found.cpus, found.gpus, found.ray_address, found.threads) == (0.5, 0.25, "10.0.0.1:6379", 2)
        assert (options.threads, options.seeds_from) == (2, tmp_path / "earlier")
        write_report_json(some_results(), model=options.out / "model", file=options.out / "report.json")
        return 0

    monkeypatch.setattr(app, "simulate", run)
    shared: dict[str, Any] = {"data": tmp_path, "partition": "dirichlet:4:0.5", "partition_seed": 7, "key": "ward"}
    engine: dict[str, Any] = {"engine": "flower", "cpus": 0.5, "gpus": 0.25, "ray_address": "10.0.0.1:6379"}
    more: dict[str, Any] = {"threads": 2, "seeds_from": str(tmp_path / "earlier"), "text_column": "body"}
    assert llmasos.simulate(**shared, **engine, **more, out=tmp_path).succeeded


def test_a_plan_in_memory_is_the_plan_with_its_paths_led_to_the_working_folder(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN + "tokenizer: {type: bpe, text: public}\n")
    plan = load_plan(tmp_path / "plan.yaml")
    with ExitStack() as resources:
        path = calling._plan_file(plan, resources)
        assert path is not None
        written = load_plan(path)
    assert written.tokenizer.type == "bpe"
    assert written.tokenizer.text == str(Path("public").resolve())
    assert written.model_copy(update={"tokenizer": plan.tokenizer}) == plan
    assert not path.exists()


def test_the_command_has_the_functions_arguments_and_their_defaults() -> None:
    command, function = signature(commands.simulate).parameters, signature(llmasos.simulate).parameters
    assert set(command) - set(function) == {"output"}  # how the result is printed
    assert set(function) - set(command) == {"progress_bar", "commands"}
    shared = [name for name in command if name in function]
    differ = [name for name in shared if command[name].default != function[name].default]
    assert differ == ["out", "baselines"]
    assert Path(function["out"].default) == command["out"].default
    assert (command["baselines"].default, function["baselines"].default) == (None, False)  # as both say


def test_a_column_may_be_one_institutions_own(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    found = calling._folders({"a": (str(tmp_path / "a"), "note"), "b": tmp_path / "b"}, "body")
    assert [(one.name, one.text_column) for one in found] == [("a", "note"), ("b", "body")]


def test_a_simulation_may_be_called_in_any_thread() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def run() -> None:
        with app.interruptible():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "simulate expects institutions, or data together with partition"),
        ({"data": "."}, "data and partition go together"),
        ({"institutions": ["./a", "./b"]}, "institutions is a list, expected folders by name"),
        ({"institutions": {}, "engine": "ray"}, "engine is 'ray', expected processes or flower"),
        ({"institutions": {}, "gpus": 1, "cpus": 2}, "cpus, gpus: of engine flower, got engine processes"),
        ({"institutions": {}, "engine": "flower", "cpus": -1}, "simulate: cpus: expected .*0.*got -1"),
        ({"institutions": {}, "threads": 0}, "simulate: threads: expected at least 1, got 0"),
        ({"institutions": {}, "key": "ward"}, "key is 'ward', and goes with data and partition"),
        ({"data": ".", "partition": "iid:3", "partition_seed": -1}, "partition_seed is -1, expected at least 0"),
        ({"institutions": {"a": "."}, "data": ".", "partition": "iid:3"}, "simulate expects institutions, or data"),
        ({"institutions": {"a": "./absent"}}, "Institution a: expected a folder of text, but absent is none"),
        ({"data": ".", "partition": "even:3"}, "expected .* got 'even:3'"),
    ],
)
def test_what_is_wrong_with_the_arguments_is_one_sentence(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(LLMasOSError, match=message):
        llmasos.simulate(**arguments)
