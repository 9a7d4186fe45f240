"""What lies where in the output folder, and that only one simulation at a time writes there.

OUT/README.md  report.html  report.json      what came of it
    plan.yaml  prepared/                     the plan and what `plan prepare` made of it
    data/NAME/  public/                      the demo's text (simulate reads the folders that it is given)
    coordinator/  participants/NAME/         their homes: configuration, keys, state
    invitations/NAME.inv  logs/              how they were introduced, what they said
    final.safetensors  model/                the last global model: as the run has it, and in Hugging Face layout
    base/                                    where an adapter was trained: what it was trained beside, in the same layout
    baselines/                               the trainings without a federation
    virtual/  engine.json                    of the Flower engine: encoded text, and what it was told
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.errors import AlreadyInitialised, HomeLocked

MARKER = ".llmasos-simulation"
OWNED = (
    "README.md",
    "report.html",
    "report.json",
    "plan.yaml",
    "prepared",
    "data",
    "public",
    "coordinator",
    "participants",
    "invitations",
    "logs",
    "final.safetensors",
    "model",
    "base",
    "baselines",
    "virtual",
    "engine.json",
)
"""All that a simulation ever writes: what the next one in the same folder may remove."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below one output folder, absolute."""

    root: Path

    @property
    def readme(self) -> Path:
        return self.root / "README.md"

    @property
    def report_html(self) -> Path:
        return self.root / "report.html"

    @property
    def report_json(self) -> Path:
        return self.root / "report.json"

    @property
    def plan(self) -> Path:
        return self.root / "plan.yaml"

    @property
    def prepared(self) -> Path:
        return self.root / "prepared"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def public(self) -> Path:
        return self.root / "public"

    @property
    def coordinator(self) -> Path:
        return self.root / "coordinator"

    def participant(self, name: str) -> Path:
        return self.root / "participants" / name

    def invitation(self, name: str) -> Path:
        return self.root / "invitations" / f"{name}.inv"

    def log(self, name: str) -> Path:
        return self.root / "logs" / f"{name}.log"

    @property
    def final_tensors(self) -> Path:
        return self.root / "final.safetensors"

    @property
    def model(self) -> Path:
        return self.root / "model"

    def personal(self, name: str, run: str) -> Path:
        """Where an institution keeps the layers of a run that never leave it."""
        return self.participant(name) / "jobs" / run / "personal"

    @property
    def base(self) -> Path:
        return self.root / "base"

    @property
    def baselines(self) -> Path:
        return self.root / "baselines"

    @property
    def virtual(self) -> Path:
        return self.root / "virtual"

    @property
    def tokens(self) -> Path:
        """Encoded text of the institutions, owner-only."""
        return self.baselines / "tokens"


@contextmanager
def claim(out: Path) -> Iterator[Layout]:
    """Hold the output folder for one simulation; what an earlier one left there is removed.

    Raises:
        AlreadyInitialised: the folder holds something that no simulation wrote.
        HomeLocked: another simulation runs in it.
    """
    root = out.resolve()
    root.mkdir(parents=True, exist_ok=True)
    marker = root / MARKER
    if not marker.exists() and any(root.iterdir()):
        raise AlreadyInitialised(
            f"{root} is not empty and holds no earlier simulation.",
            "Name another folder with --out, or empty this one.",
        )
    descriptor = os.open(marker, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, root)
        _clear(root)
        yield Layout(root)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, root: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise HomeLocked(f"Another simulation runs in {root}.", "Wait for it, or name another --out.") from error


def _clear(root: Path) -> None:
    for name in OWNED:
        path = root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
