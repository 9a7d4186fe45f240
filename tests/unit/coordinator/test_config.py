"""HOME/coordinator.yaml: every field has a default, an owner and a range."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config import load_yaml
from common.errors import InvalidConfiguration, NotInitialised
from coordinator.app import ENVIRONMENT_PREFIX, load_config
from coordinator.config import CoordinatorConfig, HomeLayout

MINIMAL = "apiVersion: llmasos/v1\nconsortium: hospitals\n"


def load(tmp_path: Path, text: str, **environment: str) -> CoordinatorConfig:
    (tmp_path / "coordinator.yaml").write_text(text)
    variables = {f"{ENVIRONMENT_PREFIX}{name}": value for name, value in environment.items()}
    return load_yaml(tmp_path / "coordinator.yaml", CoordinatorConfig, environment=variables, prefix=ENVIRONMENT_PREFIX)


def test_a_consortiums_name_is_all_that_is_needed(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL)
    assert config == CoordinatorConfig(consortium="hospitals")
    assert (config.listen.work, config.listen.enrolment) == ("127.0.0.1:7443", "127.0.0.1:7444")
    assert (config.lease_seconds, config.certificate_days, config.invitation_hours) == (60.0, 365, 72)


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    text = f"{MINIMAL}lease_seconds: 30\nlisten:\n  work: 10.0.0.1:1\n"
    config = load(tmp_path, text, LEASE_SECONDS="5", LISTEN__WORK="127.0.0.1:0")
    assert (config.lease_seconds, config.listen.work) == (5.0, "127.0.0.1:0")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("lease_second: 30", "lease_second"),
        ("lease_seconds: 0", "lease_seconds"),
        ("lease_seconds: soon", "lease_seconds"),
        ("certificate_days: 4000", "certificate_days"),
        ("invitation_hours: 0", "invitation_hours"),
        ("limits: {blob_streams: 65}", "blob_streams"),
        ("limits: {requests_per_second: 0}", "requests_per_second"),
        ("logging: {format: xml}", "format"),
        ("listen: [1]", "listen"),
        ("lease_seconds: 30\nlease_seconds: 31", "lease_seconds"),
    ],
)
def test_a_wrong_field_is_named_with_its_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(InvalidConfiguration, match=rf"coordinator\.yaml:3.*{message}|coordinator\.yaml.*{message}"):
        load(tmp_path, f"{MINIMAL}{line}\n")


def test_a_file_without_a_consortium_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="consortium"):
        load(tmp_path, "apiVersion: llmasos/v1\n")


def test_a_folder_without_a_coordinator_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NotInitialised, match=r"holds no coordinator\..*llmasos-coordinator init"):
        load_config(tmp_path)


def test_everything_lies_below_the_home(tmp_path: Path) -> None:
    layout = HomeLayout(tmp_path)
    paths = [value for value in vars(layout).values() if isinstance(value, Path)]
    assert len(paths) == len(set(paths)) > 10
    assert all(path == tmp_path or tmp_path in path.parents for path in paths)
