"""llmasos-participant policy: what this institution takes part in, and whether its policy.yaml is right."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.errors import NotInitialised
from common.terminal import FormatOption, HomeOption, OutputFormat, Terminal, new_app, resolve_home
from participant.config import HomeLayout
from participant.policy import describe, load_policy

app = new_app("policy", "The policy: which plans are taken part in.")


@app.command()
def show(home: HomeOption = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """Say what the policy means."""
    file = _file(home)
    loaded = load_policy(file)
    Terminal(output).result(
        f"{describe(loaded.policy)}\n\nIt is read from {file}, again at every save.",
        data={"file": str(file), "digest": loaded.digest, "policy": loaded.policy.model_dump(mode="json")},
        quiet=str(file),
    )


@app.command()
def check(
    file: Annotated[
        Path | None, typer.Argument(help="A policy. Default: policy.yaml in the home folder.", show_default=False)
    ] = None,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Say whether a policy is right; exit 2 and the reasons, with file and line, if not."""
    path = file or _file(home)
    loaded = load_policy(path)
    Terminal(output).result(
        f"{path}: valid. It answers {loaded.policy.answer} to plans that break no rule.",
        data={"file": str(path), "valid": True, "digest": loaded.digest, "answer": loaded.policy.answer},
        quiet="valid",
    )


def _file(home: Path | None) -> Path:
    folder = resolve_home(home, "participant")
    layout = HomeLayout(folder)
    if not layout.config.exists():
        raise NotInitialised(
            f"{folder} holds no participant.", "Join first: llmasos-participant join, or name the right --home."
        )
    return layout.policy
