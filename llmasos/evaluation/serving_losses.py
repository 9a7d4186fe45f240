"""Losses of one run's models on one folder of text, asked for one after the other.

    python -m llmasos.evaluation.serving_losses CONFIG.json

Reads paths of model files from standard input, a line each, and answers each with a JSON line:

    {"mean_nats": 5.3125, "loss_sum_fixed": 348160, "num_tokens": 1}

All documents of the folder are measured on, in the plan's windows, up to its evaluation.max_tokens.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import InvalidConfiguration, LLMasOSError, UsageError
from common.statements.kinds import PlanStatement
from llmasos.datasets.text import read_documents
from llmasos.datasets.tokens import TokenFile, held_out_windows, write_tokens
from llmasos.evaluation.perplexity import LOSS_SCALE, evaluate
from llmasos.extras import require_train
from llmasos.models.build import model_of
from llmasos.models.tensors import read_tensors
from llmasos.tasks.causal_lm import NextToken, window_row
from llmasos.tokenizers import load
from llmasos.training.device import set_up


class Config(BaseModel):
    """What to measure on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    statement: PlanStatement
    tokenizer: Path
    text: Annotated[Path, Field(description="A folder of documents.")]
    tokens: Annotated[Path, Field(description="Where its tokens are written.")]
    threads: Annotated[int, Field(ge=1)] = 1


def serve(config: Config, models: Iterable[Path]) -> Iterable[str]:
    """A JSON line for each model.

    Raises:
        TooLittleData, UnreadableData, UsageError: about the folder of text.
        WrongTensors, StorageFailure: a model file is not the plan's, or cannot be read.
        WorkerFailed: a loss is not finite.
    """
    machine, plan = set_up(config.threads), config.statement.plan
    tokenizer = load(config.tokenizer)
    model = model_of(plan, tokenizer)
    write_tokens(read_documents(config.text), tokenizer, config.tokens)
    batch_size = plan.local.micro_batch_size or plan.local.batch_size
    with TokenFile.open(config.tokens) as tokens:
        for path in models:
            read_tensors(model, path, config.statement.manifest)
            windows = held_out_windows(tokens, plan.local.sequence_length, plan.evaluation.max_tokens)
            sums = evaluate(model.to(machine.device), NextToken(), map(window_row, windows), batch_size=batch_size)
            mean_nats = sums.loss_sum_fixed / LOSS_SCALE / sums.num_tokens
            yield json.dumps({"mean_nats": mean_nats, **sums._asdict()})


def _load(path: Path) -> Config:
    try:
        return Config.model_validate_json(path.read_bytes())
    except OSError as err:
        raise UsageError(f"{path} could not be read: {err.strerror or err}.") from err
    except ValidationError as err:
        raise InvalidConfiguration(f"{path} does not say what to measure on: {err}") from err


def main(arguments: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(prog="python -m llmasos.evaluation.serving_losses", description="Measure models.")
    parser.add_argument("config", type=Path, help="JSON file; see Config")
    path: Path = parser.parse_args(arguments).config
    try:
        require_train("torch", "transformers", "tokenizers", task="measure models")
        for line in serve(_load(path), (Path(line.rstrip("\n")) for line in sys.stdin)):
            print(line, flush=True)
    except LLMasOSError as err:
        print(err, file=sys.stderr)
        return err.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
