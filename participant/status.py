"""status.json: what the daemon does, for `llmasos-participant status` and for whoever looks into the home folder."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from pathlib import Path
from typing import Any

from common.clock import Clock, rfc3339
from common.errors import StorageFailure
from common.homes import atomic_write
from common.logs import get_logger

log = get_logger(__name__)

GATHER_SECONDS = 0.2
"""A daemon's changes that follow each other so soon are written at once: a short round has a dozen."""


class StatusFile:
    """Written at each change, or changes that follow each other within `gather_seconds` at once; thread-safe."""

    def __init__(self, path: Path, clock: Clock, gather_seconds: float = 0.0) -> None:
        self._path = path
        self._clock = clock
        self._gather_seconds = gather_seconds
        self._lock = threading.Lock()
        self._written_at = -math.inf
        self._later: threading.Timer | None = None
        self._fields: dict[str, Any] = {"pid": os.getpid(), "connection": "connecting", "activity": "starting"}

    def doing(self, activity: str, **fields: str | int) -> None:
        """The agent's activity, with run, round and deadline where there are any."""
        self._change({"activity": activity, "run": "", "round": 0, "deadline": "", **fields})

    def connection(self, state: str, reason: str = "") -> None:
        """`connected`, or `unreachable`, with what stands in the way where that is known."""
        self._change({"connection": state, "connection_reason": reason})

    def connection_fault(self) -> str | None:
        """What keeps the participant from its coordinator (a health check)."""
        state, reason = self._fields["connection"], self._fields.get("connection_reason", "")
        return None if state == "connected" else f"The connection to the coordinator is {state}. {reason}".rstrip()

    def worker(self, **fields: str | int | bool) -> None:
        """What is known of the worker."""
        self._change({"worker": fields})

    def tell(self, **fields: Any) -> None:
        """Whatever else is to be shown: JSON values by name."""
        self._change(fields)

    def stopped(self) -> None:
        after = {"connection": "closed", "run": "", "round": 0, "deadline": "", "rounds_held": [], "transfer": None}
        activity = "left" if self._fields["activity"] == "left" else "stopped"
        self._gather_seconds = 0.0
        self._change({"activity": activity, **after})

    def _change(self, fields: dict[str, Any]) -> None:
        with self._lock:
            after = {**self._fields, **fields}
            if after == self._fields and (self._later is not None or self._path.exists()):
                return
            self._fields, self._changed_at = after, rfc3339(self._clock.now())
            wait = self._written_at + self._gather_seconds - time.monotonic()
            if wait <= 0:
                self._write()
            elif self._later is None:
                self._later = threading.Timer(wait, self._write_later)
                self._later.daemon = True
                self._later.start()

    def _write_later(self) -> None:
        with self._lock:
            if self._later is None:
                return
            try:
                self._write()
            except StorageFailure as err:
                log.warning("status cannot be written", extra={"error": err.message})

    def _write(self) -> None:
        self._later, self._written_at = None, time.monotonic()
        # Not synced: it says what a process does now, and after a loss of power there is none.
        atomic_write(self._path, _text({**self._fields, "changed_at": self._changed_at}).encode(), durable=False)


def _text(fields: dict[str, Any]) -> str:
    """JSON, a line for each field: `indent` would have Python do what its C encoder does faster."""
    return "{\n" + ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in fields.items()) + "\n}\n"


def read_status(path: Path) -> dict[str, Any]:
    """The last status; `running` says whether its process is there."""
    if not path.exists():
        return {"activity": "never started", "running": False}
    fields: dict[str, Any] = json.loads(path.read_text())
    fields["running"] = fields.get("activity") not in ("stopped", "left") and _alive(int(fields.get("pid", 0)))
    return fields


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 0
