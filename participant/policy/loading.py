"""policy.yaml, read with its line numbers, and watched: a policy counts from the moment it is saved."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from common.clock import Clock, rfc3339
from common.config import load_yaml_with_lines
from common.errors import InvalidConfiguration
from common.logs import get_logger
from common.plan.explain import show
from participant.memory.records import EVENTS_KEPT, Event, Records
from participant.policy.model import Policy

log = get_logger(__name__)

_FIX = "Correct it, then: llmasos-participant policy check FILE."
_Stamp = tuple[int, int, int] | None


@dataclass(frozen=True, slots=True)
class LoadedPolicy:
    """A policy, the line of each field that stands in its file, and the SHA-256 of that file."""

    policy: Policy
    lines: Mapping[str, int]
    digest: str


def load_policy(path: Path) -> LoadedPolicy:
    """The policy in a file.

    Raises:
        InvalidConfiguration: unreadable, empty, or a field is wrong; file, line, expected and got are named.
    """
    try:
        policy, lines, text = load_yaml_with_lines(path, Policy)
    except InvalidConfiguration as err:
        raise InvalidConfiguration(err.message, _FIX) from err
    if not lines:
        # An editor may empty a file before it fills it again; and nobody means "all defaults" by saying nothing.
        raise InvalidConfiguration(
            f"{path}:1: expected a policy, got an empty file.", "Write at least: apiVersion: llmasos/v1"
        )
    return LoadedPolicy(policy, lines, sha256(text.encode()).hexdigest())


def changes(before: Policy, after: Policy) -> dict[str, str]:
    """Fields that differ, by dotted name, as `old -> new`."""
    old, new = _flat(before.model_dump()), _flat(after.model_dump())
    return {name: f"{_shown(old[name])} -> {_shown(new[name])}" for name in old if old[name] != new[name]}


class PolicyWatch:
    """The policy as it stands now: `current` looks at the file each time, and reads it where it changed. Any thread.

    A broken file changes nothing: the last good policy counts on, and `problem` says what is wrong.

    Raises:
        InvalidConfiguration: the file is broken at the start, when there is no earlier policy to go on with.
    """

    def __init__(self, path: Path, records: Records, clock: Clock) -> None:
        self._path, self._records, self._clock = path, records, clock
        self._lock = threading.Lock()
        self._stamp = _stamp(path)
        self._current = load_policy(path)
        self._problem = ""
        self._note_start()

    @property
    def problem(self) -> str:
        """What is wrong with the file as it stands, with file and line; empty: it counts."""
        return self._problem

    def current(self) -> LoadedPolicy:
        """The newest good policy."""
        with self._lock:
            stamp = _stamp(self._path)
            if stamp != self._stamp:
                self._stamp = stamp
                self._reload()
            return self._current

    def _reload(self) -> None:
        try:
            loaded = load_policy(self._path)
        except InvalidConfiguration as err:
            if err.message != self._problem:
                self._problem = err.message
                log.error("policy rejected", extra={"error": err.message, "fix": err.fix})
                self._note("policy rejected", {"error": err.message})
            return
        changed = changes(self._current.policy, loaded.policy)
        if changed or self._problem:
            log.info("policy changed", extra={"changes": [f"{name}: {text}" for name, text in changed.items()]})
            self._note("policy changed", {"digest": loaded.digest, "changes": changed})
        self._current, self._problem = loaded, ""

    def _note_start(self) -> None:
        """Say under which policy this daemon begins, where it is another one than was noted last."""
        digest = self._current.digest
        log.info("policy loaded", extra={"file": str(self._path), "digest": digest})
        noted = [event.fields["digest"] for event in self._records.events(EVENTS_KEPT) if "digest" in event.fields]
        if not noted or noted[-1] != digest:
            self._note("policy loaded", {"digest": digest})

    def _note(self, event: str, fields: dict[str, Any]) -> None:
        self._records.note(Event(rfc3339(self._clock.now()), event, fields))


def _stamp(path: Path) -> _Stamp:
    """What changes when a file is saved; None: it is not there, or cannot be looked at."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else show(value)


def _flat(value: dict[str, Any], path: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, inner in value.items():
        if isinstance(inner, dict):
            result |= _flat(inner, f"{path}{name}.")
        else:
            result[path + name] = inner
    return result
