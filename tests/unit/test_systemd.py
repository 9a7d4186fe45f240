"""The systemd units start commands that exist, with settings that exist, and as few rights as they need."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.config import load_yaml
from coordinator.config import CoordinatorConfig
from participant.config import ParticipantConfig

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "configs" / "systemd"
NAMES = ("coordinator", "participant")
MODELS = {"coordinator": CoordinatorConfig, "participant": ParticipantConfig}
RIGHTS = {"CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID", "SYS_ADMIN"}


class Unit:
    """A unit file; settings that stand several times keep all their values."""

    def __init__(self, name: str, *, commented: bool = False) -> None:
        self.path = UNITS / f"llmasos-{name}.service"
        text = self.path.read_text()
        if commented:
            text = text.replace("\n#LoadCredential", "\nLoadCredential").replace("\n#Environment", "\nEnvironment")
        parser = configparser.RawConfigParser(strict=False)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read_string(text)
        self.sections = parser.sections()
        lines = (line.partition("=") for line in text.splitlines() if line and line[0].isalpha())
        self.values: dict[str, list[str]] = {}
        for key, _, value in lines:
            self.values.setdefault(key, []).append(value)

    def __getitem__(self, key: str) -> str:
        (value,) = self.values[key]
        return value

    @property
    def environment(self) -> dict[str, str]:
        return dict(each.split("=", 1) for each in self.values["Environment"])


@pytest.mark.parametrize("name", NAMES)
def test_a_unit_starts_its_daemon_with_options_that_the_command_has(name: str) -> None:
    unit = Unit(name)
    assert unit.sections == ["Unit", "Service", "Install"]
    program, *words = unit["ExecStart"].split()
    assert program == f"/opt/llmasos/bin/llmasos-{name}"
    commands = [word for word in words if not word.startswith("-")]
    shown = subprocess.run(
        [sys.executable, "-P", "-m", name, *commands, "--help"], capture_output=True, text=True, check=True
    )
    assert all(word.partition("=")[0] in shown.stdout for word in words if word.startswith("-"))


@pytest.mark.parametrize("name", NAMES)
def test_settings_by_environment_are_settings(name: str, tmp_path: Path) -> None:
    unit = Unit(name, commented=True)
    prefix = f"LLMASOS_{name.upper()}_"
    environment = {key: value.replace("%d", str(tmp_path)) for key, value in unit.environment.items()}
    config = load_yaml(ROOT / "configs" / f"{name}.yaml", MODELS[name], environment=environment, prefix=prefix)
    assert config.logging.format == "json"
    assert config.identity.passphrase_file == tmp_path / "passphrase"
    assert unit["LoadCredential"].startswith("passphrase:/etc/llmasos/")
    assert unit.environment["LLMASOS_HOME"] == f"/var/lib/llmasos-{name}"


@pytest.mark.parametrize("name", NAMES)
def test_a_unit_ends_in_order_comes_back_and_is_hardened(name: str) -> None:
    unit = Unit(name)
    assert (unit["Restart"], unit["KillMode"]) == ("on-failure", "mixed")
    assert int(unit["TimeoutStopSec"]) >= 30
    assert (unit["NoNewPrivileges"], unit["ProtectSystem"], unit["PrivateTmp"]) == ("yes", "strict", "yes")
    assert unit["UMask"] == "0077"


def test_the_coordinator_has_no_rights_at_all() -> None:
    unit = Unit("coordinator")
    assert (unit["User"], unit["CapabilityBoundingSet"]) == ("llmasos", "")
    assert (unit["StateDirectory"], unit["StateDirectoryMode"]) == ("llmasos-coordinator", "0700")


def test_the_agent_has_the_rights_that_worker_isolation_takes_and_no_more() -> None:
    unit = Unit("participant")
    assert {each.removeprefix("CAP_") for each in unit["CapabilityBoundingSet"].split()} == RIGHTS
    assert unit.environment["LLMASOS_PARTICIPANT_WORKER__USER"] == "llmasos-worker"
    assert unit.environment["LLMASOS_PARTICIPANT_WORKER__ISOLATE_NETWORK"] == "true"
    assert unit["ReadWritePaths"] == unit.environment["LLMASOS_HOME"]
    assert unit["RestrictNamespaces"] == "net"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
@pytest.mark.parametrize("name", NAMES)
def test_systemd_itself_finds_nothing_wrong(name: str, tmp_path: Path) -> None:
    here = tmp_path / f"llmasos-{name}.service"
    program = shutil.which("true") or "/bin/true"
    here.write_text(Unit(name).path.read_text().replace(f"/opt/llmasos/bin/llmasos-{name}", program))
    done = subprocess.run(["systemd-analyze", "verify", str(here)], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if f"llmasos-{name}" in line]
    assert (done.returncode, ours) == (0, []), done.stderr
