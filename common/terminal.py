"""How every command speaks: results on stdout, progress and errors on stderr, stable exit codes.

    app = new_app("llmasos-coordinator", "Run a consortium's coordinator.")

    @app.command()
    def status(output: FormatOption = OutputFormat.HUMAN, home: HomeOption = None) -> None:
        terminal = Terminal(output)
        terminal.progress("asking the coordinator")
        terminal.result("2 runs", data={"runs": 2}, quiet="2")

    def main() -> NoReturn:
        run_app(app)

Exit codes: 0 done, 1 failed, 2 usage, 3 refused, 130 interrupted. An error is one message with its code and its fix:

    error [port-in-use]: 127.0.0.1:7443 is taken.
      fix: Stop the other process, or choose another port in the configuration.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, NoReturn, TextIO, get_type_hints

import click
import platformdirs
import typer
from rich.console import Console
from rich.table import Table

from common.errors import LLMasOSError, StorageFailure, UsageError

WIDTH = 80
INTERRUPTED = 130
Role = Literal["coordinator", "participant"]


class OutputFormat(StrEnum):
    """human: for reading; json: one JSON value on stdout (or one a line); quiet: only what a script needs, no progress."""

    HUMAN = "human"
    JSON = "json"
    QUIET = "quiet"


FormatOption = Annotated[OutputFormat, typer.Option("--format", help="How results are written.", case_sensitive=False)]
HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home", help="Folder of keys, state and blobs. Default: $LLMASOS_HOME, else a folder of the user's."
    ),
]


class Terminal:
    """A command's output in the format that was asked for.

    Tables and results are at most 80 columns wide without a terminal; colour obeys NO_COLOR.
    """

    def __init__(
        self,
        output: OutputFormat = OutputFormat.HUMAN,
        *,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
    ) -> None:
        self.output = output
        self._stdout = stdout or sys.stdout
        self._stderr = stderr or sys.stderr
        self._console = Console(
            file=self._stdout,
            width=None if self._stdout.isatty() else WIDTH,
            highlight=False,
            emoji=False,
            soft_wrap=False,
        )

    def result(self, human: str | Table, *, data: Any, quiet: str | None = None) -> None:
        """Write one result: `human`, or `data` as a line of JSON, or `quiet` (nothing if None)."""
        match self.output:
            case OutputFormat.JSON:
                self._write(_escaped(json.dumps(data, ensure_ascii=False)))
            case OutputFormat.QUIET:
                if quiet is not None:
                    self._write(printable(quiet))
            case OutputFormat.HUMAN if isinstance(human, Table):
                self._console.print(human)
            case _:
                self._write(printable(str(human)))

    def progress(self, text: str) -> None:
        """Write one line on stderr, unless quiet."""
        if self.output is not OutputFormat.QUIET:
            self._stderr.write(printable(text) + "\n")
            self._stderr.flush()

    def _write(self, text: str) -> None:
        self._stdout.write(text + "\n")
        self._stdout.flush()


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[str] = frozenset()) -> Table:
    """A plain table; the columns in `right` are aligned right."""
    result = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        result.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        result.add_row(*(printable(cell.replace("\n", " ")).replace("[", r"\[") for cell in row))
    return result


def new_app(name: str, text: str) -> typer.Typer:
    """A command or group with the settings that all of ours share."""
    return typer.Typer(
        name=name,
        help=text,
        no_args_is_help=True,
        add_completion=False,
        suggest_commands=False,  # click suggests already
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDTH},
    )


def resolve_home(flag: Path | None, role: Role, environment: Mapping[str, str] | None = None) -> Path:
    """The home folder: --home, else LLMASOS_HOME, else the user's data folder; absolute. It need not exist."""
    named = (os.environ if environment is None else environment).get("LLMASOS_HOME")
    if flag is None and not named:
        return platformdirs.user_data_path("llmasos", appauthor=False) / role
    return (flag or Path(named or "")).expanduser().absolute()


# --- the end of every command ---------------------------------------------------------------------------------------------


def run_app(app: typer.Typer, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and exit with its code; errors of our family become one message."""
    sys.excepthook = report_unexpected
    sys.exit(exit_code_of(app, arguments))


def exit_code_of(app: typer.Typer, arguments: Sequence[str] | None = None) -> int:
    """Run a command line; what a command returns or exits with, or the code of the error it reported.

    What is not of our family passes through: it is a bug, and `report_unexpected` words it.
    """
    command = _mended(typer.main.get_command(app))
    try:
        result = command.main(arguments, prog_name=app.info.name, standalone_mode=False)
        sys.stdout.flush()
    except LLMasOSError as error:
        return _report(error)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show(sys.stderr)
        return UsageError.exit_code
    except click.ClickException as error:
        return _report(_usage(error))
    except (click.Abort, KeyboardInterrupt):
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader went away (`| head`): nothing may be written any more, the interpreter's last flush included.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if _debug():
            raise
        return _report(
            StorageFailure(f"{error.filename or 'input or output'}: {(error.strerror or str(error)).lower()}.")
        )
    return result if isinstance(result, int) else 0


def report_unexpected(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
    """sys.excepthook: a bug is one line, with the traceback only where LLMASOS_DEBUG=1 asks for it."""
    if _debug():
        traceback.print_exception(kind, value, trace)
    sys.stderr.write(
        f"error [internal]: {kind.__name__}: {printable(str(value))}\n"
        "  fix: Report this; LLMASOS_DEBUG=1 shows where it happened.\n"
    )


def printable(text: str) -> str:
    """Text without control characters: what a peer sent must not steer this terminal. Line breaks stay."""
    return "".join(letter if letter == "\n" or letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _escaped(text: str) -> str:
    """JSON with everything that steers a terminal as an escape: json.dumps leaves what lies beyond ASCII as it is."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in text)


class _PlainFormatter(click.HelpFormatter):
    """Help without the escapes that typer makes for rich, and with arguments listed once: click 8.5 lists them too."""

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        super().write_dl([(term, text.replace(r"\[", "[")) for term, text in rows], col_max, col_spacing)

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        written = len(self.buffer)
        with super().section(name):
            yield
        if name == "Positional arguments":
            del self.buffer[written:]


class _PlainContext(click.Context):
    formatter_class = _PlainFormatter


def _mended(command: click.Command) -> click.Command:
    """`command` with the help of its arguments: typer 0.20 stores it where click 8.5 then writes its own, empty."""
    command.context_class = _PlainContext
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            _mended(inner)
    function = inspect.unwrap(command.callback) if command.callback else None
    hints = get_type_hints(function, include_extras=True) if function else {}
    for parameter in command.params:
        for note in getattr(hints.get(parameter.name or ""), "__metadata__", ()):
            if isinstance(note, typer.models.ArgumentInfo) and isinstance(parameter, typer.core.TyperArgument):
                parameter.help = note.help
    return command


def _report(error: LLMasOSError) -> int:
    if _debug():
        traceback.print_exception(error)
    sys.stderr.write(f"error [{error.code}]: {printable(error.message)}\n  fix: {printable(error.fix)}\n")
    return error.exit_code


def _usage(error: click.ClickException) -> UsageError:
    context = getattr(error, "ctx", None)
    return UsageError(error.format_message(), f"See `{context.command_path} --help`." if context else None)


def _debug() -> bool:
    return os.environ.get("LLMASOS_DEBUG", "") not in {"", "0"}
