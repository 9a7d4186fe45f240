"""`llmasos generate`: continue a text with a model in Hugging Face layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.terminal import FormatOption, OutputFormat, Terminal


def generate(
    model: Annotated[Path, typer.Argument(help="Folder of a model, as in out/demo/model.", show_default=False)],
    prompt: Annotated[str, typer.Argument(help="Text to continue.", show_default=False)],
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, max=4096)] = 80,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="0 takes the likeliest token.")] = 0.8,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Continue a text. The same seed gives the same continuation."""
    from llmasos.generation import generate_text, untrained_tensors  # lazily: needs torch

    terminal = Terminal(output)
    if untrained := untrained_tensors(model):
        terminal.progress(
            f"{len(untrained)} tensors of this model have initial values ({untrained[0]}, …): institutions trained theirs for "
            "themselves, and the text is what an untrained part makes of it."
        )
    text = generate_text(model, prompt, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    terminal.result(text, data={"prompt": prompt, "text": text}, quiet=text)
