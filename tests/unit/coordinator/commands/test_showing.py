"""`run list`, `run show` and `status` for people."""

from __future__ import annotations

from datetime import UTC, timedelta

import pytest

from coordinator.commands.showing import ROUNDS_SHOWN, run_text
from coordinator.commands.status import status_text
from coordinator.ports import CoordinatorStatus
from tests.support.blobs import leaves_and_ref
from tests.unit.coordinator.commands.a_view import NOW, REFUSAL, a_round, a_view, measured

STATUS = CoordinatorStatus(
    consortium="hospitals",
    version="0.1.0",
    started_at="2026-01-01T07:02:41.000Z",
    now="2026-01-01T10:02:41.000Z",
    ledger_size=1234,
    members_active=4,
    trainers_connected=2,
    runs_active=1,
    blob_bytes=12_100_000,
    disk_free_bytes=70_000_000_000,
    certificate_expires_at="2026-02-01T10:02:41.000Z",
    authority_expires_at="2025-12-31T10:02:41.000Z",
    open_calls=7,
    fingerprint="ab" * 32,
)


def test_a_run_is_shown_in_full_within_80_columns() -> None:
    view = a_view(refusals=(REFUSAL,), model=leaves_and_ref(b"model")[1])
    lines = run_text(view, NOW, UTC).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[:6] == [
        "run     tiny-3f2a90",
        "plan    tiny, 8 training rounds",
        "quorum  3 contributions",
        "version 1 of the protocol",
        "phase   collecting",
        "round   3, opened 10:02, deadline 11:02",
    ]
    assert "cohort  east north south" in lines
    assert "  west                 refused: quorum-too-small budget" in lines
    assert "    2  train     committed      3/3        40 s     4.0 MB       50.00" in lines
    assert "    3  train     open           1/3                 4.0 MB           -" in lines
    assert "  north: contribution refused: non-finite-delta (usually a bug), round 2, signed" in lines


def test_an_abandoned_round_says_why_and_single_results_are_listed() -> None:
    rounds = (
        a_round(1, outcome="abandoned", reason="no-quorum"),
        a_round(2, evaluations=(measured(40.0), measured(30.0, "east"))),
    )
    text = run_text(a_view(rounds=rounds), NOW, UTC)
    assert "abandoned: no-quorum" in text
    assert "east 30.00" in text


def test_of_very_many_rounds_the_newest_are_shown() -> None:
    rounds = tuple(a_round(number) for number in range(1, ROUNDS_SHOWN + 11))
    text = run_text(a_view(rounds=rounds), NOW, UTC)
    assert "  ... 10 before; all of them with --format json" in text
    assert "\n   10  train" not in text


def test_a_run_without_institutions_and_rounds_says_so() -> None:
    text = run_text(a_view(participants=(), rounds=(), opened_at="", deadline=""), NOW, UTC)
    assert "none is enrolled as a trainer" in text
    assert "No round was opened yet." in text


def test_the_status_names_what_runs_out() -> None:
    lines = status_text(STATUS, "127.0.0.1:7443", NOW).splitlines()
    assert max(map(len, lines)) <= 80
    assert "release       0.1.0, running for 3 h" in lines
    assert "members       4 active, 2 trainers seen in the last minute" in lines
    assert "certificate   until 2026-02-01, in 31 days" in lines
    assert "authority     until 2025-12-31, EXPIRED" in lines
    assert lines[-1] == "clock         2026-01-01 10:02:41 UTC"


@pytest.mark.parametrize("seconds", [-600, 600])
def test_clocks_that_differ_are_named(seconds: float) -> None:
    text = status_text(STATUS, "127.0.0.1:7443", NOW + timedelta(seconds=seconds))
    assert text.endswith("UTC, 10 min apart from this machine's")
