"""How commands speak: formats, streams, exit codes, homes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import typer

from common.errors import BadSignature, LLMasOSError, PortInUse
from common.terminal import (
    FormatOption,
    OutputFormat,
    Terminal,
    exit_code_of,
    new_app,
    printable,
    report_unexpected,
    resolve_home,
    table,
)

app = new_app("thing", "Does things.")


@app.command()
def show(
    what: Annotated[str, typer.Argument(help="What to show.")] = "all", output: FormatOption = OutputFormat.HUMAN
) -> None:
    """Show a thing."""
    terminal = Terminal(output)
    terminal.progress(f"looking for {what}")
    terminal.result(f"{what}: 2", data={what: 2}, quiet="2")


@app.command()
def fail(how: str) -> None:
    """Fail in some way."""
    match how:
        case "port":
            raise PortInUse("127.0.0.1:7443 is taken.")
        case "refused":
            raise BadSignature("statement by \x1b[2Jnorth: the signature does not verify.")
        case "interrupt":
            raise KeyboardInterrupt
        case "disk":
            raise PermissionError(13, "Permission denied", "/x/y")
        case "bug":
            raise KeyError("a bug")
        case "exit":
            raise typer.Exit(4)


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = exit_code_of(app, arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_result_goes_to_stdout_and_progress_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "runs", capsys=capsys) == (0, "runs: 2\n", "looking for runs\n")
    assert run("show", "runs", "--format", "json", capsys=capsys) == (0, '{"runs": 2}\n', "looking for runs\n")
    assert run("show", "runs", "--format", "quiet", capsys=capsys) == (0, "2\n", "")


def test_an_error_is_one_message_with_code_and_fix(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fail", "port", capsys=capsys) == (
        1,
        "",
        "error [port-in-use]: 127.0.0.1:7443 is taken.\n"
        "  fix: Stop the other process, or choose another port in the configuration.\n",
    )


def test_a_refusal_exits_with_3_and_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = run("fail", "refused", capsys=capsys)
    assert code == 3
    assert error.startswith("error [bad-signature]: statement by \N{REPLACEMENT CHARACTER}[2Jnorth")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shwo"], "error [usage]: No such command 'shwo'"),
        (["show", "--frmat", "json"], "error [usage]: No such option"),
        (["show", "--format", "xml"], "error [usage]: Invalid value for '--format': 'xml' is not one of"),
        (["fail"], "error [usage]: Missing argument 'HOW'"),
    ],
)
def test_a_wrong_command_line_exits_with_2_and_names_the_help(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, error = run(*arguments, capsys=capsys)
    assert (code, out) == (2, "")
    assert error.replace('"', "'").startswith(message)
    assert "  fix: See `thing" in error


def test_no_command_shows_the_help_as_usage(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, error = run(capsys=capsys)
    assert (code, out) == (2, "")
    assert "Does things." in error


def test_help_names_arguments_once_and_fits_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run("show", "--help", capsys=capsys)
    assert code == 0
    assert out.count("What to show.") == 1
    assert "[default: all]" in out
    assert max(map(len, out.splitlines())) <= 80


def test_ctrl_c_exits_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, error = run("fail", "interrupt", capsys=capsys)
    assert (code, out) == (130, "")
    assert error in {"", "interrupted\n"}


def test_a_command_chooses_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fail", "exit", capsys=capsys)[0] == 4


def test_the_operating_systems_errors_name_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fail", "disk", capsys=capsys)[2].startswith("error [storage-failure]: /x/y: permission denied.\n")


def test_a_bug_is_one_line_and_a_traceback_only_on_demand(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLMASOS_DEBUG", raising=False)
    with pytest.raises(KeyError, match="a bug") as caught:
        exit_code_of(app, ["fail", "bug"])
    report_unexpected(KeyError, caught.value, caught.tb)
    assert capsys.readouterr().err == (
        "error [internal]: KeyError: 'a bug'\n  fix: Report this; LLMASOS_DEBUG=1 shows where it happened.\n"
    )
    monkeypatch.setenv("LLMASOS_DEBUG", "1")
    report_unexpected(KeyError, caught.value, caught.tb)
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_debug_adds_the_traceback_of_our_own_errors(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMASOS_DEBUG", "1")
    code, _, error = run("fail", "port", capsys=capsys)
    assert code == 1
    assert "Traceback (most recent call last)" in error
    assert "error [port-in-use]" in error


PROCESS = (
    "import typer\nfrom common.terminal import new_app, run_app\napp = new_app('t', 't')\n"
    "@app.callback()\ndef main() -> None: ...\n"
    "@app.command()\ndef go() -> None:\n    {body}\nrun_app(app)\n"
)


@pytest.mark.parametrize(
    ("body", "code", "error"),
    [
        ("raise KeyError('x')", 1, "error [internal]: KeyError: 'x'\n"),
        ("raise typer.Exit(3)", 3, ""),
        ("return None", 0, ""),
    ],
)
def test_a_process_ends_with_its_code(body: str, code: int, error: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROCESS.format(body=body), "go"],
        capture_output=True,
        text=True,
        check=False,
        env={"LLMASOS_DEBUG": ""},
    )
    assert done.returncode == code
    assert done.stderr.startswith(error)
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_bug() -> None:
    body = "[print('x' * 1000) for _ in range(10000)]"
    with subprocess.Popen(
        [sys.executable, "-c", PROCESS.format(body=body), "go"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_a_table_fits_80_columns_and_shows_brackets_as_they_are() -> None:
    stream = io.StringIO()
    rows = [["north", "12"], ["[bold]south[/bold]", "3"], ["x" * 200, "4"]]
    Terminal(stdout=stream).result(table(["institution", "tokens"], rows, right=frozenset({"tokens"})), data=rows)
    text = stream.getvalue()
    assert "[bold]south[/bold]" in text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_quiet_says_nothing_where_there_is_nothing_a_script_needs() -> None:
    out, err = io.StringIO(), io.StringIO()
    terminal = Terminal(OutputFormat.QUIET, stdout=out, stderr=err)
    terminal.progress("working")
    terminal.result("a long story", data={})
    assert (out.getvalue(), err.getvalue()) == ("", "")


STEERING = "north\x1b]0;title\x07\x9b2J\u202egnp\u2028\r"


@pytest.mark.parametrize("output", list(OutputFormat))
def test_no_result_steers_the_terminal(output: OutputFormat, capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal(output)
    terminal.result(STEERING, data={"name": STEERING}, quiet=STEERING)
    terminal.progress(STEERING)
    shown = capsys.readouterr()
    assert all(letter == "\n" or letter.isprintable() for letter in shown.out + shown.err)
    if output is OutputFormat.JSON:
        assert json.loads(shown.out) == {"name": STEERING}


def test_a_cell_forges_no_row(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().result(table(["A", "B"], [["north\nsouth", STEERING]]), data=None)
    shown = capsys.readouterr().out
    assert len(shown.rstrip("\n").split("\n")) == 2
    assert all(letter == "\n" or letter.isprintable() for letter in shown)


def test_control_characters_become_visible() -> None:
    assert printable("a\x1b[31m\nb\r") == "a�[31m\nb�"


def test_a_home_is_the_flags_then_the_environments_then_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {"LLMASOS_HOME": str(tmp_path / "named")}
    assert resolve_home(tmp_path / "flag", "coordinator", environment) == tmp_path / "flag"
    assert resolve_home(None, "coordinator", environment) == tmp_path / "named"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert resolve_home(None, "participant", {}) == tmp_path / "data" / "llmasos" / "participant"
    assert resolve_home(None, "coordinator", {"LLMASOS_HOME": ""}).name == "coordinator"


def test_a_home_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_home(Path("here"), "coordinator") == tmp_path / "here"
    assert resolve_home(Path("~/there"), "coordinator") == tmp_path / "there"


def test_every_error_class_words_itself_with_code_and_fix() -> None:
    assert str(LLMasOSError("It broke.")) == "It broke. [internal] Report this with the log of the command that failed."
