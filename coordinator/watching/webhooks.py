"""Webhooks: a POST with a small JSON object for each notice (docs/operations.md#webhooks).

    notices ──▶ one bounded queue for each webhook ──▶ POST, again after 1, 2, 4, … seconds, then given up

    POST /hook HTTP/1.1
    LLMasOS-Event: stall
    LLMasOS-Signature: sha256=…                 HMAC-SHA-256 of the body under the webhook's secret
    {"at": "2026-11-21T22:12:00.000Z", "code": "institution-silent", "event": "stall", "id": "…", …}

All of it happens on threads of its own: a receiver that is slow, gone or hostile costs notices, never a round. No redirect is
followed, a reply's body is not read, and http goes to loopback only (coordinator.config.Webhook).

urllib and not a client library: one POST with a time-out needs no dependency in a process that holds the consortium's keys.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import logging
import secrets
import threading
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from common.clock import Clock, rfc3339
from common.errors import InvalidConfiguration, LLMasOSError
from common.logs import get_logger
from common.wire.channel import is_loopback
from coordinator.config import Webhook
from coordinator.ledger import Ledger
from coordinator.watching.notices import Notice, NoticeWatch

log = get_logger(__name__)

QUEUE = 256
"""Notices that wait for one receiver; the oldest gives way."""
ATTEMPTS = 8
FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 60.0
POST_SECONDS = 10.0
LOOK_SECONDS = 1.0
STOP_SECONDS = 2.0
MIN_SECRET_BYTES = 16
MAX_SECRET_BYTES = 4096
FINAL_STATUS = frozenset(range(400, 500)) - {408, 425, 429}
"""The receiver understood and does not want it: asking again changes nothing."""

Post = Callable[[urllib.request.Request], int]
"""Sends a request; the reply's status. Raises OSError or http.client.HTTPException when there is none."""


class Webhooks:
    """Every webhook of a coordinator. `start`, then `stop`.

    Raises:
        InvalidConfiguration: a secret file cannot be read or holds no secret.
    """

    def __init__(
        self, hooks: Sequence[Webhook], watch: NoticeWatch, ledger: Ledger, clock: Clock, *, post: Post | None = None
    ) -> None:
        self._consortium = ledger.state.genesis.consortium
        self._watch = watch
        self._ledger = ledger
        self._clock = clock
        self._stopping = threading.Event()
        self._receivers = [Receiver(hook, self._stopping, post or post_once) for hook in hooks]
        self._stalls = StallHandler(self.tell)
        self._threads = [
            threading.Thread(target=self._run, name="webhooks", daemon=True),
            *(threading.Thread(target=each.run, name="webhook", daemon=True) for each in self._receivers),
        ]

    def start(self) -> None:
        """Look and send until `stop`."""
        logging.getLogger(StallHandler.LOGGER).addHandler(self._stalls)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End; what could not be sent by now is dropped."""
        logging.getLogger(StallHandler.LOGGER).removeHandler(self._stalls)
        self._stopping.set()
        for receiver in self._receivers:
            receiver.wake()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(STOP_SECONDS)

    def tell(self, notice: Notice) -> None:
        """Put a notice into the queue of every webhook that asks for its kind; any thread, never blocks."""
        content = {
            "id": secrets.token_hex(8),
            "at": rfc3339(self._clock.now()),
            "consortium": self._consortium,
            **asdict(notice),
        }
        body = json.dumps(content, sort_keys=True, ensure_ascii=False).encode()
        for receiver in self._receivers:
            receiver.offer(notice.event, body)

    def _run(self) -> None:
        size = 0
        while not self._stopping.is_set():
            try:
                for notice in self._watch.look():
                    self.tell(notice)
            except LLMasOSError as err:
                log.error("notices not made", extra={"code": err.code, "error": err.message})
                self._stopping.wait(LOOK_SECONDS)
            size = self._ledger.wait_for_growth(max(size, self._ledger.state.size), LOOK_SECONDS)


class Receiver:
    """One webhook: its queue, and the thread that empties it.

    Raises:
        InvalidConfiguration: its secret file cannot be read or holds no secret.
    """

    def __init__(self, hook: Webhook, stopping: threading.Event, post: Post) -> None:
        self._hook = hook
        self._host = urlsplit(hook.url).hostname or ""
        self._secret = _read_secret(hook.secret_file) if hook.secret_file else None
        self._stopping = stopping
        self._post = post
        self._changed = threading.Condition()
        self._queue: deque[tuple[str, bytes]] = deque()

    def offer(self, event: str, body: bytes) -> None:
        """Queue a body, if this webhook asks for its event."""
        if event not in self._hook.events:
            return
        with self._changed:
            if len(self._queue) >= QUEUE:
                dropped, _ = self._queue.popleft()
                log.warning("webhook notice dropped", extra={"host": self._host, "notice": dropped, "queued": QUEUE})
            self._queue.append((event, body))
            self._changed.notify()

    def wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def run(self) -> None:
        """Send what is queued, in order, until told to stop."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._stopping.is_set())
                if self._stopping.is_set():
                    return
                event, body = self._queue.popleft()
            self.deliver(event, body)

    def deliver(self, event: str, body: bytes) -> bool:
        """Send one body, with retries; whether it was taken."""
        pause, problem = FIRST_RETRY_SECONDS, ""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                status = self._post(self._request(event, body))
            except (OSError, http.client.HTTPException) as err:
                status, problem = 0, type(err).__name__
            else:
                problem = f"HTTP {status}"
            if 200 <= status < 300:
                log.debug("webhook delivered", extra={"host": self._host, "notice": event})
                return True
            if status in FINAL_STATUS or attempt == ATTEMPTS or self._stopping.wait(pause):
                break
            pause = min(2 * pause, LONGEST_RETRY_SECONDS)
        log.warning("webhook given up", extra={"host": self._host, "notice": event, "problem": problem})
        return False

    def _request(self, event: str, body: bytes) -> urllib.request.Request:
        request = urllib.request.Request(self._hook.url, data=body, method="POST")
        request.add_header("Content-Type", "application/json")
        request.add_header("User-Agent", "llmasos")
        request.add_header("LLMasOS-Event", event)
        if self._secret is not None:
            request.add_header("LLMasOS-Signature", signature(self._secret, body))
        return request


class StallHandler(logging.Handler):
    """Makes the engine's event `run stalled` a notice, once for each run and code: nothing else says so."""

    LOGGER = "coordinator.rounds.engine"
    EVENT = "run stalled"

    def __init__(self, tell: Callable[[Notice], None]) -> None:
        super().__init__(logging.ERROR)
        self._tell = tell
        self._told: set[tuple[str, str]] = set()

    def emit(self, record: logging.LogRecord) -> None:
        run, code = str(getattr(record, "run", "")), str(getattr(record, "code", ""))
        if record.msg == self.EVENT and (run, code) not in self._told:
            self._told.add((run, code))
            self._tell(Notice("stall", code, f"Run {run} cannot go on: {code}. The coordinator's log says why.", run))


def signature(secret: bytes, body: bytes) -> str:
    """What stands in the header LLMasOS-Signature."""
    return "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()


def post_once(request: urllib.request.Request) -> int:
    """One POST; the status of the reply, whatever it is.

    Raises:
        OSError, http.client.HTTPException: no reply within POST_SECONDS, or none that is HTTP.
    """
    host = urlsplit(request.full_url).hostname or ""
    # Proxies as the environment names them, but never on the way to this machine.
    handlers: list[Any] = [_NoRedirects(), urllib.request.ProxyHandler({} if is_loopback(host) else None)]
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=POST_SECONDS) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as err:
        with err:
            return err.code


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the notice to a host that nobody configured."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _read_secret(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            secret = file.read(MAX_SECRET_BYTES + 1).strip()
    except OSError as err:
        raise InvalidConfiguration(
            f"webhooks: secret_file {path} cannot be read: {(err.strerror or str(err)).lower()}.",
            "Name a file that the coordinator's account may read.",
        ) from err
    if not MIN_SECRET_BYTES <= len(secret) <= MAX_SECRET_BYTES:
        raise InvalidConfiguration(
            f"webhooks: secret_file {path} holds {len(secret)} bytes, expected {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES}.",
            "Make one: openssl rand -hex 32 > FILE; chmod 600 FILE.",
        )
    return secret
