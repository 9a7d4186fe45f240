"""`llmasos.simulate`: what the command of that name does, called from Python, with a result to go on with."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from common.errors import UsageError
from common.plan.load import plan_yaml
from common.plan.model import Plan
from llmasos.language_model.bars import is_watched
from llmasos.simulation.deployment import Commands, InstitutionFolder
from llmasos.simulation.result import SimulationResult


def simulate(
    plan: str | Path | Plan | None = None,
    institutions: Mapping[str, str | Path] | None = None,
    *,
    out: str | Path = "out/simulation",
    text_column: str | None = None,
    baselines: bool = False,
    data: str | Path | None = None,
    partition: str | None = None,
    partition_seed: int = 0,
    engine: Literal["processes", "flower"] = "processes",
    threads: int = 1,
    prompt: str = "The ",
    progress_bar: bool | None = None,
    commands: Commands | None = None,
) -> SimulationResult:
    """Train one model with several institutions' folders of text: a whole consortium on this machine.

    A coordinator and a participant for each institution run as the processes of a real deployment, over mutual TLS, and all
    rounds are verified by every party in the end. `llmasos simulate` is the same as a command.

    Args:
        plan: a plan file, or a Plan; by default the demo's. Paths in a Plan are relative to the working folder.
        institutions: folders of .txt, .md, .py, .jsonl and .csv files by institution's name (lower-case letters, digits,
            hyphens); at least as many as the plan's quorum. Or else
        data, partition: one folder that virtual institutions share: "iid:COUNT", "dirichlet:COUNT:ALPHA", or "key".
        out: a folder for model, report, logs and homes; what an earlier simulation left there is removed.
        text_column: the field of .jsonl and .csv files that holds the text; "text" by default.
        baselines: also train each institution alone, and pooled data, to compare with.
        partition_seed: of iid and dirichlet.
        engine: "processes", or "flower" for hundreds of virtual institutions on Ray.
        threads: of each participant's training process.
        prompt: what the sample text in the report begins with.
        progress_bar: True or False; by default only in a terminal or notebook. Goes to standard error.
        commands: the two programs; tests put others in their place.

    Returns:
        The result: `.rounds` (a DataFrame), `.plot()`, `.model()`, `.perplexity`. Also of a run that failed: `.succeeded`.

    Raises:
        UsageError: no institutions, fewer than the quorum, a folder that is none.
        InvalidConfiguration: the plan breaks its schema; names file, line and field.
        TooLittleData, UnreadableData: about a folder of text.
        OperationError: a process died.
        KeyboardInterrupt: Ctrl-C; all processes are ended by then.
    """
    from llmasos.simulation.app import SimulationOptions
    from llmasos.simulation.app import simulate as run
    from llmasos.simulation.partition import SharedText, parse_partition

    if (institutions is None) == (data is None) or (data is None) != (partition is None):
        raise UsageError(
            "simulate expects institutions, or data together with partition.",
            'As in simulate("plan.yaml", institutions={"a": "./a", "b": "./b", "c": "./c"}).',
        )
    shared = None
    if data is not None and partition is not None:
        shared = SharedText(Path(data), parse_partition(partition), partition_seed, text_column)
    with ExitStack() as resources:
        options = SimulationOptions(
            institutions=tuple(_folder(name, place, text_column) for name, place in (institutions or {}).items()),
            out=Path(out),
            plan=_plan_file(plan, resources),
            baselines=baselines,
            threads=threads,
            prompt=prompt,
            commands=commands or Commands(),
            shared=shared,
            engine=engine,
        )
        resources.enter_context(redirect_stdout(io.StringIO()))  # the table for people; the result shows itself
        if not (is_watched() if progress_bar is None else progress_bar):
            resources.enter_context(redirect_stderr(io.StringIO()))
        run(options)
    return SimulationResult.load(out)


def _folder(name: str, place: str | Path, text_column: str | None) -> InstitutionFolder:
    folder = Path(place).expanduser()
    if not folder.is_dir():
        raise UsageError(f"Institution {name}: expected a folder of text, but {folder} is none.", "Name a folder.")
    return InstitutionFolder(name, folder, text_column)


def _plan_file(plan: str | Path | Plan | None, resources: ExitStack) -> Path | None:
    """The plan as a file; a Plan's relative paths are led back to the working folder."""
    if not isinstance(plan, Plan):
        return None if plan is None else Path(plan)
    tokenizer = plan.tokenizer
    if tokenizer.type == "bpe":
        tokenizer = tokenizer.model_copy(update={"text": str(Path(tokenizer.text).resolve())})
    elif tokenizer.type == "given":
        tokenizer = tokenizer.model_copy(update={"path": str(Path(tokenizer.path).resolve())})
    path = Path(resources.enter_context(TemporaryDirectory(prefix="llmasos-plan-"))) / "plan.yaml"
    path.write_text(plan_yaml(plan.model_copy(update={"tokenizer": tokenizer})), encoding="utf-8")
    return path
