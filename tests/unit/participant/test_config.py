"""participant.yaml: what it may hold, what the environment changes, where everything lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import InvalidConfiguration, NotInitialised
from participant.config import HomeLayout, load_config

MINIMAL = """\
institution: north
consortium: hospitals
coordinator: {work: "127.0.0.1:7443", enrolment: "127.0.0.1:7444"}
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "participant.yaml").write_text(MINIMAL)
    return tmp_path


def test_a_minimal_file_has_a_default_for_the_rest(home: Path) -> None:
    config = load_config(home)
    assert (config.worker.threads, config.worker.snapshot_seconds, config.worker.command) == (1, 300, None)


def test_the_environment_changes_single_fields(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMASOS_PARTICIPANT_WORKER__THREADS", "4")
    monkeypatch.setenv("LLMASOS_PARTICIPANT_WORKER__COMMAND", "[python, null_worker.py]")
    monkeypatch.setenv("LLMASOS_PARTICIPANT_LOGGING__FORMAT", "json")
    config = load_config(home)
    assert (config.worker.threads, config.worker.command) == (4, ("python", "null_worker.py"))
    assert config.logging.format == "json"


def test_speed_limits_keep_their_hours_and_order(home: Path) -> None:
    with (home / "participant.yaml").open("a") as file:
        file.write("transfer:\n  streams: 4\n  max_mbit_per_s:\n")
        file.write("  - {hours: 'mon-fri 08:00-18:00 Europe/Berlin', up: 20, down: 50}\n  - {up: 200}\n")
    transfer = load_config(home).transfer
    assert transfer.streams == 4
    assert [(each.hours, each.up, each.down) for each in transfer.max_mbit_per_s] == [
        ("mon-fri 08:00-18:00 Europe/Berlin", 20, 50),
        (None, 200, None),
    ]


WRONG = {
    "hours that are none": (
        "transfer: {max_mbit_per_s: [{hours: 'Mo-Fr 8-18', up: 5}]}",
        r"max_mbit_per_s\.0\.hours: expected days, times and a time zone",
    ),
    "a speed of nothing": ("transfer: {max_mbit_per_s: [{up: 0}]}", r"max_mbit_per_s\.0\.up.*0\.5"),
    "an entry that limits nothing": (
        "transfer: {max_mbit_per_s: [{}]}",
        r"max_mbit_per_s\.0: .*expected up, down or both",
    ),
    "streams that are neither a number nor auto": ("transfer: {streams: many}", r"transfer\.streams.*auto"),
    "too many streams": ("transfer: {streams: 17}", r"transfer\.streams.*16"),
    "event files in a folder that depends on where one stands": (
        "worker: {tensorboard: board}",
        r"worker\.tensorboard: expected an absolute path, got board",
    ),
    "an unknown field": ("worker: {thread: 4}", r"participant\.yaml:4: worker\.thread"),
    "data, which stands in files of its own": ("data: []", r"data"),
    "threads below one": ("worker: {threads: 0}", r"worker\.threads"),
    "another format of log": ("logging: {format: xml}", r"logging\.format.*'?text'?"),
    "another version": ("apiVersion: llmasos/v9", r"apiVersion.*llmasos/v1"),
    "a name that is none": ("institution: The North", r"institution"),
}


@pytest.mark.parametrize("claim", WRONG)
def test_what_is_wrong_is_named_with_file_and_field(home: Path, claim: str) -> None:
    line, message = WRONG[claim]
    key = line.split(":")[0]
    kept = (
        MINIMAL.split("data:")[0]
        if key == "data"
        else "".join(each for each in MINIMAL.splitlines(keepends=True) if not each.startswith(f"{key}:"))
    )
    (home / "participant.yaml").write_text(kept + line + "\n")
    with pytest.raises(InvalidConfiguration, match=message):
        load_config(home)


def test_a_home_without_a_participant_says_how_to_join(tmp_path: Path) -> None:
    with pytest.raises(NotInitialised, match=r"holds no participant\..*llmasos-participant join"):
        load_config(tmp_path / "none")


def test_keys_and_journal_lie_in_the_home(tmp_path: Path) -> None:
    layout = HomeLayout(tmp_path)
    keys = (layout.signing_key, layout.encryption_key, layout.tls_key, layout.tls_certificate, layout.request)
    assert {path.parent for path in keys} == {tmp_path / "identity"}
    for path in (layout.journal, layout.policy, layout.genesis, layout.lock, layout.status, layout.blobs, layout.jobs):
        assert path.parent == tmp_path
