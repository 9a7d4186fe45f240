"""README's by-hand block, run as it is written: only the ports are other ones, by environment, and the plan is smaller."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from llmasos.simulation.processes import Child, Processes
from tests.support.federations import until

pytestmark = pytest.mark.torch

REPOSITORY = Path(__file__).resolve().parents[2]
SMALLER = {"rounds: 3": "rounds: 1", "steps: 10": "steps: 2", "max_tokens: 4096": "max_tokens: 512"}
PORTS = {"LLMASOS_COORDINATOR_LISTEN__WORK": "127.0.0.1:0", "LLMASOS_COORDINATOR_LISTEN__ENROLMENT": "127.0.0.1:0"}
GUARDIAN = """
import os, signal, subprocess, sys, threading
*argv, _, lifeline = sys.argv[1:]
child = subprocess.Popen(argv)
def watch():
    os.read(int(lifeline), 1)
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=watch, daemon=True).start()
sys.exit(child.wait())
"""
"""Runs the shell, and ends it with all that it put behind when this test's process is gone."""


def by_hand() -> str:
    """The block between the README's marks."""
    text = (REPOSITORY / "README.md").read_text()
    found = re.search(r"<!-- by-hand:begin -->\n```sh\n(.*?)```\n<!-- by-hand:end -->", text, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """What a fresh clone after `make setup` has, as far as the block uses it."""
    place = tmp_path / "clone"
    place.mkdir()
    (place / ".venv").symlink_to(sys.prefix)
    shutil.copytree(REPOSITORY / "configs", place / "configs")
    plan = place / "configs" / "plans" / "tiny.yaml"
    text = plan.read_text()
    for before, after in SMALLER.items():
        assert text.count(before) == 1
        text = text.replace(before, after)
    plan.write_text(text)
    exports = "".join(f"export {name}={value}\n" for name, value in PORTS.items())
    (place / "by-hand.sh").write_text(f"set -euo pipefail\ncd {place}\n{exports}{by_hand()}")
    return place


@pytest.fixture
def processes() -> Iterator[Processes]:
    with Processes() as running:
        yield running


def left_of(group: int) -> list[psutil.Process]:
    """Processes of a group that have not ended."""
    left = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and os.getpgid(process.pid) == group:
                left.append(process)
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
    return left


def finish(child: Child) -> str:
    """Wait for the shell; what it printed."""
    output, _ = child.process.communicate(timeout=170)
    return output.decode()


def test_the_readmes_commands_by_hand_bring_a_run_to_its_end(workplace: Path, processes: Processes) -> None:
    pytest.importorskip("torch")
    argv = [sys.executable, "-c", GUARDIAN, "bash", str(workplace / "by-hand.sh")]
    shell = processes.start("by-hand", argv, log=workplace / "log", lifeline=True, capture=True)
    output = finish(shell)
    assert shell.exit_code == 0, f"{output}\n{shell.log_tail()}"
    out = workplace / "out" / "by-hand"
    assert "ended: rounds-done" in output
    assert re.search(r"round 1 committed \(train, all-contributed\) 3/3", output)
    assert re.search(r"round 2 committed \(evaluate, all-contributed\) 3/3", output)
    assert re.search(r"institution +asyncio of example", output)
    draft = json.loads((out / "prepared" / "draft.json").read_bytes())
    assert (out / "model.safetensors").stat().st_size == draft["initial"]["model"]["size"]
    assert (out / "model.safetensors").read_bytes() != (out / "prepared" / "model.safetensors").read_bytes()
    assert json.loads((out / "model" / "config.json").read_bytes())["model_type"] == "gpt2"
    until(lambda: not left_of(shell.pid), "the daemons that the block stopped have ended", 30)
