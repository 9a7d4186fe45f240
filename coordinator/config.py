"""The coordinator's configuration: HOME/coordinator.yaml, one section a component."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from common.names import Name


class Section(BaseModel):
    """Base: frozen, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Listen(Section):
    """Addresses. Port 0 takes any free port; addresses.json in the home folder says which."""

    work: Annotated[str, Field(description="Mutual TLS, for institutions and operators.")] = "127.0.0.1:7443"
    enrolment: Annotated[str, Field(description="Server TLS only, for those who join.")] = "127.0.0.1:7444"
    public_work: Annotated[
        str | None, Field(description="What invitations say, where it differs from `work`, as behind a forwarded port.")
    ] = None
    public_enrolment: str | None = None


class Limits(Section):
    """What one institution may ask of the coordinator."""

    blob_streams: Annotated[int, Field(ge=1, le=64, description="Transfers at once.")] = 8
    control_calls: Annotated[int, Field(ge=1, le=256, description="Control calls at once.")] = 8
    requests_per_second: Annotated[float, Field(gt=0, description="Sustained; twice as many at once.")] = 200.0
    enrolments_per_second: Annotated[
        float, Field(gt=0, description="All callers of the enrolment listener together.")
    ] = 20.0
    max_model_bytes: Annotated[int, Field(ge=1, description="Largest blob that an operator may send for a plan.")] = (
        2**40
    )


class Logging(Section):
    """Where events go. `text` for people, `json` for machines."""

    format: Literal["text", "json"] = "text"
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class CoordinatorConfig(Section):
    """The whole file."""

    apiVersion: Literal["llmasos/v1"] = "llmasos/v1"  # noqa: N815  the field's name in declarative files
    consortium: Name
    listen: Listen = Listen()
    lease_seconds: Annotated[
        float, Field(gt=0, le=86400, description="Silence after which a round need not wait for an institution.")
    ] = 60.0
    certificate_days: Annotated[int, Field(ge=1, le=3650)] = 365
    invitation_hours: Annotated[int, Field(ge=1, le=8760)] = 72
    limits: Limits = Limits()
    logging: Logging = Logging()


class HomeLayout:
    """Where everything lies in a coordinator's home folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.config = home / "coordinator.yaml"
        self.genesis = home / "genesis.json"
        self.identity = home / "identity"
        self.statement_key = self.identity / "statement.key.pem"
        self.log_key = self.identity / "log.key.pem"
        self.tls_key = self.identity / "tls.key.pem"
        self.tls_certificate = self.identity / "tls.pem"
        self.state = home / "state.sqlite"
        self.blobs = home / "blobs"
        self.lock = home / "lock"
        self.addresses = home / "addresses.json"
        self.operator = home / "operator"
