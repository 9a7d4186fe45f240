"""The daemon, and the worker: on which device it trains, and whether it is kept apart."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from participant.bench.token_files import CHECK_PREFIX
from participant.bench.worker_link import WorkerLink, WorkerSettings
from participant.bench.worker_protocol import Hello
from participant.config import WorkerSettings as WorkerSection
from participant.doctor.finding import Finding, Subject
from participant.memory.journal import Journal
from participant.status import read_status

NVIDIA_DEVICE = Path("/dev/nvidia0")
_SHOWN = ("torch", "transformers", "cuda")


def daemon(subject: Subject) -> Iterator[Finding]:
    """Whether it runs, and whether it is connected."""
    now = read_status(subject.layout.status)
    if not now["running"] and _two_histories(subject):
        yield Finding(
            "daemon",
            "fail",
            "not running, and does not start: two histories were shown to this institution",
            "llmasos-participant evidence export FILE, then docs/operations.md#two-histories",
        )
    elif not now["running"]:
        start = f"llmasos-participant start --home {subject.layout.home}"
        yield Finding("daemon", "warn", f"not running ({now['activity']})", start)
    elif now.get("connection") == "unreachable":
        reason = str(now.get("connection_reason") or "the reason is not known yet")
        yield Finding("daemon", "warn", f"runs (process {now['pid']}), but does not reach the coordinator: {reason}")
    else:
        yield Finding("daemon", "ok", f"runs (process {now['pid']}): {now['activity']}")


def _two_histories(subject: Subject) -> bool:
    if not subject.layout.journal.exists():
        return False
    journal = Journal(subject.layout.journal)
    try:
        return bool(journal.checkpoints_of("conflicting"))
    finally:
        journal.close()


def worker(subject: Subject) -> Iterator[Finding]:
    """Start one as the daemon does, in a folder of its own, let it say what it is, and end it."""
    root = Path(tempfile.mkdtemp(prefix=CHECK_PREFIX, dir=subject.layout.home))
    try:
        link = WorkerLink(_settings(subject, root), on_message=lambda message: None, on_exit=lambda code: None)
        hello = link.start()
        link.stop()
    finally:
        shutil.rmtree(root, ignore_errors=True)
    yield _device(hello)
    yield _isolation(hello, subject.config.worker)


def _settings(subject: Subject, root: Path) -> WorkerSettings:
    section = subject.config.worker
    settings = WorkerSettings(
        job_root=root,
        log_path=subject.layout.worker_log,
        threads=section.threads,
        ranks=section.ranks,
        sharding=section.sharding,
        worker_user=section.user,
        isolate_network=section.isolate_network,
    )
    return settings if section.command is None else replace(settings, command=section.command)


def _device(hello: Hello) -> Finding:
    versions = ", ".join(f"{name} {hello.versions[name]}" for name in _SHOWN if hello.versions.get(name))
    device = hello.device if hello.ranks == 1 else f"{hello.ranks} × {hello.device}"
    found = f"trains on {device}, CPU threads: {hello.threads} ({hello.capability})"
    found += f"; {versions}" if versions else ""
    if hello.device.startswith("cpu") and NVIDIA_DEVICE.exists():
        return Finding(
            "worker",
            "warn",
            f"{found}; but this machine has an NVIDIA GPU",
            "Install a torch with CUDA, and check `nvidia-smi` and CUDA_VISIBLE_DEVICES under the worker's account.",
        )
    return Finding("worker", "ok", found)


def _isolation(hello: Hello, section: WorkerSection) -> Finding:
    if hello.isolated:
        return Finding("isolation", "ok", "the worker runs under another account, without network")
    missing = []
    if section.user is None:
        missing.append("worker.user: another account (the agent then starts as root)")
    if not section.isolate_network:
        missing.append("worker.isolate_network: true")
    fix = (
        f"Set in participant.yaml {' and '.join(missing)}."
        if missing
        else "worker.user must be neither root nor the account of the agent."
    )
    return Finding(
        "isolation",
        "warn",
        "the worker is not kept apart: the split from the agent guards against accidents only",
        fix,
    )
