"""policy.yaml: lines of its fields, errors that name them, and what the watch makes of a change."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.clock import ManualClock
from common.errors import InvalidConfiguration
from common.resources import read_config
from participant.memory.records import Records
from participant.policy import Policy, PolicyWatch, load_policy
from participant.policy.loading import changes

GOOD = "apiVersion: llmasos/v1\nanswer: accept\nbudgets:\n  gpu_hours: 5\n"


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    made = Records(tmp_path / "journal.sqlite")
    yield made
    made.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(GOOD)
    return path


def save(file: Path, text: str) -> None:
    """As an editor does; with a time of its own, however coarse the clock of the file system is."""
    before = file.stat().st_mtime_ns
    file.write_text(text)
    os.utime(file, ns=(before + 10**9, before + 10**9))


def test_each_field_has_its_line(file: Path) -> None:
    loaded = load_policy(file)
    assert loaded.policy.budgets.gpu_hours == 5
    assert loaded.policy.budgets.cpu_hours == Policy().budgets.cpu_hours
    assert loaded.lines == {"apiVersion": 1, "answer": 2, "budgets": 3, "budgets.gpu_hours": 4}


def test_every_rule_has_a_line_in_the_shipped_file(tmp_path: Path) -> None:
    from participant.policy.rules import RULES

    file = tmp_path / "policy.yaml"
    file.write_text(read_config("policy.yaml"))
    assert {rule.field for rule in RULES} <= load_policy(file).lines.keys()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("answer: maybe\n", r"policy\.yaml:1: answer: expected 'accept', 'refuse' or 'ask', got 'maybe'\."),
        ("answer: ask\nmin_quorm: 3\n", r"policy\.yaml:2: min_quorm: unknown field; did you mean 'min_quorum'\?"),
        ("windows: [sometimes]\n", r"policy\.yaml:1: windows\.0: expected days, times and a time zone"),
        ("budgets:\n  gpu_hours: none\n", r"policy\.yaml:2: budgets\.gpu_hours: expected a number, got 'none'"),
        ("- ask\n", r"policy\.yaml:1: expected fields and values, got list"),
        ("", r"policy\.yaml:1: expected a policy, got an empty file"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(InvalidConfiguration, match=message):
        load_policy(file)


def test_changes_are_fields_with_old_and_new() -> None:
    after = Policy.model_validate(
        {"answer": "accept", "windows": ["daily 22:00-06:00 UTC"], "budgets": {"disk_gb": None}}
    )
    assert changes(Policy(), after) == {
        "answer": "ask -> accept",
        "windows": "[] -> [daily 22:00-06:00 UTC]",
        "budgets.disk_gb": "50 -> null",
    }


def test_a_saved_policy_counts_at_the_next_look_and_is_noted(
    file: Path, records: Records, caplog: pytest.LogCaptureFixture
) -> None:
    watch = PolicyWatch(file, records, ManualClock())
    assert watch.current().policy.answer == "accept"
    save(file, GOOD.replace("accept", "refuse"))
    with caplog.at_level(logging.INFO, logger="participant"):
        assert watch.current().policy.answer == "refuse"
        watch.current()
    assert [record.getMessage() for record in caplog.records] == ["policy changed"]
    assert caplog.records[0].__dict__["changes"] == ["answer: accept -> refuse"]
    loaded, changed = records.events()
    assert (loaded.event, changed.event) == ("policy loaded", "policy changed")
    assert changed.fields == {"digest": watch.current().digest, "changes": {"answer": "accept -> refuse"}}


def test_a_broken_file_keeps_the_last_good_policy_and_says_so_once(
    file: Path, records: Records, caplog: pytest.LogCaptureFixture
) -> None:
    watch = PolicyWatch(file, records, ManualClock())
    save(file, "answer: perhaps\n")
    with caplog.at_level(logging.INFO, logger="participant"):
        for _ in range(3):
            assert watch.current().policy.answer == "accept"
    assert [record.getMessage() for record in caplog.records] == ["policy rejected"]
    assert watch.problem == f"{file}:1: answer: expected 'accept', 'refuse' or 'ask', got 'perhaps'."
    save(file, GOOD)
    assert watch.current().policy.answer == "accept"
    assert watch.problem == ""
    assert [event.event for event in records.events()] == ["policy loaded", "policy rejected", "policy changed"]


def test_a_file_that_is_gone_for_a_while_changes_nothing(file: Path, records: Records) -> None:
    watch = PolicyWatch(file, records, ManualClock())
    file.unlink()
    assert watch.current().policy.answer == "accept"
    assert "expected a file to read, got: no such file or directory" in watch.problem
    file.write_text(GOOD)
    assert watch.current().policy.answer == "accept"
    assert watch.problem == ""


def test_saving_the_same_policy_with_another_comment_is_no_change(file: Path, records: Records) -> None:
    watch = PolicyWatch(file, records, ManualClock())
    save(file, "# ours\n" + GOOD)
    assert watch.current().lines["answer"] == 3
    assert [event.event for event in records.events()] == ["policy loaded"]


def test_a_restart_notes_the_policy_only_if_it_is_another_one(file: Path, records: Records) -> None:
    for text, expected in ((GOOD, 1), (GOOD, 1), (GOOD + "max_rounds: 7\n", 2)):
        file.write_text(text)
        PolicyWatch(file, records, ManualClock())
        assert len(records.events()) == expected


def test_a_daemon_does_not_start_with_a_broken_policy(file: Path, records: Records) -> None:
    file.write_text("answer: perhaps\n")
    with pytest.raises(InvalidConfiguration, match="answer: expected"):
        PolicyWatch(file, records, ManualClock())
