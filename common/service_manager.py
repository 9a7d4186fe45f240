"""What systemd is told: that the daemon is ready, that it lives, that it ends. Under another manager nothing is said.

READY=1 comes once, WATCHDOG=1 every third of the time that the unit's WatchdogSec allows while the daemon is alive, and
STOPPING=1 when it begins to end. Where the daemon hangs nothing comes any more, and systemd starts it again.

Source: sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping

from common.health import Health
from common.logs import get_logger

log = get_logger(__name__)

_SHARE = 3
"""Beats in the time that the manager waits for one."""


class ServiceManager:
    """`ready` once, then `stopping`.

    Args:
        environment: NOTIFY_SOCKET names the manager's socket, WATCHDOG_USEC how long it waits for a word.
    """

    def __init__(self, health: Health, environment: Mapping[str, str] | None = None) -> None:
        found = os.environ if environment is None else environment
        self._health = health
        self._address = found.get("NOTIFY_SOCKET", "")
        watched = found.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = found.get("WATCHDOG_USEC", "")
        self._beat_seconds = int(usec) / 1e6 / _SHARE if watched and usec.isdecimal() and int(usec) else None
        self._ended = threading.Event()

    def ready(self) -> None:
        """The daemon does its work from now on."""
        self._say("READY=1")
        if self._address and self._beat_seconds is not None:
            threading.Thread(target=self._watch, args=(self._beat_seconds,), name="watchdog", daemon=True).start()

    def stopping(self) -> None:
        """The daemon ends in order."""
        self._ended.set()
        self._say("STOPPING=1")

    def _watch(self, seconds: float) -> None:
        said = False
        while not self._ended.wait(seconds):
            faults = self._health.alive()
            if not faults:
                self._say("WATCHDOG=1")
                said = False
            elif not said:
                log.error("not alive", extra={"faults": list(faults)})
                said = True

    def _say(self, word: str) -> None:
        if not self._address:
            return
        # A name that begins with @ is of Linux's abstract name space, where a zero byte stands first.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
                connection.sendto(word.encode(), address)
        except OSError as error:
            log.warning("service manager not reached", extra={"word": word, "error": str(error)})
