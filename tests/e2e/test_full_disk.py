"""The coordinator's disk is full in the middle of the uploads: they are refused, and go on when there is room again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.federations import NAMES

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="a small disk of its own needs root, Linux and unshare",
)


def test_a_full_disk_costs_time_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "federation"
    argv = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        sys.executable,
        "-m",
        "tests.support.full_disk",
        str(folder),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["contributions while full"] < len(NAMES)
    assert told["rounds"] == told["undisturbed"] == [["committed", list(NAMES)]] * 3
    assert told["same model"]
    assert told["verified"] == 0
    assert not any((folder / "coordinator").iterdir()), "the small disk went away with its namespace"
