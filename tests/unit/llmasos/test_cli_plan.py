"""`llmasos plan …` and the command line around it, in process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.plan.load import load_plan
from common.resources import config_path
from common.terminal import exit_code_of
from llmasos.cli import app
from llmasos.commands import generate as generate_command
from llmasos.commands import simulate as simulate_command

TINY = str(config_path("plans/tiny.yaml"))


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = exit_code_of(app, arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_show_prints_a_plan_that_loads_back_equal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run("plan", "show", TINY, capsys=capsys)
    (tmp_path / "shown.yaml").write_text(out)
    assert code == 0
    assert load_plan(tmp_path / "shown.yaml") == load_plan(Path(TINY))


def test_show_as_json_is_what_a_statement_would_hold(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run("plan", "show", TINY, "--format", "json", capsys=capsys)
    assert json.loads(out) == load_plan(Path(TINY)).model_dump(mode="json")


def test_check_says_what_is_trained_or_which_layers_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    lora = str(config_path("plans/lora.yaml"))
    code, out, _ = run("plan", "check", lora, capsys=capsys)
    assert code == 0
    assert "valid. gpt2 with lora, r 8 on all-linear, 3 rounds of 10 steps" in " ".join(out.split())
    code, _, err = run("plan", "check", lora, "--set", "adapter.target_modules=[q_proj]", capsys=capsys)
    assert code == 2
    assert "names q_proj, which a block of gpt2 has not; its linear layers are attn.c_attn" in " ".join(err.split())


def test_settings_change_fields(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(
        "plan", "show", TINY, "--set", "local.steps=3", "--set", "cohort.size=4", "--format", "json", capsys=capsys
    )
    assert (json.loads(out)["local"]["steps"], json.loads(out)["cohort"]["size"]) == (3, 4)


def test_a_setting_without_a_value_is_usage(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = run("plan", "show", TINY, "--set", "local.steps", capsys=capsys)
    assert code == 2
    assert error.startswith("error [usage]: --set expected FIELD=VALUE, got 'local.steps'.")


def test_check_says_valid(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plan", "check", TINY, capsys=capsys) == (
        0,
        f"{TINY}: valid. gpt2, 3 rounds of 10 steps, quorum 3.\n",
        "",
    )


def test_check_of_a_wrong_plan_exits_with_2_and_says_file_line_and_field(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("apiVersion: llmasos/v1\nname: x\nlocal:\n  stepz: 3\n")
    code, out, error = run("plan", "check", str(path), capsys=capsys)
    assert (code, out) == (2, "")
    assert error.splitlines()[0] == (
        f"error [invalid-configuration]: {path}:4: local.stepz: unknown field; did you mean 'steps'?"
    )


def test_explain_tells_fields_numbers_and_a_round(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run("plan", "explain", TINY, capsys=capsys)
    assert code == 0
    assert "  steps: 10\n      Optimizer steps a round.\n" in out
    assert "  quorum: 3  (default)\n" in out
    assert "  tokens a round: 10,240\n" in out
    assert "  1. The coordinator opens a round" in out


def test_explain_as_json_has_all_three_parts(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run("plan", "explain", TINY, "--format", "json", capsys=capsys)
    assert set(json.loads(out)) == {"rows", "derived", "prose"}


def test_schema_is_a_json_schema(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run("plan", "schema", capsys=capsys)
    assert json.loads(out)["$id"].endswith("/plan/v1")


@pytest.mark.torch
def test_prepare_makes_what_run_start_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out_folder = tmp_path / "prepared"
    code, out, _ = run("plan", "prepare", TINY, "--out", str(out_folder), "--format", "json", capsys=capsys)
    assert code == 0
    assert json.loads(out)["run"].startswith("tiny-")
    assert (out_folder / "draft.json").is_file()
    assert (out_folder / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("north", "--institution expected NAME=DIR or NAME=DIR:COLUMN, got 'north'."),
        ("north=/no/such/folder", "--institution north: expected a folder of text, but /no/such/folder is none."),
    ],
)
def test_simulate_names_a_wrong_institution(argument: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = run("simulate", "--institution", argument, capsys=capsys)
    assert code == 2
    assert error.startswith(f"error [usage]: {message}")


def test_generate_without_a_model_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, error = run("generate", str(tmp_path), "import ", capsys=capsys)
    assert (code, out) == (2, "")
    assert error.startswith("error [usage]: ")
    assert str(tmp_path) in error


def test_a_simulations_report_is_its_result_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def simulation() -> int:
        print("a table")
        (tmp_path / "report.json").write_text('{"seconds": 3}')
        return 1

    assert simulate_command.report(simulation, tmp_path, simulate_command.OutputFormat.JSON) == 1
    assert capsys.readouterr().out == '{"seconds": 3}\n'
    assert simulate_command.report(simulation, tmp_path, simulate_command.OutputFormat.QUIET) == 1
    assert capsys.readouterr().out == f"{tmp_path}\n"
    assert simulate_command.report(simulation, tmp_path, simulate_command.OutputFormat.HUMAN) == 1
    assert capsys.readouterr().out == "a table\n"


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (
        ["plan", "show"],
        ["plan", "explain"],
        ["plan", "check"],
        ["plan", "prepare"],
        ["simulate"],
        ["demo"],
        ["generate"],
    ):
        code, out, _ = run(*command, "--help", capsys=capsys)
        assert code == 0
        assert "--format" in out
        assert max(map(len, out.splitlines())) <= 80
    assert generate_command.__doc__
