"""What each program loads, seen from a fresh process: no torch in the coordinator and the agent, no importable `proto`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "peft", "tokenizers", "llmasos")
SHOW = "import sys\nimport {module}\nprint(' '.join(sorted({{name.partition('.')[0] for name in sys.modules}})))"


def loaded_by(module: str) -> set[str]:
    """Top-level packages in sys.modules after importing `module` from a folder that holds nothing."""
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run(
            [sys.executable, "-c", SHOW.format(module=module)],
            capture_output=True,
            text=True,
            check=False,
            cwd=elsewhere,
        )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module", ["coordinator.app", "coordinator.cli", "participant.agent", "participant.app", "participant.cli"]
)
def test_daemons_load_no_torch(module: str) -> None:
    assert loaded_by(module).isdisjoint(HEAVY)


@pytest.mark.parametrize("module", ["participant.app", "participant.cli"])
def test_an_agent_loads_no_numpy_before_a_codec_needs_it(module: str) -> None:
    assert "numpy" not in loaded_by(module)


@pytest.mark.parametrize("module", ["common.reduce", "common.plan.load", "common.terminal"])
def test_what_all_share_loads_no_torch_and_no_daemon(module: str) -> None:
    assert loaded_by(module).isdisjoint({*HEAVY, "coordinator", "participant"})


def test_the_sdks_command_line_loads_no_torch_until_it_must() -> None:
    assert loaded_by("llmasos.cli").isdisjoint({"torch", "transformers", "tokenizers", "coordinator", "participant"})


def test_daemons_never_load_each_other() -> None:
    assert "participant" not in loaded_by("coordinator.app")
    assert "coordinator" not in loaded_by("participant.app")


def test_our_proto_folder_is_no_package(tmp_path: Path) -> None:
    """Some libraries install a top-level `proto`: ours must not stand in its place."""
    done = subprocess.run(
        [sys.executable, "-c", "import proto; print(proto.__path__)"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    if done.returncode == 0:
        assert "site-packages" in done.stdout
    else:
        assert "No module named 'proto'" in done.stderr
