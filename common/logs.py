"""Logs are events with fields: a fixed phrase, and `extra` for what changes.

    log = get_logger(__name__)
    log.info("round sealed", extra={"run": "tiny-3fa201", "round": 3, "deltas": 4})

    2026-11-21T22:12:00.000Z INFO    coordinator.rounds: round sealed  run=tiny-3fa201 round=3 deltas=4
    {"at": "2026-11-21T22:12:00.000Z", "level": "info", "logger": "coordinator.rounds", "event": "round sealed", …}

INFO is a protocol event, WARNING a peer's fault that was tolerated, ERROR what an operator must act on. Values are short text
and numbers only: whatever else is given, a tensor or a key object, shows as its type's name, and fields named like secrets
show as `[withheld]`.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import sys
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Literal, TextIO

from common.clock import rfc3339

LogFormat = Literal["text", "json"]
PACKAGES = ("common", "coordinator", "participant", "llmasos")
MAX_TEXT = 500
MAX_ITEMS = 32
FILE_BYTES = 16 * 1024 * 1024
FILES_KEPT = 3

_SECRET_WORDS = ("secret", "password", "passphrase", "private", "credential", "invitation_text")
_SECRET_NAMES = frozenset({"key", "token", "tokens", "salt", "proof", "invitation", "text", "prompt"})
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def get_logger(name: str) -> logging.Logger:
    """The logger of a module: `get_logger(__name__)`."""
    return logging.getLogger(name)


def configure(
    *,
    stream: TextIO | None = None,
    file: Path | None = None,
    format: LogFormat = "text",
    level: str = "info",
) -> None:
    """Send our events to `stream` (stderr by default) or to a `file` of the owner's, 4 × 16 MiB at most.

    Libraries' loggers report from WARNING on. Called again, it replaces what it set before.

    Raises:
        ValueError: no such level.
    """
    handler: logging.Handler = logging.StreamHandler(stream or sys.stderr) if file is None else _PrivateFile(file)
    handler.setFormatter(_JsonFormatter() if format == "json" else _TextFormatter())
    handler.set_name("llmasos")
    root = logging.getLogger()
    for old in [item for item in root.handlers if item.get_name() == "llmasos"]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for package in PACKAGES:
        logging.getLogger(package).setLevel(level.upper())


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as `extra`, made safe to print. A name with `_` before it is a library's, as Ray's on each record."""
    found = record.__dict__.items()
    extra = {name: value for name, value in found if name not in _STANDARD and not name.startswith("_")}
    return {name: "[withheld]" if _is_secret(name, value) else _plain(value) for name, value in extra.items()}


def _is_secret(name: str, value: object) -> bool:
    if value is None or isinstance(value, bool | int | float):
        return False  # a count of tokens, say
    lowered = name.lower()
    secret_ending = lowered.endswith(("_key", "_token"))
    return lowered in _SECRET_NAMES or secret_ending or any(word in lowered for word in _SECRET_WORDS)


def _plain(value: object) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return str(value) if len(value) <= MAX_TEXT else str(value[:MAX_TEXT]) + "…"
    if isinstance(value, list | tuple | set | frozenset):
        items = [_plain(item) for item in list(value)[:MAX_ITEMS]]
        return items if len(value) <= MAX_ITEMS else [*items, f"and {len(value) - MAX_ITEMS} more"]
    if isinstance(value, Path | datetime):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    return f"<{type(value).__name__}>"


def _moment(record: logging.LogRecord) -> str:
    return rfc3339(datetime.fromtimestamp(record.created, UTC))


class _TextFormatter(logging.Formatter):
    """One line an event; a traceback, if there is one, on the lines after."""

    def format(self, record: logging.LogRecord) -> str:
        pairs = " ".join(f"{name}={self._value(value)}" for name, value in fields(record).items())
        event = self._value(record.getMessage(), spaces=True)
        line = f"{_moment(record)} {record.levelname:<7} {record.name}: {event}{'  ' + pairs if pairs else ''}"
        return line + ("\n" + self.formatException(record.exc_info) if record.exc_info else "")

    @staticmethod
    def _value(value: object, *, spaces: bool = False) -> str:
        """As it is where that is one readable word, else quoted: a peer's line breaks forge no log lines."""
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if (
            text.isprintable()
            and text
            and (spaces or (" " not in text and '"' not in text) or not isinstance(value, str))
        ):
            return text
        return json.dumps(text)


class _JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "at": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        entry |= {name: value for name, value in fields(record).items() if name not in entry}
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


class _PrivateFile(logging.handlers.RotatingFileHandler):
    """A rotating file that only its owner reads."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=FILE_BYTES, backupCount=FILES_KEPT, encoding="utf-8")

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return open(descriptor, "a", encoding="utf-8")
