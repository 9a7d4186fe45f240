"""The coordinator's configuration: HOME/coordinator.yaml, one section a component."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from common.names import Name
from common.wire.channel import is_loopback, split_address
from coordinator.flower.settings import AggregationSettings

AUTO_BULK = 2
"""From the work listener's port to the bulk listener's."""


class Section(BaseModel):
    """Base: frozen, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Listen(Section):
    """Addresses. Port 0 takes any free port; addresses.json in the home folder says which."""

    work: Annotated[str, Field(description="Mutual TLS, for institutions and operators.")] = "127.0.0.1:7443"
    enrolment: Annotated[str, Field(description="Server TLS only, for those who join.")] = "127.0.0.1:7444"
    bulk: Annotated[
        str,
        Field(
            description="Mutual TLS without HTTP/2, for large blobs. Agents ask for its port and dial the host that they know "
            "for `work`. auto: as `work`, its port plus 2; off: large blobs go over `work`, as they do where a firewall "
            "closes this port."
        ),
    ] = "auto"
    public_work: Annotated[
        str | None, Field(description="What invitations say, where it differs from `work`, as behind a forwarded port.")
    ] = None
    public_enrolment: str | None = None
    public_bulk_port: Annotated[
        int | None, Field(ge=1, le=65535, description="What agents are told, where it differs from the port of `bulk`.")
    ] = None

    @property
    def bulk_address(self) -> str | None:
        """Where the bulk listener is; None: nowhere."""
        if self.bulk != "auto":
            return None if self.bulk == "off" else self.bulk
        host, port = self.work.rpartition(":")[0], split_address(self.work)[1]
        return f"{host}:{port and port + AUTO_BULK}"


class Limits(Section):
    """What one institution may ask of the coordinator."""

    blob_streams: Annotated[int, Field(ge=1, le=64, description="Transfers at once.")] = 8
    control_calls: Annotated[int, Field(ge=1, le=256, description="Control calls at once.")] = 8
    requests_per_second: Annotated[float, Field(gt=0, description="Sustained; twice as many at once.")] = 200.0
    enrolments_per_second: Annotated[
        float, Field(gt=0, description="All callers of the enrolment listener together.")
    ] = 20.0
    window_mib: Annotated[
        int, Field(ge=1, le=16, description="MiB on the way of each upload: memory here, speed over long ways.")
    ] = 1
    max_model_bytes: Annotated[int, Field(ge=1, description="Largest blob that an operator may send for a plan.")] = (
        2**40
    )


class Identity(Section):
    """Keys and certificates."""

    passphrase_file: Annotated[
        Path | None, Field(description="Holds the passphrase of the private keys; none: they are not encrypted.")
    ] = None


class Metrics(Section):
    """Prometheus metrics over HTTP: names, counts and seconds, nothing of the data."""

    listen: Annotated[str | None, Field(description="Address, such as 127.0.0.1:9464; none: no metrics.")] = None


WebhookEvent = Literal["refusal", "stall", "certificate-expiry", "invitation-expiry", "run-ended", "membership"]


class Webhook(Section):
    """Where a POST with JSON goes when something happens (docs/operations.md)."""

    url: Annotated[str, Field(max_length=2000, pattern=r"^https?://[^/\s]+", description="http only towards loopback.")]
    events: Annotated[tuple[WebhookEvent, ...], Field(min_length=1)] = (
        "refusal",
        "stall",
        "certificate-expiry",
        "run-ended",
        "membership",
    )
    secret_file: Annotated[
        Path | None, Field(description="Key of the HMAC-SHA-256 in the header LLMasOS-Signature.")
    ] = None

    @field_validator("url")
    @classmethod
    def _http_stays_here(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            host = None
        if not host:
            raise ValueError("expected an address such as https://host/path")
        if parts.scheme == "http" and not is_loopback(host):
            raise ValueError("expected https, since http goes to loopback only")
        return url


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
    identity: Identity = Identity()
    metrics: Metrics = Metrics()
    aggregation: AggregationSettings = AggregationSettings()
    webhooks: Annotated[tuple[Webhook, ...], Field(max_length=16)] = ()
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
        self.log_head = home / "log.head"
        self.blobs = home / "blobs"
        self.lock = home / "lock"
        self.flower = home / "flower"
        self.addresses = home / "addresses.json"
        self.operator = home / "operator"
