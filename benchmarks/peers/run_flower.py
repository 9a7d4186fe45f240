"""Flower: a SuperLink, a SuperNode for each participant, and the Flower App in apps/flower, submitted by `flwr run`."""

from __future__ import annotations

import datetime
import ipaddress
import os
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks.peers import workload
from benchmarks.peers.environments import HERE, environment, version
from benchmarks.peers.errors import PeerFailure
from benchmarks.peers.job import Job, free_ports, read_result, with_cause
from benchmarks.peers.observer import Observer
from benchmarks.peers.table import Measured, System, measured

SERVER = ("flower-superlink", "flwr-serverapp", "serverapp")
CLIENT = ("flower-supernode", "flwr-clientapp", "clientapp")
DAY = datetime.timedelta(days=1)


def roles(argv: Sequence[str]) -> str | None:
    """SuperLink, SuperNodes, and what they start for a ServerApp and for each message to a ClientApp."""
    words = {Path(word).name for word in argv}
    if words & set(SERVER):
        return "server"
    return "client" if words & set(CLIENT) else None


@dataclass(frozen=True, slots=True)
class Flower:
    """With TLS, or with `--insecure`."""

    tls: bool = True

    @property
    def name(self) -> str:
        return "flower" if self.tls else "flower-insecure"

    def describe(self, job: Job) -> System:
        """
        Raises:
            PeerFailure: it cannot be installed.
        """
        transport = "HTTP, server TLS" if self.tls else "HTTP, no TLS"
        settings = (
            "SuperLink and SuperNodes as processes, ServerApp and ClientApp in subprocesses (the default isolation), "
            "FedAvg of the message API, no evaluation; no setting for large models is documented: messages are cut into "
            "objects by themselves; the new model is not written to disk"
        )
        return System(self.name, version(self._binaries(job), "flwr"), transport, settings)

    def run(self, job: Job) -> Measured:
        """
        Raises:
            PeerFailure: it broke, or passed a limit.
        """
        files = Files(job, tls=self.tls)
        with Observer(roles, job.limits) as observer:
            try:
                files.deploy(observer, self._binaries(job))
                observer.wait_for(files.result.exists)
            except PeerFailure as failure:
                raise with_cause(failure, files.logs) from failure
            return measured(read_result(files.result)["rounds"], observer.usage)

    def _binaries(self, job: Job) -> Path:
        return environment(job.cache / "venv-flwr", "requirements-flower.txt")


class Files:
    """One deployment's folder and processes."""

    def __init__(self, job: Job, *, tls: bool) -> None:
        self._job = job
        self._tls = tls
        self._port, *self._node_ports = free_ports(1 + job.participants)
        self.result = job.work / "result.json"
        self.logs: list[Path] = []

    def deploy(self, observer: Observer, binaries: Path) -> None:
        """All processes; the run is submitted when this returns."""
        self._write()
        server = ["--ssl-certfile", "cert.pem", "--ssl-keyfile", "key.pem", "--ssl-ca-certfile", "cert.pem"]
        node = ["--root-certificates", "cert.pem"]
        superlink = [
            "flower-superlink",
            *(server if self._tls else ["--insecure"]),
            *("--host", "127.0.0.1", "--port", str(self._port), "--disable-runtime-dependency-installation"),
        ]
        self._start(observer, binaries, superlink, "superlink")
        observer.wait_for(lambda: listens(self._port))
        for index, port in enumerate(self._node_ports):
            supernode = [
                *("flower-supernode", *(node if self._tls else ["--insecure"])),
                *("--superlink", f"127.0.0.1:{self._port}", "--port", str(port)),
                *("--node-config", f"partition-id={index}"),
            ]
            self._start(observer, binaries, supernode, f"supernode-{index}")
        settings = {"total-bytes": self._job.total_bytes, "participants": self._job.participants}
        settings["rounds"] = self._job.rounds
        config = " ".join([*(f"{name}={value}" for name, value in settings.items()), f'result="{self.result}"'])
        self._start(observer, binaries, ["flwr", "run", "app", "bench", "--stream", "--run-config", config], "run")

    def _write(self) -> None:
        """The app, a certificate, and the connection that `flwr run` uses."""
        work = self._job.work
        shutil.copytree(HERE / "apps" / "flower", work / "app")
        shutil.copy(workload.__file__, work / "app" / "peer_app" / "workload.py")
        security = f'root-certificates = "{work / "cert.pem"}"' if self._tls else "insecure = true"
        home = work / "home"
        home.mkdir()
        (home / "config.toml").write_text(f'[superlink.bench]\naddress = "127.0.0.1:{self._port}"\n{security}\n')
        if self._tls:
            write_certificate(work)

    def _start(self, observer: Observer, binaries: Path, argv: Sequence[str], name: str) -> None:
        log = self._job.work / f"{name}.log"
        self.logs.append(log)
        variables = {
            **os.environ,
            "PATH": f"{binaries}:{os.environ['PATH']}",
            "FLWR_HOME": str(self._job.work / "home"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
        }
        observer.start(
            name, [str(binaries / argv[0]), *argv[1:]], log=log, environment=variables, folder=self._job.work
        )


def listens(port: int) -> bool:
    """Does anything accept connections there?"""
    with socket.socket() as client:
        client.settimeout(1.0)
        return client.connect_ex(("127.0.0.1", port)) == 0


def write_certificate(folder: Path) -> None:
    """A key and a certificate for this machine that is its own root: `key.pem`, `cert.pem`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    here = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - DAY, now + DAY)
        .add_extension(x509.SubjectAlternativeName(here), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
    (folder / "key.pem").chmod(0o600)
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
