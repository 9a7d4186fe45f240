"""The participant's configuration: HOME/participant.yaml, one section a component."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from common.config import load_yaml
from common.errors import NotInitialised
from common.names import Name
from common.windows import Window
from participant.bench.worker_protocol import Sharding

ENVIRONMENT_PREFIX = "LLMASOS_PARTICIPANT_"


class Section(BaseModel):
    """Base: frozen, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CoordinatorAddresses(Section):
    """Where the coordinator listens, as the invitation said."""

    work: str
    enrolment: str


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError(f"expected an absolute path, got {path}")
    return path


class WorkerSettings(Section):
    """How the training process runs."""

    threads: Annotated[
        int, Field(ge=1, le=1024, description="CPU threads of a rank; the same number gives the same bits.")
    ] = 1
    ranks: Annotated[
        Annotated[int, Field(ge=1, le=64)] | Literal["auto"],
        Field(
            description="Processes that train together, with those threads each; auto: as many as the worker sees CUDA "
            "devices, else 1. The same number gives the same bits."
        ),
    ] = "auto"
    sharding: Annotated[
        Sharding,
        Field(
            description="How ranks share out the model, so that one larger than a GPU trains. full: rows of every tensor, "
            "and batches; tensor: the work on every row, by heads and hidden units; pipeline: blocks; none: each has all of "
            "the model."
        ),
    ] = "none"
    snapshot_seconds: Annotated[int, Field(ge=1, le=86400)] = 300
    command: Annotated[
        tuple[str, ...] | None,
        Field(description="Starts the worker; the default is this Python, -m participant.worker."),
    ] = None
    user: Annotated[
        str | None, Field(description="Another account that the worker runs under; the agent must be started as root.")
    ] = None
    isolate_network: Annotated[
        bool,
        Field(description="Start the worker in a network namespace of its own, without any interface but loopback."),
    ] = False
    tensorboard: Annotated[
        Annotated[Path, AfterValidator(_absolute)] | None,
        Field(
            description="Folder for TensorBoard's event files of this institution's training; none: none are written."
        ),
    ] = None


def _window(text: str) -> str:
    return str(Window.parse(text))


_Mbit = Annotated[float, Field(ge=0.5, le=1_000_000, allow_inf_nan=False)]


class SpeedLimit(Section):
    """How fast all transfers together may be at those hours, in millions of bits a second."""

    hours: Annotated[
        Annotated[str, AfterValidator(_window)] | None,
        Field(description="When it counts, such as mon-fri 08:00-18:00 Europe/Berlin; none: at any time."),
    ] = None
    up: Annotated[_Mbit | None, Field(description="Towards the coordinator; none: as fast as it goes.")] = None
    down: Annotated[_Mbit | None, Field(description="From the coordinator; none: as fast as it goes.")] = None

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.hours is None and self.up is None and self.down is None:
            raise ValueError("expected up, down or both, in Mbit/s; without hours and limits an entry says nothing")
        return self


class TransferSettings(Section):
    """How models and deltas travel."""

    streams: Annotated[
        Annotated[int, Field(ge=1, le=16)] | Literal["auto"],
        Field(description="Connections that carry one blob; auto: 1 to 8, by round-trip time."),
    ] = "auto"
    bulk: Annotated[
        Annotated[int, Field(ge=1, le=65535)] | Literal["auto", "off"],
        Field(
            description="Port of the coordinator's bulk listener, on the host of `coordinator.work`; auto: the coordinator "
            "says it; off: large blobs go over the work listener."
        ),
    ] = "auto"
    max_mbit_per_s: Annotated[
        tuple[SpeedLimit, ...],
        Field(max_length=32, description="The first entry whose hours it is counts; none of them: as fast as it goes."),
    ] = ()


class Identity(Section):
    """Keys and certificates."""

    passphrase_file: Annotated[
        Path | None, Field(description="Holds the passphrase of the private keys; none: they are not encrypted.")
    ] = None


class Metrics(Section):
    """Prometheus metrics over HTTP: names, counts and seconds, nothing of the data."""

    listen: Annotated[str | None, Field(description="Address, such as 127.0.0.1:9465; none: no metrics.")] = None


class Logging(Section):
    """Where events go. `text` for people, `json` for machines."""

    format: Literal["text", "json"] = "text"
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class ParticipantConfig(Section):
    """The whole file."""

    apiVersion: Literal["llmasos/v1"] = "llmasos/v1"  # noqa: N815  the field's name in declarative files
    institution: Name
    consortium: Name
    coordinator: CoordinatorAddresses
    worker: WorkerSettings = WorkerSettings()
    transfer: TransferSettings = TransferSettings()
    identity: Identity = Identity()
    metrics: Metrics = Metrics()
    logging: Logging = Logging()


class HomeLayout:
    """Where everything lies in a participant's home folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.config = home / "participant.yaml"
        self.policy = home / "policy.yaml"
        self.data = home / "data"
        self.genesis = home / "genesis.json"
        self.identity = home / "identity"
        self.signing_key = self.identity / "signing.key.pem"
        self.encryption_key = self.identity / "encryption.key.pem"
        self.tls_key = self.identity / "tls.key.pem"
        self.tls_certificate = self.identity / "tls.pem"
        self.request = self.identity / "request.der"
        self.journal = home / "journal.sqlite"
        self.blobs = home / "blobs"
        self.jobs = home / "jobs"
        self.residuals = home / "residuals"
        self.evidence = home / "evidence"
        self.logs = home / "logs"
        self.worker_log = self.logs / "worker.log"
        self.lock = home / "lock"
        self.status = home / "status.json"


def load_config(home: Path) -> ParticipantConfig:
    """The configuration of a participant's home folder, environment included.

    Raises:
        NotInitialised: the folder holds none.
        InvalidConfiguration: a field is wrong; the message says which.
    """
    layout = HomeLayout(home)
    if not layout.config.exists():
        raise NotInitialised(
            f"{home} holds no participant.", "Join first: llmasos-participant join --invitation-file FILE --data DIR."
        )
    return load_yaml(layout.config, ParticipantConfig, environment=os.environ, prefix=ENVIRONMENT_PREFIX)
