"""Copies of private text are found wherever they lie, and removed when nobody reads them."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from common.clock import rfc3339
from common.errors import DataInUse, UnknownObject
from participant.bench.alone import FOLDER
from participant.bench.token_files import ALONE, purge, runs_with_tokens
from participant.config import HomeLayout
from participant.memory.orders import Order, Orders

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def layout(tmp_path: Path) -> HomeLayout:
    made = HomeLayout(tmp_path)
    for run in ("one-a", "one-b", "two-c"):
        job = made.jobs / run
        for name in ("tokens/3f/train.tokens", "tokens/3f/facts.json", "tokens/.unfinished-x/train.tokens"):
            (job / name).parent.mkdir(parents=True, exist_ok=True)
            (job / name).write_bytes(b"x" * 100)
        for name in ("plan.json", "base.safetensors", "snapshots/round-1/rank-0.safetensors"):
            (job / name).parent.mkdir(parents=True, exist_ok=True)
            (job / name).write_bytes(b"y")
    return made


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def running(layout: HomeLayout, activity: str) -> None:
    layout.status.write_text(json.dumps({"pid": os.getpid(), "activity": activity}))


def pause(layout: HomeLayout, *, now: bool, until: datetime | None = None) -> None:
    orders = Orders(layout.journal)
    orders.give(Order("pause", {"until": rfc3339(until) if until else "", "now": now}, rfc3339(NOW)))
    orders.close()


def test_token_files_of_one_run_go_and_what_was_learned_stays(layout: HomeLayout) -> None:
    assert runs_with_tokens(layout) == ("one-a", "one-b", "two-c")
    removed = purge(layout, "one-a", NOW)
    assert [(each.what, each.files, each.bytes) for each in removed] == [(layout.jobs / "one-a" / "tokens", 3, 300)]
    assert names(layout.jobs / "one-a") == ["base.safetensors", "plan.json", "snapshots/round-1/rank-0.safetensors"]
    assert runs_with_tokens(layout) == ("one-b", "two-c")
    assert purge(layout, "two", NOW)[0].bytes == 300
    assert purge(layout, "two", NOW) == ()


def test_a_run_is_named_by_a_unique_beginning(layout: HomeLayout) -> None:
    with pytest.raises(UnknownObject, match="'one': several runs begin so; runs here: one-a, one-b"):
        purge(layout, "one", NOW)
    with pytest.raises(UnknownObject, match="'x': no such run has a job folder here; runs here: one-a, one-b, two-c"):
        purge(layout, "x", NOW)
    with pytest.raises(UnknownObject):
        purge(layout, "../one-a", NOW)


def test_all_copies_are_those_of_every_run_and_what_the_worker_left_behind(layout: HomeLayout, tmp_path: Path) -> None:
    for name in ("jobs/scratch/tmp1", "jobs/core.7", "jobs/.cache/x", ".check-ab/tmp", "alone/jobs/one-a/tokens/t"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"z" * 10)
    layout.logs.mkdir()
    for name in ("worker.log", "worker.log.1", "other.log"):
        (layout.logs / name).write_bytes(b"log")
    residual = layout.residuals / "one-a" / "3.f32"
    residual.parent.mkdir(parents=True)
    residual.write_bytes(b"1234")
    purge(layout, "one-a", NOW)
    assert residual.exists()  # as snapshots, it stays while its run may go on
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "text.txt").write_text("kept")
    (layout.jobs / "link").symlink_to(outside)
    removed = purge(layout, None, NOW)
    assert sum(each.bytes for each in removed if each.what.name != "link") == 600 + 50 + 6 + 4
    assert not layout.residuals.exists()
    assert (outside / "text.txt").exists()
    assert runs_with_tokens(layout) == ()
    assert [name for name in names(layout.jobs) if "safetensors" not in name] == [
        "one-a/plan.json",
        "one-b/plan.json",
        "two-c/plan.json",
    ]
    assert not [*tmp_path.glob(".check-*"), *tmp_path.glob("alone")]
    assert [(layout.logs / name).stat().st_size for name in ("worker.log", "worker.log.1", "other.log")] == [0, 0, 3]
    assert purge(layout, None, NOW) == ()


def test_what_a_running_daemon_works_on_is_refused(layout: HomeLayout) -> None:
    running(layout, "training")
    for run in ("one-a", None):
        with pytest.raises(DataInUse, match=rf"The daemon \(process {os.getpid()}\) works on one-a") as caught:
            purge(layout, run, NOW)
        assert "pause --now" in caught.value.fix
    pause(layout, now=False)
    with pytest.raises(DataInUse, match="was told to pause and still says: training"):
        purge(layout, "one-a", NOW)
    assert len(runs_with_tokens(layout)) == 3


def test_paused_at_once_it_is_removed_as_soon_as_the_daemon_says_so(layout: HomeLayout) -> None:
    running(layout, "training")
    pause(layout, now=True, until=NOW + timedelta(hours=1))
    with pytest.raises(DataInUse, match="was told to pause and still says: training"):
        purge(layout, "one-a", NOW)
    running(layout, "paused")
    with pytest.raises(DataInUse, match="works on one-a"):
        purge(layout, "one-a", NOW + timedelta(hours=2))
    assert purge(layout, "one-a", NOW)


def test_a_daemon_that_stopped_or_died_is_in_nobody_s_way(layout: HomeLayout) -> None:
    layout.status.write_text(json.dumps({"pid": 2**22 + 1, "activity": "training"}))
    assert purge(layout, "one-a", NOW)
    running(layout, "stopped")
    assert purge(layout, "one-b", NOW)


def test_the_folder_of_gain_is_known() -> None:
    assert ALONE == FOLDER


def test_a_home_without_jobs_holds_no_copies(tmp_path: Path) -> None:
    assert purge(HomeLayout(tmp_path), None, NOW) == ()
