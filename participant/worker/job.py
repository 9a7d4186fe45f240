"""One plan's data and model, in a job folder.

JOB/
    plan.json  tokenizer.json      from the agent
    tokens/                        the institution's text, encoded (llmasos.training.corpus)
    snapshots/                     training state (llmasos.training.snapshot)
    personal/                      layers that never leave (llmasos.models.personal)
    control/                       SCAFFOLD's control variates of this institution (llmasos.training.scaffold)
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from pydantic import ValidationError
from tokenizers import Tokenizer

from common.errors import (
    InvalidConfiguration,
    MalformedMessage,
    StorageFailure,
    TooLittleData,
    UnreadableData,
    UsageError,
    WrongTensors,
)
from common.plan.model import Plan
from common.statements.kinds import PlanStatement, Tensor
from llmasos.models.build import manifest_of, model_of
from llmasos.models.personal import INITIAL, PersonalFolder
from llmasos.models.sharding import Sharding, check_model
from llmasos.tokenizers import end_of_document_id, load
from llmasos.tokenizers.special import check_special
from llmasos.training.corpus import Corpus, Source, open_corpus, prepare_corpus
from llmasos.training.ranks import Ranks
from llmasos.training.scaffold import ControlFolder
from llmasos.training.snapshot import SnapshotFolder
from participant.bench.worker_protocol import PERSONAL, Prepare

SHARDED_OPTIMIZERS = ("adamw", "adam", "sgd")
"""Those that change each number of a weight by itself, so that rows do."""
SHARDED_ADAPTERS: Mapping[Sharding, tuple[str, ...]] = {
    "full": ("none", "lora", "ia3"),
    "tensor": ("none",),
    "pipeline": ("none",),
}
TOKENIZER, TOKENS = "tokenizer.json", "tokens"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """What all rounds of a run share. The model's weights are those of the last round."""

    folder: Path
    statement: PlanStatement
    corpus: Corpus
    model: torch.nn.Module

    @property
    def tokenizer(self) -> Path:
        return self.folder / TOKENIZER

    def snapshots(self, rank: int = 0) -> SnapshotFolder:
        """As that rank writes them."""
        return SnapshotFolder(self.folder / "snapshots", rank)

    @property
    def personal(self) -> PersonalFolder:
        return PersonalFolder(self.folder / PERSONAL, self.statement.manifest)

    @property
    def controls(self) -> ControlFolder:
        return ControlFolder(self.folder / "control", self.statement.manifest)

    def path(self, name: str) -> Path:
        """A file that the agent names, inside the job folder.

        Raises:
            MalformedMessage: the name leads out of it.
        """
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts:
            raise MalformedMessage(f"{name!r} is not a path inside the job folder.")
        return self.folder / relative

    def close(self) -> None:
        self.corpus.close()


def prepare_job(request: Prepare) -> Job:
    """Read the plan, tokenise the data unless that was done before, and build the model.

    Where the request names `tokens`, rank 0 has done what is to be done once, and this rank reads the same.

    Raises:
        TooLittleData, UnreadableData, UsageError: about the data; see llmasos.datasets.
        InvalidConfiguration: the plan's tokenizer is none, lacks tokens, or has more than the model's embedding.
        WrongTensors: this release builds other tensors than the plan's manifest lists.
        StorageFailure: plan.json or a file cannot be read.
    """
    folder = Path(request.job)
    try:
        statement = PlanStatement.model_validate_json((folder / "plan.json").read_bytes())
    except (OSError, ValidationError) as err:
        raise StorageFailure(f"{folder / 'plan.json'} is not a readable plan: {type(err).__name__}.") from err
    plan, tokenizer_path = statement.plan, folder / TOKENIZER
    model = model_of(plan, _tokenizer(tokenizer_path, plan))
    _check_manifest(manifest_of(model, plan.is_personal), statement.manifest)
    if request.tokens is not None:
        return Job(folder, statement, open_corpus(folder / TOKENS / request.tokens, tokenizer_path, plan), model)
    PersonalFolder(folder / PERSONAL, statement.manifest).write(model, INITIAL)
    if not request.data:
        raise TooLittleData("This institution names no data set.", "Add one: llmasos-participant data add NAME DIR.")
    sources = [Source(Path(one.folder), one.text_column, one.unit_field, one.tasks) for one in request.data]
    corpus = prepare_corpus(sources, tokenizer_path, folder / TOKENS, plan)
    _remove_others(corpus.folder)
    return Job(folder, statement, corpus, model)


def _tokenizer(path: Path, plan: Plan) -> Tokenizer:
    """The run's tokenizer, which is the operator's to mend, not this institution's."""
    try:
        tokenizer = load(path)
        check_special(tokenizer, plan.task.special_tokens, where="the run's tokenizer", task=plan.task.type)
        end_of_document_id(tokenizer)
    except (UnreadableData, UsageError) as err:
        raise InvalidConfiguration(
            f"The plan's tokenizer does not do: {err.message}",
            "Refuse the plan, and ask the operator to prepare it again.",
        ) from err
    return tokenizer


def check_sharding(job: Job, ranks: Ranks) -> None:
    """
    Raises:
        InvalidConfiguration: the plan wants what ranks that share out the model do not do that way.
    """
    plan = job.statement.plan
    lacking = {
        f"local.optimizer {plan.local.optimizer.type}": plan.local.optimizer.type not in SHARDED_OPTIMIZERS,
        "local.correction scaffold": plan.corrects,
        "personal layers": bool(plan.personal),
        "local.compile": plan.local.compile,
        f"adapter {plan.adapter.type}": plan.adapter.type not in SHARDED_ADAPTERS[ranks.sharding],
        f"task {plan.task.type}": ranks.sharding == "pipeline" and plan.task.type != "causal-lm",
    }
    for what, is_wanted in lacking.items():
        if is_wanted:
            raise InvalidConfiguration(
                f"worker.sharding {ranks.sharding} does not go with the plan's {what}.",
                "Set worker.sharding: none, or refuse the plan.",
            )
    check_model(job.model, ranks.sharding, ranks.size)


def _remove_others(tokens: Path) -> None:
    """Tokens of text that was changed or taken out since are copies of private text that nobody needs any more."""
    for path in tokens.parent.iterdir():
        if path != tokens:
            shutil.rmtree(path, ignore_errors=True)
            log.info("superseded tokens removed from %s", path)


def _check_manifest(built: tuple[Tensor, ...], listed: tuple[Tensor, ...]) -> None:
    for ours, theirs in zip(built, listed, strict=False):
        if ours != theirs:
            raise WrongTensors(f"The plan lists tensor {_text(theirs)}, this release builds {_text(ours)}.", _FIX)
    if len(built) != len(listed):
        raise WrongTensors(f"The plan lists {len(listed)} tensors, this release builds {len(built)}.", _FIX)


def _text(tensor: Tensor) -> str:
    return f"{tensor.name} {tensor.shape} {tensor.group}"


_FIX = "Install the release that prepared the plan, or ask the operator to prepare it with this one."
