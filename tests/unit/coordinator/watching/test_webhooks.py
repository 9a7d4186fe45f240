"""What webhooks are told, once each; that it is signed and bounded; and that a bad receiver costs nothing but notices."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import http.server
import json
import logging
import threading
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from common.clock import ManualClock
from common.errors import InvalidConfiguration, RefusalError
from coordinator.config import Webhook
from coordinator.watching import webhooks
from coordinator.watching.notices import Notice, NoticeWatch, Sources
from coordinator.watching.webhooks import Receiver, StallHandler, Webhooks, post_once, signature
from tests.support.coordinators import LEASE_SECONDS, Coordinator
from tests.support.participants import RUN

URL = "https://hooks.example.org/llmasos"
SECRET = b"0123456789abcdef0123456789abcdef"


@pytest.fixture
def watch(coordinator: Coordinator) -> NoticeWatch:
    sources = Sources(coordinator.ledger, coordinator.board, coordinator.views, coordinator.database)
    return NoticeWatch(sources, coordinator.clock)


def said(notices: list[Notice]) -> list[tuple[str, str, str, int]]:
    return [(each.event, each.code, each.institution, each.round) for each in notices]


# --- what is told -----------------------------------------------------------------------------------------------------------


def test_what_was_before_is_not_told(watch: NoticeWatch) -> None:
    assert watch.look() == []


def test_a_refusal_is_told_once_with_its_place_in_the_ledger(coordinator: Coordinator, watch: NoticeWatch) -> None:
    coordinator.open_round()
    for _ in range(2):
        with pytest.raises(RefusalError):
            coordinator["north"].contribute(num_tokens=2**29 - 1)
    (notice,) = watch.look()
    assert (notice.event, notice.institution, notice.run, notice.round) == ("refusal", "north", RUN, 1)
    assert notice.ledger_index == coordinator.state.refusal_list[-1][0].index
    assert "signed by north" in notice.text
    assert watch.look() == []


def test_the_end_of_a_run_is_told(coordinator: Coordinator, watch: NoticeWatch) -> None:
    coordinator.start_run(rounds=1)
    coordinator.play()
    assert ("run-ended", "rounds-done", "", 2) in said(watch.look())


def test_who_joins_is_told(coordinator: Coordinator, watch: NoticeWatch) -> None:
    coordinator.enrol("west")
    assert said(watch.look()) == [("membership", "joined", "west", 0)]


def test_an_institution_that_is_silent_is_told_once_a_round(coordinator: Coordinator, watch: NoticeWatch) -> None:
    coordinator.open_round(deadline_seconds=3600)
    watch.look()
    assert watch.look() == []
    coordinator.clock.advance(seconds=LEASE_SECONDS + 1)
    silent = [("stall", "institution-silent", name, 1) for name in ("east", "north", "south")]
    assert said(watch.look()) == silent
    assert watch.look() == []


def test_a_round_past_its_deadline_without_a_seal_is_told(coordinator: Coordinator, watch: NoticeWatch) -> None:
    coordinator.open_round(deadline_seconds=900)
    watch.look()
    coordinator.clock.advance(seconds=905)
    assert ("stall", "round-overdue", "", 1) not in said(watch.look())
    coordinator.clock.advance(seconds=10)
    assert ("stall", "round-overdue", "", 1) in said(watch.look())
    coordinator.advance()
    assert said(watch.look()) == []


def test_certificates_are_told_seven_days_and_one_day_before_their_end_and_after_it(
    coordinator: Coordinator, watch: NoticeWatch
) -> None:
    codes = []
    for days in (357, 2, 4, 1.5, 1):
        coordinator.clock.advance(seconds=timedelta(days=days).total_seconds())
        found = [each for each in watch.look() if each.institution == "north"]
        codes.append([each.code for each in found])
        assert all(each.event == "certificate-expiry" for each in found)
    assert codes == [[], ["expires-in-7-days"], [], ["expires-in-1-day"], ["expired"]]


def test_an_invitation_is_told_as_its_end_comes_near_not_when_it_is_made(
    coordinator: Coordinator, watch: NoticeWatch
) -> None:
    coordinator.invite("west", hours=48)
    codes = []
    for hours in (1, 20, 10, 20):
        coordinator.clock.advance(seconds=hours * 3600)
        codes.append([each.code for each in watch.look() if each.event == "invitation-expiry"])
    assert codes == [[], [], ["expires-in-1-day"], ["expired"]]


def test_a_run_that_the_engine_cannot_move_is_told_once_for_each_code() -> None:
    told: list[Notice] = []
    handler = StallHandler(told.append)
    logger = logging.getLogger(StallHandler.LOGGER)
    logger.addHandler(handler)
    try:
        for code in ("storage-failure", "storage-failure", "missing-blob"):
            logger.error("run stalled", extra={"run": RUN, "code": code, "error": "/secret/path"})
        logger.error("round cannot be aggregated", extra={"run": RUN, "error": "x"})
    finally:
        logger.removeHandler(handler)
    assert [(each.event, each.code, each.run) for each in told] == [
        ("stall", "storage-failure", RUN),
        ("stall", "missing-blob", RUN),
    ]
    assert "/secret" not in told[0].text


# --- how it is sent ---------------------------------------------------------------------------------------------------------


class Stopping(threading.Event):
    """Waits no time, and remembers for how long it should have."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        return self.is_set()


def receiver(*replies: int | Exception, hook: Webhook | None = None) -> tuple[Receiver, list[Any], Stopping]:
    sent: list[urllib.request.Request] = []
    answers = iter(replies)

    def post(request: urllib.request.Request) -> int:
        sent.append(request)
        reply = next(answers)
        if isinstance(reply, Exception):
            raise reply
        return reply

    stopping = Stopping()
    return Receiver(hook or Webhook(url=URL), stopping, post), sent, stopping


def test_a_body_is_signed_with_the_secret(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(SECRET + b"\n")
    one, sent, _ = receiver(204, hook=Webhook(url=URL, secret_file=tmp_path / "secret"))
    assert one.deliver("refusal", b'{"code": "x"}')
    expected = "sha256=" + hmac.new(SECRET, b'{"code": "x"}', hashlib.sha256).hexdigest()
    assert sent[0].get_header("Llmasos-signature") == expected == signature(SECRET, b'{"code": "x"}')
    assert sent[0].get_header("Llmasos-event") == "refusal"
    assert sent[0].get_method() == "POST"


def test_a_receiver_that_is_away_is_asked_again_with_growing_pauses(caplog: pytest.LogCaptureFixture) -> None:
    one, sent, stopping = receiver(
        ConnectionRefusedError(), http.client.BadStatusLine("x"), 503, 302, 429, 500, 500, 500
    )
    assert not one.deliver("stall", b"{}")
    assert stopping.waits == [1, 2, 4, 8, 16, 32, 60]
    assert len(sent) == webhooks.ATTEMPTS
    assert caplog.records[-1].getMessage() == "webhook given up"
    assert caplog.records[-1].__dict__["host"] == "hooks.example.org"


def test_a_receiver_that_does_not_want_it_is_not_asked_again() -> None:
    one, sent, _ = receiver(410)
    assert not one.deliver("stall", b"{}")
    assert len(sent) == 1


def test_what_waits_is_bounded_and_the_oldest_gives_way(caplog: pytest.LogCaptureFixture) -> None:
    one, _, _ = receiver()
    for number in range(webhooks.QUEUE + 3):
        one.offer("refusal", str(number).encode())
    assert len(one._queue) == webhooks.QUEUE
    assert one._queue[0] == ("refusal", b"3")
    assert [record.getMessage() for record in caplog.records] == ["webhook notice dropped"] * 3


def test_only_the_events_that_a_webhook_asks_for_are_queued() -> None:
    one, _, _ = receiver(hook=Webhook(url=URL, events=("stall",)))
    one.offer("refusal", b"{}")
    one.offer("stall", b"{}")
    assert [event for event, _ in one._queue] == ["stall"]


@pytest.mark.parametrize("content", [None, b"", b"short", b"x" * 5000])
def test_a_secret_file_must_hold_a_secret(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    with pytest.raises(InvalidConfiguration, match=r"webhooks: secret_file .*secret (cannot be read|holds \d+ bytes)"):
        receiver(hook=Webhook(url=URL, secret_file=tmp_path / "secret"))


@pytest.mark.parametrize(
    "url", ["http://hooks.example.org/x", "http://10.0.0.1/x", "https:///x", "ftp://x/", "https://["]
)
def test_an_address_that_is_none_or_unprotected_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        Webhook(url=url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9000/x", "http://localhost/x", "http://[::1]:1/x", URL])
def test_http_stays_on_this_machine(url: str) -> None:
    assert Webhook(url=url).url == url


# --- over a socket ----------------------------------------------------------------------------------------------------------


class Listener(http.server.BaseHTTPRequestHandler):
    bodies: list[dict[str, Any]]
    status = 200

    def do_POST(self) -> None:
        self.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.status)
        self.send_header("Location", f"http://127.0.0.1:{self.server.server_address[1]}/elsewhere")
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        return


@pytest.fixture
def listener() -> Iterator[tuple[str, type[Listener]]]:
    handler = type("Handler", (Listener,), {"bodies": []})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/hook", handler
        server.shutdown()
        thread.join()


def test_a_redirect_is_not_followed(listener: tuple[str, type[Listener]]) -> None:
    url, handler = listener
    handler.status = 302
    assert post_once(urllib.request.Request(url, data=b"{}", method="POST")) == 302
    assert len(handler.bodies) == 1


def test_a_notice_arrives_as_json_and_the_threads_end(
    coordinator: Coordinator, watch: NoticeWatch, listener: tuple[str, type[Listener]]
) -> None:
    url, handler = listener
    arrived = threading.Event()

    def post(request: urllib.request.Request) -> int:
        status = post_once(request)
        arrived.set()
        return status

    hooks = Webhooks((Webhook(url=url),), watch, coordinator.ledger, ManualClock(), post=post)
    hooks.start()
    try:
        coordinator.enrol("west")
        assert arrived.wait(30)
    finally:
        hooks.stop()
    (body,) = handler.bodies
    assert len(body.pop("id")) == 16
    assert body == {
        "at": "2026-01-01T00:00:00.000Z",
        "consortium": coordinator.state.genesis.consortium,
        "event": "membership",
        "code": "joined",
        "institution": "west",
        "run": "",
        "round": 0,
        "ledger_index": coordinator.state.size - 1,
        "text": "west joined the consortium.",
    }
    assert not any(thread.is_alive() for thread in hooks._threads)
