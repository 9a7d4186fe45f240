"""`run logs`: the ledger's events and the board's, merged by time, each once."""

from __future__ import annotations

from itertools import islice

import pytest

from common.errors import RefusalError, UnknownObject
from coordinator.ports import Activity, LogLine
from coordinator.watching import run_log
from tests.support.coordinators import Coordinator
from tests.support.participants import RUN


def lines(coordinator: Coordinator, institution: str = "", *, follow: bool = False) -> list[LogLine]:
    return [line for line in coordinator.views.logs(RUN, institution, follow=follow) if line is not None]


def events(found: list[LogLine]) -> list[tuple[int, str, str]]:
    return [(line.round, line.institution, line.event) for line in found]


def a_round_with_everything(coordinator: Coordinator) -> None:
    """One second between events: answers, an activity, a refusal, contributions; the run ends."""
    coordinator.open_round(rounds=1)
    coordinator.clock.advance(seconds=1)
    coordinator.board.report(coordinator["north"].member, Activity(RUN, 1, "training", 3, 10))
    coordinator.clock.advance(seconds=1)
    with pytest.raises(RefusalError):
        coordinator["north"].contribute(num_tokens=10**6)
    coordinator.clock.advance(seconds=1)
    away = Activity(RUN, 1, "outside-hours", available_at="2026-01-01T00:30:00.000Z")
    coordinator.board.report(coordinator["south"].member, away)
    coordinator.clock.advance(seconds=1)
    coordinator.play()


def test_a_log_goes_from_the_plan_to_the_end_in_order(coordinator: Coordinator) -> None:
    a_round_with_everything(coordinator)
    found = lines(coordinator)
    assert events(found) == [
        (0, "", "plan-sent"),
        (0, "east", "answered"),
        (0, "north", "answered"),
        (0, "south", "answered"),
        (1, "", "round-opened"),
        (1, "north", "activity"),
        (1, "north", "refused"),
        (1, "south", "activity"),
        (1, "east", "contributed"),
        (1, "north", "contributed"),
        (1, "south", "contributed"),
        (1, "", "sealed"),
        (1, "", "round-closed"),
        (2, "", "round-opened"),
        (2, "east", "contributed"),
        (2, "north", "contributed"),
        (2, "south", "contributed"),
        (2, "", "sealed"),
        (2, "", "round-closed"),
        (0, "", "run-ended"),
    ]
    assert [line.at for line in found] == sorted(line.at for line in found)
    texts = {line.event: line.text for line in reversed(found)}
    assert texts["plan-sent"] == "tiny: 1 rounds, quorum 3 [ledger 5]"
    assert texts["activity"] == "training, 3/10 steps"
    assert texts["refused"].startswith(
        "contribution refused: implausible-weight (usually another plan or release), signed by north, sha256 "
    )
    assert texts["contributed"].endswith("tokens, delta 336 bytes [ledger 11]")
    assert found[7].text == "outside-hours until 2026-01-01T00:30:00.000Z"
    assert found[14].text == "measurement only [ledger 16]"


def test_a_log_of_one_institution_holds_only_its_events(coordinator: Coordinator) -> None:
    a_round_with_everything(coordinator)
    found = lines(coordinator, "south")
    assert events(found) == [
        (0, "south", "answered"),
        (1, "south", "activity"),
        (1, "south", "contributed"),
        (2, "south", "contributed"),
    ]


def test_an_institution_or_run_that_is_not_there_is_named(coordinator: Coordinator) -> None:
    coordinator.start_run()
    with pytest.raises(UnknownObject, match=r"No member is named 'west'; members here: east, north, operator, south\."):
        coordinator.views.logs(RUN, "west", follow=False)
    with pytest.raises(UnknownObject, match="0 runs begin with 'other'"):
        coordinator.views.logs("other", "", follow=False)


def test_reasons_hours_and_controls_stand_in_the_log(coordinator: Coordinator) -> None:
    coordinator.start_run()
    coordinator["east"].answer(accept=False, reasons=("budget",), availability=("daily 22:00-06:00 UTC",))
    coordinator.desk.control_run(RUN, "pause", "maintenance")
    coordinator.desk.control_run(RUN, "abort", "operator")
    assert [line.text for line in lines(coordinator)][1:] == [
        "refused: budget; available daily 22:00-06:00 UTC [ledger 6]",
        "pause: maintenance [ledger 7]",
        "aborted [ledger 8]",
    ]


def test_a_follower_is_told_each_event_once_and_between_them_nothing(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_log, "FOLLOW_SECONDS", 0.0)
    coordinator.open_round(rounds=1)
    log = coordinator.views.logs(RUN, "", follow=True)
    assert [line is None for line in islice(log, 6)] == [False] * 5 + [True]
    coordinator.board.report(coordinator["north"].member, Activity(RUN, 1, "training"))
    following = [next(log), next(log)]
    assert following[0] is not None
    assert (following[0].institution, following[0].event, following[1]) == ("north", "activity", None)
    assert next(log) is None
    coordinator.play()
    rest = [line for line in log if line is not None]
    assert events(rest)[0] == (1, "east", "contributed")
    assert events(rest)[-1] == (0, "", "run-ended")
    assert len(rest) == 12


def test_a_round_that_is_sealed_and_not_closed_says_so_once(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_log, "FOLLOW_SECONDS", 0.0)
    current = coordinator.open_round(rounds=1)
    for participant in coordinator.participants.values():
        participant.contribute()
    coordinator.ledger.seal(current.place.digest, "all-contributed")
    log = coordinator.views.logs(RUN, "", follow=True)
    first = [line for line in islice(log, 10) if line is not None]
    assert events(first)[-1] == (1, "", "sealed")
    coordinator.play()
    rest = [line for line in log if line is not None]
    assert events(rest)[0] == (1, "", "round-closed")


def test_without_the_institutions_that_were_missing_a_seal_names_them(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=1, quorum=2, deadline_seconds=100)
    for name in ("east", "north"):
        coordinator[name].contribute()
    coordinator.clock.advance(seconds=100)
    coordinator.advance()
    sealed = next(line for line in lines(coordinator) if line.event == "sealed")
    assert sealed.text == "deadline-passed; not in: south"


def test_a_log_survives_a_restart_but_for_what_was_in_memory(coordinator: Coordinator) -> None:
    a_round_with_everything(coordinator)
    before = lines(coordinator)
    coordinator.restart()
    assert lines(coordinator) == [line for line in before if line.event != "activity"]


def test_other_runs_do_not_stand_in_the_log(coordinator: Coordinator) -> None:
    coordinator.start_run()
    draft = coordinator.draft().model_copy(update={"run": "tiny-ffffff"})
    coordinator.desk.start_run(draft.model_dump_json().encode())
    assert len(lines(coordinator)) == 1
