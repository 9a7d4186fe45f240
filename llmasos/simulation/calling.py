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

_AS_IN = 'As in simulate("plan.yaml", institutions={"a": "./a", "b": "./b", "c": "./c"}).'


def simulate(
    plan: str | Path | Plan | None = None,
    institutions: Mapping[str, str | Path | tuple[str | Path, str]] | None = None,
    *,
    out: str | Path = "out/simulation",
    text_column: str | None = None,
    baselines: bool = False,
    data: str | Path | None = None,
    partition: str | None = None,
    key: str | None = None,
    partition_seed: int = 0,
    engine: Literal["processes", "flower"] = "processes",
    seeds_from: str | Path | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
    ray_address: str | None = None,
    threads: int = 1,
    prompt: str = "The ",
    progress_bar: bool | None = None,
    commands: Commands | None = None,
) -> SimulationResult:
    """Train one model with several institutions' folders of text: a whole consortium on this machine.

    A coordinator and a participant for each institution run as the processes of a real deployment, over mutual TLS, and all
    rounds are verified by every party in the end. `llmasos simulate` is the same as a command, with options of the same names.

    Args:
        plan: a plan file, or a Plan; by default the demo's. Paths in a Plan are relative to the working folder.
        institutions: folders of .txt, .md, .py, .jsonl and .csv files by institution's name (lower-case letters, digits,
            hyphens), or pairs of folder and text column; at least as many as the plan's quorum. Or else
        data: one folder that virtual institutions share, together with
        partition: how they share it: "iid:COUNT", "dirichlet:COUNT:ALPHA", or "key", an institution for each key.
        out: a folder for model, report, logs and homes; what an earlier simulation left there is removed.
        text_column: the field of .jsonl and .csv files that holds the text; "text" by default.
        baselines: also train each institution alone, and pooled data, to compare with; the command does, unless told not to.
        key: the field that dirichlet and key go by; by default the first folder in a file's path.
        partition_seed: of iid and dirichlet, at least 0. What chance does in training follows from the plan's `seed`.
        engine: "processes", or "flower" for hundreds of virtual institutions on Ray.
        seeds_from: of engine flower: the `out` of a finished simulation, whose rounds are played again with its seeds.
        cpus: of engine flower: CPUs that an institution takes while it trains, 1 by default.
        gpus: of engine flower: GPUs that one takes, 0 by default; 0.25 trains four on one. With processes, institutions take
            what their machine has: CUDA where torch finds it.
        ray_address: of engine flower: a Ray cluster's address; by default Ray is started on this machine, and ended.
        threads: of each institution's training.
        prompt: what the sample text in the report begins with.
        progress_bar: True or False; by default only in a terminal or notebook. Goes to standard error.
        commands: the two programs; tests put others in their place.

    Returns:
        The result: `.rounds` (a DataFrame), `.plot()`, `.model()`, `.perplexity`. Also of a run that failed: `.succeeded`.

    Raises:
        UsageError: no institutions, fewer than the quorum, a folder that is none, arguments that do not go together.
        InvalidConfiguration: the plan breaks its schema; names file, line and field.
        TooLittleData, UnreadableData: about a folder of text.
        OperationError: a process died.
        KeyboardInterrupt: Ctrl-C; all processes are ended by then.
    """
    from llmasos.simulation import app
    from llmasos.simulation.asked import Asked

    if (institutions is None) == (data is None):
        raise UsageError("simulate expects institutions, or data together with partition.", _AS_IN)
    with ExitStack() as resources:
        options = Asked(
            plan=_plan_file(plan, resources),
            institutions=_folders(institutions or {}, text_column),
            out=Path(out),
            text_column=text_column,
            baselines=baselines,
            data=None if data is None else Path(data),
            partition=partition,
            key=key,
            partition_seed=partition_seed,
            engine=engine,
            seeds_from=None if seeds_from is None else Path(seeds_from),
            cpus=cpus,
            gpus=gpus,
            ray_address=ray_address,
            threads=threads,
            prompt=prompt,
            commands=commands or Commands(),
        ).options()
        resources.enter_context(redirect_stdout(io.StringIO()))  # the table for people; the result shows itself
        if not (is_watched() if progress_bar is None else progress_bar):
            resources.enter_context(redirect_stderr(io.StringIO()))
        app.simulate(options)
    return SimulationResult.load(out)


def _folders(
    institutions: Mapping[str, str | Path | tuple[str | Path, str]], text_column: str | None
) -> tuple[InstitutionFolder, ...]:
    if not isinstance(institutions, Mapping):
        raise UsageError(f"institutions is a {type(institutions).__name__}, expected folders by name.", _AS_IN)
    return tuple(_folder(name, place, text_column) for name, place in institutions.items())


def _folder(name: str, place: str | Path | tuple[str | Path, str], text_column: str | None) -> InstitutionFolder:
    given, column = place if isinstance(place, tuple) else (place, text_column)
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise UsageError(f"Institution {name}: expected a folder of text, but {folder} is none.", "Name a folder.")
    return InstitutionFolder(name, folder, column)


def _plan_file(plan: str | Path | Plan | None, resources: ExitStack) -> Path | None:
    """The plan as a file; a Plan's relative paths are led back to the working folder."""
    if not isinstance(plan, Plan):
        return None if plan is None else Path(plan)
    tokenizer = plan.tokenizer
    if tokenizer.type == "bpe":
        tokenizer = tokenizer.model_copy(update={"text": str(Path(tokenizer.text).resolve())})
    elif tokenizer.type == "given":
        tokenizer = tokenizer.model_copy(update={"path": str(Path(tokenizer.path).resolve())})
    model = plan.model
    if model.weights is not None:
        model = model.model_copy(update={"weights": str(Path(model.weights).resolve())})
    path = Path(resources.enter_context(TemporaryDirectory(prefix="llmasos-plan-"))) / "plan.yaml"
    path.write_text(plan_yaml(plan.model_copy(update={"tokenizer": tokenizer, "model": model})), encoding="utf-8")
    return path
