"""RunLogs over a real connection: what is told, and that nobody's thread is held for a reader who left."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from common.errors import UnknownObject
from coordinator.ports import CoordinatorStatus, LogLine
from tests.support.api import Scene, until

LINES = [
    LogLine("2026-01-01T00:00:00.000Z", 0, "", "plan-sent", "tiny: 2 rounds"),
    LogLine("2026-01-01T00:00:01.000Z", 1, "north", "activity", "training"),
]


def test_lines_come_in_order_and_what_says_nothing_is_not_sent(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def logs(run: str, institution: str, *, follow: bool) -> Iterator[LogLine | None]:
        assert (run, institution, follow) == ("tiny", "north", True)
        yield from (LINES[0], None, None, LINES[1])

    monkeypatch.setattr(scene.ports.views, "logs", logs)
    assert list(scene.session("ops").logs("tiny", "north", follow=True)) == LINES


def test_a_reader_who_leaves_frees_the_thread(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def logs(run: str, institution: str, *, follow: bool) -> Iterator[LogLine | None]:
        try:
            yield LINES[0]
            while True:
                yield None
        finally:
            ended.set()

    monkeypatch.setattr(scene.ports.views, "logs", logs)
    stream = scene.session("ops").logs("tiny", follow=True)
    assert next(stream) == LINES[0]
    stream.close()
    until(ended.is_set)
    until(lambda: scene.listeners.open_calls == 0)


def test_a_run_that_is_not_there_is_named(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def logs(run: str, institution: str, *, follow: bool) -> Iterator[LogLine | None]:
        raise UnknownObject("No run begins with 'big'.")

    monkeypatch.setattr(scene.ports.views, "logs", logs)
    with pytest.raises(UnknownObject, match=r"No run begins with 'big'\."):
        next(scene.session("ops").logs("big"))


def test_whoever_follows_the_ledger_is_heard(scene: Scene) -> None:
    scene.session("north").follow(from_index=0, wait_seconds=0)
    assert scene.ports.board.last_heard == "north"


def test_the_status_comes_whole(scene: Scene) -> None:
    scene.ports.views.of_status = CoordinatorStatus(
        consortium="hospitals",
        version="0.1.0",
        started_at="2026-01-01T00:00:00.000Z",
        now="2026-01-01T01:00:00.000Z",
        ledger_size=12,
        members_active=4,
        trainers_connected=3,
        runs_active=1,
        blob_bytes=2**40,
        disk_free_bytes=2**41,
        certificate_expires_at="2027-01-01T00:00:00.000Z",
        authority_expires_at="2036-01-01T00:00:00.000Z",
        open_calls=7,
        fingerprint="ab" * 32,
    )
    assert scene.session("ops").status() == scene.ports.views.of_status
