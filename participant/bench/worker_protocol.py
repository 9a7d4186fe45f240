"""The words between an institution's agent and its worker: versioned JSON lines over a private Unix socket.

The agent holds keys and network, the worker data and torch; neither needs the other's. Small messages go through the socket;
bulk (models, deltas, snapshots) through the job folder, each file finished under a temporary name and renamed.

    worker → hello                              once, after it connected
    agent  → prepare    worker → prepared       data read, split and tokenised for one plan
    agent  → inspect    worker → inspected      data read and counted; nothing is kept
    agent  → train      worker → progress* result     evaluates the base model, trains, writes the delta
    agent  → evaluate   worker → progress* result     evaluates only
    agent  → snapshot   worker → snapshot-taken       at the next step boundary
    agent  → stop                                ends the worker; so does the closing of the inherited pipe
    worker → error                               instead of prepared or result; the worker stays usable unless it says not

Where several ranks train together, all this is rank 0's; to the others it says prepare, train and evaluate as the agent does to
it, and they answer.

Messages of the worker carry numbers, names of files relative to the job folder, and codes, never a piece of the data.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from common.blobs.reference import BlobRef
from common.plan.model import Plan
from common.statements.kinds import Code

WORKER_PROTOCOL: Final = 1
Sharding = Literal["none", "full", "tensor", "pipeline"]
"""How ranks share out the model; llmasos.models.sharding."""
PERSONAL = "personal"
"""The folder in a job folder with the layers that never leave; the one that stays when the run has ended."""
LOSS_SCALE = 2**16
"""Losses travel as integers: nats × 2^16, so that sums are exact and can be masked later."""


class Message(BaseModel):
    """Base of every message."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSource(Message):
    """A folder of text. `text_column` and `unit_field` name fields of .jsonl and .csv files: the text, and whose it is."""

    name: str
    folder: str
    text_column: str | None = None
    unit_field: str | None = None
    tasks: tuple[str, ...] = ()
    """Those tasks of a mixture that may learn from it; none: each that finds its fields."""


class Prepare(Message):
    type: Literal["prepare"] = "prepare"
    job: str
    """Absolute path of the job folder. It holds plan.json (the plan statement's predicate) and tokenizer.json."""
    data: tuple[DataSource, ...]
    tokens: str | None = None
    """Between ranks alone: the folder under tokens/ with what rank 0 has made of the data."""


class Inspect(Message):
    """Read the data as `prepare` would, keep nothing, say what there is."""

    type: Literal["inspect"] = "inspect"
    data: DataSource
    held_out_fraction: str = "0.1"
    """Decimal text."""
    plan: Plan | None = None
    """Read as this plan's task does, and hold out its share; without one, as text."""


class Train(Message):
    type: Literal["train"] = "train"
    round: int
    trained_rounds: int
    """Training rounds that this institution's schedule has behind it in this run: the learning rate goes on from there."""
    seed: int
    base: str
    """Model file, relative to the job folder."""
    delta: str
    """Where to put the delta, relative to the job folder."""
    spare: str | None = None
    """A file in the job folder, if it is there, that may become the delta's: writing over it is cheaper than a new one."""
    personal: int = 0
    """The round whose personal layers this one starts from; 0: the plan's initial values."""
    rolled_back: tuple[tuple[int, int], ...] = ()
    """First and last of rounds that the run took back: the local optimizer's moments of none of them are used."""
    control: str | None = None
    """With SCAFFOLD, where to put what this institution's control variate changed by; None: nothing is corrected."""
    control_round: int = 0
    """The round whose control variate of this institution the round starts from; 0: zeros."""
    server_state: str | None = None
    """The file of the consortium's control variate, relative to the job folder; None: zeros."""
    resume: bool = False
    """Go on from the newest snapshot of this round, if there is one."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """So many instead of the plan's steps a round, at most those: the last stretch of training alone (`gain`)."""
    micro_batch: Annotated[int, Field(ge=1)] | None = None
    """At most so many sequences at once: where the kernel ended workers that took the plan's micro-batch."""
    base_ref: BlobRef | None = None
    """What the model file must hold: else it was damaged on disk."""


class Evaluate(Message):
    type: Literal["evaluate"] = "evaluate"
    round: int
    base: str
    personal: int = 0
    """The round whose personal layers are measured with the base model; 0: the plan's initial values."""
    micro_batch: Annotated[int, Field(ge=1)] | None = None
    """As in `train`."""
    base_ref: BlobRef | None = None
    """As in `train`."""


class Snapshot(Message):
    type: Literal["snapshot"] = "snapshot"


class Stop(Message):
    type: Literal["stop"] = "stop"


class Hello(Message):
    type: Literal["hello"] = "hello"
    protocol: Literal[1] = WORKER_PROTOCOL
    pid: int
    device: str
    threads: int
    capability: str
    """CPU capability that torch uses (AVX2, AVX512, DEFAULT): same bits are promised only for the same one."""
    versions: dict[str, str]
    isolated: bool
    """Runs as another user than the agent, without network."""
    ranks: int = 1
    """Processes that train together; `threads` are each one's."""


class Prepared(Message):
    type: Literal["prepared"] = "prepared"
    documents: int
    train_tokens: int
    held_out_documents: int
    held_out_tokens: int
    train_rows: int = 0
    """What the documents became, where a task makes rows of records."""
    held_out_rows: int = 0
    shortened: int = 0
    left_out: int = 0


class Inspected(Message):
    type: Literal["inspected"] = "inspected"
    files: int
    documents: int
    characters: int
    units: int
    """Documents, where no unit field is named."""
    held_out_units: int
    records_without_unit: int = 0
    problems: tuple[str, ...] = ()
    """The first ones, with file and line and without text; they stay in the house."""
    problems_found: int = 0


class Progress(Message):
    type: Literal["progress"] = "progress"
    round: int
    activity: Literal["preparing", "evaluating", "training"]
    steps_done: int = 0
    steps_total: int = 0
    tokens_done: int = 0
    loss_fixed: int | None = None
    """Mean training loss of the newest step."""


class EvaluationSums(Message):
    """Held-out loss of the round's base model: sums, so that institutions' results add up."""

    loss_sum_fixed: Annotated[int, Field(ge=0, lt=2**53)]
    num_tokens: Annotated[int, Field(ge=0, lt=2**40)]


class Result(Message):
    type: Literal["result"] = "result"
    round: int
    task: Literal["train", "evaluate"]
    evaluation: EvaluationSums
    delta: str | None = None
    num_tokens: int = 0
    num_bytes: int | None = None
    """Of the text that the tokens say, where the plan weighs by it."""
    train_loss_fixed: int | None = None
    """Mean training loss over the round."""
    seconds: float = 0.0
    deviations: tuple[Code, ...] = ()


class SnapshotTaken(Message):
    type: Literal["snapshot-taken"] = "snapshot-taken"
    round: int
    step: int


class WorkerError(Message):
    """`code` is one of docs/errors.md; `message` names files and numbers only."""

    type: Literal["error"] = "error"
    code: Code
    message: str
    fix: str = ""
    ending: bool = False
    """The worker ends after this: it can do no more."""


ToWorker = Annotated[Prepare | Inspect | Train | Evaluate | Snapshot | Stop, Field(discriminator="type")]
FromWorker = Annotated[
    Hello | Prepared | Inspected | Progress | Result | SnapshotTaken | WorkerError, Field(discriminator="type")
]

TO_WORKER: TypeAdapter[ToWorker] = TypeAdapter(ToWorker)
FROM_WORKER: TypeAdapter[FromWorker] = TypeAdapter(FromWorker)


def encode(message: Message) -> bytes:
    """One JSON line."""
    return message.model_dump_json().encode() + b"\n"
