"""Events with fields, as text and JSON, and what never reaches a log."""

from __future__ import annotations

import io
import json
import logging
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.logs import PACKAGES, configure, get_logger


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Logging is the process's: put back what a test configures."""
    root = logging.getLogger()
    before = (root.level, {name: logging.getLogger(name).level for name in PACKAGES})
    yield
    for handler in [item for item in root.handlers if item.get_name() == "llmasos"]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(before[0])
    for name, level in before[1].items():
        logging.getLogger(name).setLevel(level)


def logged(event: str, /, *, format: str = "json", **extra: object) -> str:
    stream = io.StringIO()
    configure(stream=stream, format="json" if format == "json" else "text")
    get_logger("coordinator.rounds").info(event, extra=extra)
    return stream.getvalue()


def test_an_event_is_one_json_object_with_its_fields() -> None:
    entry = json.loads(logged("round sealed", run="tiny-3fa201", round=3, cohort=("a", "b"), late=None))
    assert entry.pop("at").endswith("Z")
    assert entry == {
        "level": "info",
        "logger": "coordinator.rounds",
        "event": "round sealed",
        "run": "tiny-3fa201",
        "round": 3,
        "cohort": ["a", "b"],
        "late": None,
    }


def test_an_event_is_one_line_of_text() -> None:
    line = logged("round sealed", format="text", run="tiny-3fa201", reason="all in", cohort=["a"], round=3)
    assert line.endswith(
        ' INFO    coordinator.rounds: round sealed  run=tiny-3fa201 reason="all in" cohort=["a"] round=3\n'
    )


def test_what_a_library_puts_on_each_record_is_no_field() -> None:
    assert "_librarys_mark" not in logged("round sealed", _librarys_mark=1, round=3)


def test_a_peers_line_break_forges_no_line() -> None:
    line = logged("refused", format="text", detail="x\n2026-01-01T00:00:00.000Z INFO fake", code="\x1b[2J")
    assert line.count("\n") == 1
    assert r"\n2026" in line
    assert "\x1b" not in line


class Key:
    def __repr__(self) -> str:
        return "hunter2"


def test_objects_and_bytes_show_their_kind_only() -> None:
    entry = json.loads(logged("x", thing=Key(), blob=b"hunter2", many=list(range(40)), long="y" * 600))
    assert entry["thing"] == "<Key>"
    assert entry["blob"] == "<7 bytes>"
    assert entry["many"][-1] == "and 8 more"
    assert entry["long"] == "y" * 500 + "…"


@pytest.mark.parametrize(
    "name", ["secret", "token", "api_token", "signing_key", "password", "invitation", "text", "private_pem"]
)
def test_fields_named_like_secrets_are_withheld(name: str) -> None:
    output = logged("x", **{name: "hunter2"})
    assert "hunter2" not in output
    assert json.loads(output)[name] == "[withheld]"


def test_counts_of_tokens_are_no_secrets() -> None:
    entry = json.loads(logged("x", tokens=5, num_tokens=7))
    assert (entry["tokens"], entry["num_tokens"]) == (5, 7)


def test_an_extra_cannot_replace_what_the_record_says() -> None:
    assert json.loads(logged("x", level="fake", event="fake"))["event"] == "x"


def test_libraries_are_heard_from_warning_on() -> None:
    stream = io.StringIO()
    configure(stream=stream)
    logging.getLogger("sqlalchemy").info("chatter")
    logging.getLogger("sqlalchemy").warning("trouble")
    assert "chatter" not in stream.getvalue()
    assert "trouble" in stream.getvalue()


def test_a_level_is_ours_to_choose() -> None:
    stream = io.StringIO()
    configure(stream=stream, level="WARNING")
    get_logger("common.x").info("quiet")
    get_logger("common.x").warning("heard")
    assert "quiet" not in stream.getvalue()
    assert "heard" in stream.getvalue()
    with pytest.raises(ValueError, match="LOUD"):
        configure(stream=stream, level="loud")


def test_configuring_again_replaces_and_does_not_repeat() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure(stream=first)
    configure(stream=second)
    get_logger("common.x").info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1


def test_a_log_file_is_its_owners_and_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "agent.log"
    for number in range(2):
        configure(file=path)
        get_logger("participant.x").info("started", extra={"number": number})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_text().splitlines()) == 2


def test_an_exceptions_traceback_goes_along() -> None:
    stream = io.StringIO()
    configure(stream=stream, format="json")
    try:
        raise ValueError("inside")
    except ValueError:
        get_logger("common.x").exception("failed")
    assert "ValueError: inside" in json.loads(stream.getvalue())["traceback"]
