"""Leases and live progress: by the clock that a test moves, in memory only."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from common.clock import rfc3339
from coordinator.ports import Activity
from coordinator.watching import activities, board
from tests.support.coordinators import LEASE_SECONDS, Coordinator
from tests.support.participants import RUN


def working(number: int = 1, **changes: int) -> Activity:
    return Activity(RUN, number, "training", steps_total=10, **changes)


def report(coordinator: Coordinator, name: str, activity: Activity) -> bool:
    return coordinator.board.report(coordinator[name].member, activity)


def lapsed(coordinator: Coordinator) -> tuple[str, ...]:
    return coordinator.board.lapsed(RUN, 1, coordinator.run.rounds[0].opened.cohort)


def test_a_lease_runs_from_the_rounds_opening(coordinator: Coordinator) -> None:
    coordinator.open_round()
    assert lapsed(coordinator) == ()
    coordinator.clock.advance(seconds=LEASE_SECONDS)
    assert lapsed(coordinator) == ()
    coordinator.clock.advance(seconds=0.001)
    assert lapsed(coordinator) == ("east", "north", "south")


def test_a_report_renews_its_senders_lease_alone(coordinator: Coordinator) -> None:
    coordinator.open_round()
    assert lapsed(coordinator) == ()
    coordinator.clock.advance(seconds=LEASE_SECONDS - 1)
    assert report(coordinator, "north", working())
    coordinator.clock.advance(seconds=2)
    assert lapsed(coordinator) == ("east", "south")


def test_a_report_of_another_round_or_run_renews_nothing(coordinator: Coordinator) -> None:
    coordinator.open_round()
    assert not report(coordinator, "north", working(2))
    assert not report(coordinator, "north", Activity("other", 1, "training"))
    assert coordinator.board.seen(RUN, 1, "north") is None


def test_whoever_is_not_in_the_cohort_holds_no_lease(coordinator: Coordinator) -> None:
    coordinator.open_round()
    coordinator.enrol("west")
    assert not report(coordinator, "west", working())
    assert coordinator.board.seen(RUN, 1, "west") is None


def test_a_report_learns_when_the_round_is_over(coordinator: Coordinator) -> None:
    current = coordinator.open_round()
    assert report(coordinator, "north", working())
    coordinator.ledger.seal(current.place.digest, "deadline-passed")
    assert not report(coordinator, "north", working())
    coordinator.advance()
    assert not report(coordinator, "north", working())


def test_after_a_restart_each_lease_begins_anew(coordinator: Coordinator) -> None:
    coordinator.open_round()
    assert lapsed(coordinator) == ()
    coordinator.clock.advance(seconds=2 * LEASE_SECONDS)
    coordinator.restart()
    assert lapsed(coordinator) == ()


def test_no_lease_keeps_a_round_open_past_its_deadline(coordinator: Coordinator) -> None:
    coordinator.open_round(quorum=2, deadline_seconds=100)
    for name in ("east", "north"):
        coordinator[name].contribute()
    coordinator.clock.advance(seconds=100)
    report(coordinator, "south", working())
    coordinator.advance()
    assert coordinator.run.rounds[0].closed is not None


def test_bytes_are_booked_on_the_open_round_of_the_member(coordinator: Coordinator) -> None:
    coordinator.open_round()
    coordinator.board.moved("north", down=100)
    coordinator.board.moved("north", down=10, up=7)
    coordinator.board.moved("operator", up=1000)
    assert coordinator.board.traffic(RUN, 1, "north") == (110, 7)
    assert coordinator.board.traffic(RUN, 1, "south") == (0, 0)
    assert coordinator.board.traffic(RUN, 1, "operator") == (0, 0)


def test_who_was_heard_of_and_when_is_remembered(coordinator: Coordinator) -> None:
    coordinator.open_round()
    assert coordinator.board.last_seen("north") is None
    report(coordinator, "north", working())
    coordinator.clock.advance(seconds=5)
    coordinator.board.moved("south", up=1)
    seen = {name: coordinator.board.last_seen(name) for name in ("north", "south")}
    assert [rfc3339(moment) for moment in seen.values() if moment] == [
        "2026-01-01T00:00:00.000Z",
        "2026-01-01T00:00:05.000Z",
    ]


def test_speed_is_smoothed_over_the_reports_of_a_round(coordinator: Coordinator) -> None:
    coordinator.open_round()

    def speed_after(tokens: int) -> float:
        report(coordinator, "north", working(tokens_done=tokens))
        seen = coordinator.board.seen(RUN, 1, "north")
        assert seen is not None
        return seen.tokens_per_second

    assert speed_after(0) == 0.0
    coordinator.clock.advance(seconds=2)
    assert speed_after(200) == pytest.approx(100.0)
    coordinator.clock.advance(seconds=5)
    assert speed_after(1200) == pytest.approx(150.0), "half way to 200 after half a window"
    assert speed_after(1200) == pytest.approx(150.0), "no time passed"
    coordinator.clock.advance(seconds=60)
    assert speed_after(1200) == pytest.approx(150.0), "evaluating: no tokens"
    coordinator.clock.advance(seconds=60)
    assert speed_after(7200) == pytest.approx(100.0), "a whole window: the newest counts"


def test_only_the_newest_rounds_are_remembered(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "ROUNDS_KEPT", 2)
    coordinator.open_round(rounds=4)
    for number in (1, 2, 3):
        report(coordinator, "north", working(number))
        coordinator.board.moved("north", up=7)
        for participant in coordinator.participants.values():
            participant.contribute()
        coordinator.advance()
    kept = [coordinator.board.traffic(RUN, number, "north") for number in (1, 2, 3)]
    assert kept[0] == (0, 0)
    assert kept[2] == (0, 7)
    assert coordinator.board.seen(RUN, 1, "north") is None
    assert len(coordinator.board._rounds._rounds) == 2


# --- away ----------------------------------------------------------------------------------------------------------------


def away(name: str = "outside-hours", until: str = "") -> Activity:
    return Activity(RUN, 1, name, available_at=until)  # type: ignore[arg-type]


def silent(coordinator: Coordinator, name: str) -> bool:
    return coordinator.board.silent(RUN, 1, name)


def test_who_is_back_before_the_deadline_is_waited_for_in_silence(coordinator: Coordinator) -> None:
    coordinator.open_round(deadline_seconds=3600)
    report(coordinator, "north", away(until="2026-01-01T00:30:00.000Z"))
    coordinator.clock.advance(seconds=1800 + LEASE_SECONDS)
    assert "north" not in lapsed(coordinator)
    assert not silent(coordinator, "north")
    coordinator.clock.advance(seconds=0.001)
    assert "north" in lapsed(coordinator), "the lease began anew when it said that it would be back"
    assert silent(coordinator, "north")


@pytest.mark.parametrize("until", ["2026-01-01T01:00:00.000Z", "2026-01-02T00:00:00.000Z"])
def test_who_is_back_at_the_deadline_or_later_is_not_waited_for(coordinator: Coordinator, until: str) -> None:
    coordinator.open_round(deadline_seconds=3600)
    report(coordinator, "north", away(until=until))
    assert lapsed(coordinator) == ("north",)
    coordinator.clock.advance(seconds=2 * LEASE_SECONDS)
    assert not silent(coordinator, "north"), "it said so: that is a state, not silence"


def test_a_round_goes_on_at_once_without_a_member_that_is_away_for_longer(coordinator: Coordinator) -> None:
    coordinator.open_round(quorum=2)
    report(coordinator, "north", away(until="2026-01-02T00:00:00.000Z"))
    for name in ("east", "south"):
        coordinator[name].contribute()
    coordinator.advance()
    closed = coordinator.run.rounds[0].closed
    assert closed is not None
    assert (closed.outcome, closed.reason) == ("committed", "leases-lapsed")


def test_a_pause_without_an_end_renews_no_lease_but_is_no_silence(coordinator: Coordinator) -> None:
    coordinator.open_round()
    report(coordinator, "north", working())
    for _ in range(3):
        coordinator.clock.advance(seconds=LEASE_SECONDS / 2)
        report(coordinator, "north", away("paused"))
    assert "north" in lapsed(coordinator)
    assert not silent(coordinator, "north")
    report(coordinator, "north", working())
    assert "north" not in lapsed(coordinator), "it went on"


def test_a_busy_machine_that_reports_keeps_its_lease(coordinator: Coordinator) -> None:
    coordinator.open_round()
    for _ in range(3):
        coordinator.clock.advance(seconds=LEASE_SECONDS)
        report(coordinator, "north", away("machine-busy"))
    assert "north" not in lapsed(coordinator)


def test_an_absence_that_is_over_excuses_nothing(coordinator: Coordinator) -> None:
    coordinator.clock.advance(seconds=7200)
    coordinator.open_round()
    report(coordinator, "north", away(until="2026-01-01T00:00:01.000Z"))
    coordinator.clock.advance(seconds=LEASE_SECONDS + 1)
    assert "north" in lapsed(coordinator)


def test_only_an_absence_has_an_end_that_counts(coordinator: Coordinator) -> None:
    coordinator.open_round()
    report(coordinator, "north", Activity(RUN, 1, "training", available_at="2026-01-02T00:00:00.000Z"))
    assert lapsed(coordinator) == ()


# --- changes -------------------------------------------------------------------------------------------------------------


def test_changes_of_activity_are_remembered_repeats_are_not(coordinator: Coordinator) -> None:
    coordinator.open_round()
    for activity in (working(), working(steps_done=5), away(until="2026-01-01T00:30:00.000Z"), working()):
        report(coordinator, "north", activity)
    report(coordinator, "south", working())
    changes = coordinator.board.changes(RUN)
    assert [(each.number, each.institution, each.activity) for each in changes] == [
        (1, "north", "training"),
        (2, "north", "outside-hours"),
        (3, "north", "training"),
        (4, "south", "training"),
    ]
    assert coordinator.board.changes(RUN, after=3) == changes[3:]
    assert coordinator.board.changes("other") == ()


def test_one_institution_cannot_push_out_what_others_did(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activities, "CHANGES_EACH", 3)
    coordinator.open_round()
    report(coordinator, "south", working())
    for _ in range(10):
        report(coordinator, "north", away())
        report(coordinator, "north", working())
    changes = coordinator.board.changes(RUN)
    assert [each.institution for each in changes] == ["south", "north", "north", "north"]


def test_changes_are_kept_of_the_newest_runs_and_no_more_than_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activities, "RUNS_KEPT", 2)
    monkeypatch.setattr(activities, "CHANGES_KEPT", 2)
    kept = activities.ActivityChanges()
    for run in ("a", "b", "c"):
        for name in ("east", "north", "south"):
            kept.note(datetime(2026, 1, 1, tzinfo=UTC), name, Activity(run, 1, "training"))
    assert kept.of("a", 0) == ()
    assert [change.institution for change in kept.of("c", 0)] == ["north", "south"]


def test_who_only_follows_the_ledger_is_heard(coordinator: Coordinator) -> None:
    coordinator.board.heard(coordinator["north"].member)
    assert coordinator.board.last_seen("north") == coordinator.clock.now()
