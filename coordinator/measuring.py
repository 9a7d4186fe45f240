"""Held-out losses of models, from a process beside this one: the coordinator imports no torch.

with Measurer(statement, tokenizer, Path("public-text"), scratch, threads=2) as measurer:
    measurer.mean_loss(Path("model.safetensors"))        # 5.31, nats a token
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from common.errors import WorkerFailed
from common.statements.kinds import PlanStatement

COMMAND = (sys.executable, "-P", "-m", "llmasos.evaluation.serving_losses")
ENDING_SECONDS = 30


class Measurer:
    """One process that measures one model after the other on the same text; a context manager.

    Args:
        text: the folder; all of it is measured on, up to the plan's evaluation.max_tokens.
        scratch: for its configuration, its tokens and what it says; the caller deletes it.
    """

    def __init__(self, statement: PlanStatement, tokenizer: Path, text: Path, scratch: Path, threads: int) -> None:
        config = scratch / "config.json"
        settings = {
            "statement": statement.model_dump(mode="json"),
            "tokenizer": str(tokenizer),
            "text": str(text.absolute()),
            "tokens": str(scratch / "held_out.tokens"),
            "threads": threads,
        }
        config.write_text(json.dumps(settings), encoding="utf-8")
        self._said = (scratch / "errors.txt").open("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            [*COMMAND, str(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )

    def mean_loss(self, model: Path) -> float:
        """Nats a token.

        Raises:
            WorkerFailed: the process ended, or says something else; holds the end of what it said.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise ValueError("the process has no pipes")
        try:
            stdin.write(f"{model}\n")
            stdin.flush()
            answer = json.loads(stdout.readline())
            return float(answer["mean_nats"])
        except (OSError, ValueError, KeyError, TypeError) as err:
            raise self._failed() from err

    def _failed(self) -> WorkerFailed:
        code = self._ended()
        self._said.seek(0)
        lines = self._said.read().strip().splitlines() or ["it said nothing"]
        return WorkerFailed(
            f"The process that measures models ended with exit code {code}: {lines[-1][:500]}",
            "Offer --evaluate a folder of text; for torch: pip install 'llmasos[train]'.",
        )

    def _ended(self) -> int:
        """Its exit code, once it has ended by itself or was made to."""
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            return self._process.wait(ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def __enter__(self) -> Measurer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._said.close()
