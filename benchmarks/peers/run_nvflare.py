"""NVFLARE: a provisioned server and sites, each started from its kit, and the FedAvg recipe in apps/nvflare."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import workload
from benchmarks.peers.environments import HERE, environment, version
from benchmarks.peers.errors import PeerFailure
from benchmarks.peers.job import Job, free_ports, read_result, with_cause
from benchmarks.peers.observer import Observer
from benchmarks.peers.table import Measured, System, measured

ADMIN = "admin@bench.local"
PROJECT = """\
api_version: 3
name: bench
description: a benchmark on one machine
participants:
  - {name: server1, type: server, org: bench, fed_learn_port: PORT, host_names: [127.0.0.1], default_host: localhost}
SITES
  - {name: admin@bench.local, type: admin, org: bench, role: project_admin}
builders:
  - path: nvflare.lighter.impl.workspace.WorkspaceBuilder
  - path: nvflare.lighter.impl.static_file.StaticFileBuilder
    args: {config_folder: config, scheme: grpc}
  - path: nvflare.lighter.impl.cert.CertBuilder
  - path: nvflare.lighter.impl.signature.SignatureBuilder
"""
SITE = "  - {name: site-INDEX, type: client, org: bench}"
SERVER_STORE = "/tmp/nvflare"
"""Where a server's default configuration keeps jobs and snapshots."""
ARENAS = {"server": "4", "client": "2"}
"""MALLOC_ARENA_MAX that NVFLARE's memory management guide recommends."""


def roles(argv: Sequence[str]) -> str | None:
    """The server's and the sites' processes, and the process that each starts for a job."""
    text = " ".join(argv)
    if "nvflare.private.fed.app.server" in text:
        return "server"
    return "client" if "nvflare.private.fed.app.client" in text else None


@dataclass(frozen=True, slots=True)
class NvFlare:
    """With mutual TLS over gRPC, as a provisioned deployment has it; numpy arrays or torch tensors travel."""

    torch: bool = False

    @property
    def name(self) -> str:
        return "nvflare-torch" if self.torch else "nvflare"

    def describe(self, job: Job) -> System:
        """
        Raises:
            PeerFailure: it cannot be installed.
        """
        exchange = "torch tensors, kept on disk until added up" if self.torch else "numpy arrays"
        settings = (
            f"provisioned server and sites as processes, FedAvg recipe through the production environment, {exchange}, "
            "trainer in the site's job process (the default); as its guide says for large models: memory cleanup in every "
            "round on both sides, MALLOC_ARENA_MAX 4 and 2, task time-outs of 600 s; the new model is written to disk"
        )
        return System(self.name, version(self._binaries(job), "nvflare"), "gRPC, mutual TLS", settings)

    def run(self, job: Job) -> Measured:
        """
        Raises:
            PeerFailure: it broke, or passed a limit.
        """
        binaries, result = self._binaries(job), job.work / "result.json"
        kits = job.work / "deployment" / "bench" / "prod_00"
        sites = [f"site-{index}" for index in range(1, job.participants + 1)]
        logs = [job.work / f"{name}.log" for name in ("provision", "server1", *sites, "job")]
        with Observer(roles, job.limits) as observer:
            try:
                provision(job, observer, binaries, kits)
                for name in ("server1", *sites):
                    start_kit(observer, binaries, kits / name, job.work / f"{name}.log")
                submit(job, observer, binaries, kits, result, torch=self.torch)
                observer.wait_for(result.exists)
            except PeerFailure as failure:
                raise with_cause(failure, logs) from failure
            return measured(read_result(result)["rounds"], observer.usage)

    def _binaries(self, job: Job) -> Path:
        return environment(job.cache / f"venv-{self.name}", f"requirements-{self.name}.txt")


def provision(job: Job, observer: Observer, binaries: Path, kits: Path) -> None:
    """A kit with keys and certificates for each process; the server's store is moved into the work folder."""
    sites = "\n".join(SITE.replace("INDEX", str(index)) for index in range(1, job.participants + 1))
    (job.work / "project.yml").write_text(PROJECT.replace("PORT", str(free_ports(1)[0])).replace("SITES", sites))
    argv = [str(binaries / "nvflare"), "provision", "-p", "project.yml", "-w", str(job.work / "deployment")]
    environ = variables(binaries, job.work)
    observer.run("provision", argv, log=job.work / "provision.log", environment=environ, folder=job.work)
    local = kits / "server1" / "local"
    text = (local / "resources.json.default").read_text()
    (local / "resources.json").write_text(text.replace(SERVER_STORE, str(job.work / "store")))


def start_kit(observer: Observer, binaries: Path, kit: Path, log: Path) -> None:
    """What the kit's start.sh does, in the foreground and without restarting what broke."""
    role = "server" if kit.name == "server1" else "client"
    environ = variables(binaries, kit.parents[3]) | {"MALLOC_ARENA_MAX": ARENAS[role]}
    observer.start(
        kit.name, ["bash", str(kit / "startup" / "sub_start.sh"), "--once"], log=log, environment=environ, folder=kit
    )


def submit(job: Job, observer: Observer, binaries: Path, kits: Path, result: Path, *, torch: bool) -> None:
    """Hand the recipe in through the admin's kit."""
    app = job.work / "app"
    shutil.copytree(HERE / "apps" / "nvflare", app)
    shutil.copy(workload.__file__, app / "workload.py")
    numbers = {"--total-bytes": job.total_bytes, "--participants": job.participants, "--rounds": job.rounds}
    argv = [str(binaries / "python"), "job.py", "--kit", str(kits / ADMIN), "--user", ADMIN, "--result", str(result)]
    argv += ["--torch"] if torch else []
    argv += [word for name, value in numbers.items() for word in (name, str(value))]
    observer.start("job", argv, log=job.work / "job.log", environment=variables(binaries, job.work), folder=app)


def variables(binaries: Path, home: Path) -> dict[str, str]:
    """Its scripts call `python3`; its commands keep settings in the home folder."""
    return {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}", "HOME": str(home), "PYTHONPATH": ""}
