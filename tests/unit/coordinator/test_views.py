"""What operators see, and what they do not."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from common.errors import RefusalError, UnknownObject
from coordinator.commands.formats import as_data
from coordinator.ports import Activity, RoundView, RunView
from coordinator.views import ROUNDS_LISTED
from tests.support.coordinators import LEASE_SECONDS, Coordinator
from tests.support.participants import RUN, TOKENS


def the_run(coordinator: Coordinator) -> RunView:
    (view,) = coordinator.views.runs()
    return view


def states(coordinator: Coordinator) -> dict[str, str]:
    return {view.institution: view.state for view in the_run(coordinator).participants}


def test_institutions_are_members_then_the_invited(coordinator: Coordinator) -> None:
    coordinator.invite("west", hours=1)
    coordinator.board.moved("north", up=1)
    views = coordinator.views.institutions()
    assert [(view.name, view.status) for view in views] == [
        ("east", "active"),
        ("north", "active"),
        ("operator", "active"),
        ("south", "active"),
        ("west", "invited"),
    ]
    assert {view.name: view.last_seen for view in views if view.last_seen} == {"north": "2026-01-01T00:00:00.000Z"}
    coordinator.clock.advance(seconds=3600)
    assert coordinator.views.institutions()[-1].status == "expired"


def test_a_run_is_seen_from_plan_to_end(coordinator: Coordinator) -> None:
    coordinator.start_run(rounds=1)
    view = the_run(coordinator)
    assert (view.run, view.plan_name, view.phase, view.round, view.rounds_planned) == (RUN, "tiny", "answering", 0, 1)
    assert (view.rounds, view.refusals, view.end_reason, view.deadline) == ((), (), "", "")
    assert view.model == coordinator.run.statement.initial.model
    coordinator.play()
    view = the_run(coordinator)
    assert (view.phase, view.round, view.end_reason) == ("ended", 2, "rounds-done")
    assert [(record.task, record.outcome, record.reason) for record in view.rounds] == [
        ("train", "committed", "all-contributed"),
        ("evaluate", "committed", "all-contributed"),
    ]
    assert view.model == coordinator.run.model


def test_an_open_round_shows_its_deadline_and_who_is_in(coordinator: Coordinator) -> None:
    coordinator.open_round(deadline_seconds=90)
    coordinator["north"].contribute()
    view = the_run(coordinator)
    assert view.deadline == "2026-01-01T00:01:30.000Z"
    assert view.rounds[0] == RoundView(
        round=1,
        task="train",
        outcome="open",
        cohort=("east", "north", "south"),
        contributors=("north",),
        seconds=0.0,
        bytes_down=0,
        bytes_up=0,
        evaluations=(),
    )


def test_a_closed_round_shows_its_seconds_and_bytes(coordinator: Coordinator) -> None:
    coordinator.open_round()
    coordinator.board.moved("north", down=100, up=30)
    coordinator.board.moved("south", up=70)
    for participant in coordinator.participants.values():
        participant.contribute()
    coordinator.clock.advance(seconds=12.5)
    coordinator.advance()
    first = the_run(coordinator).rounds[0]
    assert (first.seconds, first.bytes_down, first.bytes_up) == (12.5, 100, 100)


def test_participants_go_from_asked_to_contributed(coordinator: Coordinator) -> None:
    coordinator.start_run(quorum=2, deadline_seconds=1000)
    assert states(coordinator) == dict.fromkeys(("east", "north", "south"), "asked")
    coordinator["east"].answer()
    coordinator["north"].answer()
    coordinator["south"].answer(accept=False, reasons=("budget", "quorum"))
    assert states(coordinator) == {"east": "accepted", "north": "accepted", "south": "refused"}
    assert the_run(coordinator).participants[2].reasons == ("budget", "quorum")
    coordinator.advance()
    assert states(coordinator)["north"] == "idle"
    coordinator.board.report(coordinator["north"].member, Activity(RUN, 1, "training", 3, 10, 96))
    coordinator["east"].contribute()
    assert states(coordinator) == {"east": "contributed", "north": "training", "south": "refused"}
    north = the_run(coordinator).participants[1]
    assert (north.steps_done, north.steps_total, north.tokens_done) == (3, 10, 96)
    coordinator.clock.advance(seconds=LEASE_SECONDS + 1)
    assert states(coordinator)["north"] == "silent"


def test_a_straggler_is_late_once_its_round_is_closed(coordinator: Coordinator) -> None:
    coordinator.open_round(quorum=2, rounds=1)
    for name in ("east", "north"):
        coordinator[name].contribute()
    coordinator.desk.control_run(RUN, "pause", "operator")
    coordinator.clock.advance(seconds=LEASE_SECONDS + 1)
    coordinator.advance()
    assert the_run(coordinator).phase == "paused"
    assert states(coordinator) == {"east": "contributed", "north": "contributed", "south": "late"}


def test_refusals_are_shown_with_code_and_attribution(coordinator: Coordinator) -> None:
    coordinator.open_round()
    with pytest.raises(RefusalError):
        coordinator["north"].contribute(num_tokens=65)
    (refusal,) = the_run(coordinator).refusals
    assert (refusal.institution, refusal.round, refusal.code, refusal.attribution) == (
        "north",
        1,
        "implausible-weight",
        "signed-by",
    )
    assert refusal.index == coordinator.state.size - 1


# --- what is not shown -----------------------------------------------------------------------------------------------


def test_a_pool_is_shown_only_when_its_round_is_closed(coordinator: Coordinator) -> None:
    """Else who watches sees three institutions' sum, then four's, and knows the fourth's loss."""
    coordinator.enrol("west")
    coordinator.open_round(rounds=1, quorum=4)
    for name in ("east", "north", "south"):
        coordinator[name].contribute()
        assert the_run(coordinator).rounds[0].evaluations == ()
    coordinator["west"].contribute()
    coordinator.advance()
    (pool,) = the_run(coordinator).rounds[0].evaluations
    assert (pool.scope, pool.num_tokens, pool.institutions) == ("pooled", 4 * TOKENS, 4)


def test_single_losses_are_shown_where_the_plan_says_so(coordinator: Coordinator) -> None:
    coordinator.open_round(metrics_visibility="institution")
    coordinator["north"].contribute()
    assert [entry.scope for entry in the_run(coordinator).rounds[0].evaluations] == ["pooled", "north"]


@pytest.mark.parametrize(("visibility", "shown"), [("none", None), ("pooled", None), ("institution", 77)])
def test_a_live_loss_is_shown_only_where_the_plan_shows_each_ones(
    coordinator: Coordinator, visibility: str, shown: int | None
) -> None:
    coordinator.open_round(metrics_visibility=visibility)
    coordinator.board.report(coordinator["north"].member, Activity(RUN, 1, "training", 3, 10, loss_fixed=77))
    assert the_run(coordinator).participants[1].loss_fixed == shown


# --- watching --------------------------------------------------------------------------------------------------------


def test_a_watch_of_a_run_that_has_ended_shows_it_once(coordinator: Coordinator) -> None:
    coordinator.start_run(rounds=1)
    coordinator.play()
    assert list(coordinator.views.watch("tiny")) == [the_run(coordinator)]


def test_a_watch_shows_each_change_until_the_run_ends(coordinator: Coordinator) -> None:
    coordinator.start_run()
    seen = []
    for view in coordinator.views.watch(RUN):
        seen.append(view.phase)
        if view.phase == "answering":
            for participant in coordinator.participants.values():
                participant.answer()
            coordinator.advance()
        elif view.phase == "collecting":
            coordinator.desk.control_run(RUN, "abort", "")
    assert seen == ["answering", "collecting", "ended"]


def test_a_watch_of_no_run_is_refused_at_once(coordinator: Coordinator) -> None:
    with pytest.raises(UnknownObject, match=r"0 runs begin with 'tiny'; runs here: none yet\."):
        coordinator.views.watch("tiny")


def test_a_view_is_json(coordinator: Coordinator) -> None:
    coordinator.start_run(rounds=1)
    coordinator.play()
    view = the_run(coordinator)
    data = json.loads(json.dumps(as_data(view)))
    assert data["run"] == RUN
    assert data["model"]["root"] == coordinator.run.model.root
    assert set(data) == set(asdict(view))


def test_a_list_of_runs_shows_the_newest_rounds_and_a_watch_all(coordinator: Coordinator) -> None:
    """All runs go in one message, which must not grow beyond what a call may carry."""
    coordinator.start_run(rounds=ROUNDS_LISTED + 1)
    coordinator.play()
    assert [record.round for record in the_run(coordinator).rounds] == list(range(3, ROUNDS_LISTED + 3))
    (watched,) = coordinator.views.watch(RUN)
    assert len(watched.rounds) == ROUNDS_LISTED + 2


# --- what is known besides ---------------------------------------------------------------------------------------------


def test_a_view_names_quorum_and_opening_of_the_round(coordinator: Coordinator) -> None:
    coordinator.start_run(quorum=2)
    view = the_run(coordinator)
    assert (view.quorum, view.opened_at) == (2, "")
    for participant in coordinator.participants.values():
        participant.answer()
    coordinator.clock.advance(seconds=5)
    coordinator.advance()
    assert the_run(coordinator).opened_at == "2026-01-01T00:00:05.000Z"


def test_being_away_is_a_state_with_its_end_and_no_speed(coordinator: Coordinator) -> None:
    coordinator.open_round()
    north = coordinator["north"].member
    for tokens in (0, 100):
        coordinator.clock.advance(seconds=1)
        coordinator.board.report(north, Activity(RUN, 1, "training", tokens_done=tokens))
    away = Activity(RUN, 1, "outside-hours", 3, 10, 100, available_at="2026-01-01T00:30:00.000Z")
    coordinator.board.report(north, away)
    coordinator.clock.advance(seconds=10 * LEASE_SECONDS)
    view = next(each for each in the_run(coordinator).participants if each.institution == "north")
    assert (view.state, view.available_at, view.tokens_per_second) == ("outside-hours", "2026-01-01T00:30:00.000Z", 0.0)
    assert (view.steps_done, view.steps_total) == (3, 10)
    coordinator.board.report(north, Activity(RUN, 1, "training", 4, 10, 110))
    view = next(each for each in the_run(coordinator).participants if each.institution == "north")
    assert (view.state, view.available_at) == ("training", "")


def test_a_refusal_shows_the_digest_of_what_was_refused(coordinator: Coordinator) -> None:
    coordinator.open_round()
    statement = coordinator["north"].contribution(
        coordinator["north"].send(coordinator["north"].delta()), num_tokens=65
    )
    with pytest.raises(RefusalError):
        coordinator["north"].submit(statement, coordinator["north"].metrics())
    (refusal,) = the_run(coordinator).refusals
    assert len(refusal.refused_sha256) == 64
    assert refusal.refused_sha256 == coordinator.state.refusal_list[0][1].refused_sha256


def test_the_time_left_follows_from_closed_rounds_and_steps(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=4)
    assert the_run(coordinator).eta_seconds == 0.0, "nothing is known"
    coordinator.clock.advance(seconds=30)
    for name in ("east", "north", "south"):
        coordinator.board.report(coordinator[name].member, Activity(RUN, 1, "training", 5, 10))
    assert the_run(coordinator).eta_seconds == 30.0 + 3 * 60.0
    coordinator.board.report(coordinator["north"].member, Activity(RUN, 1, "paused", 5, 10))
    assert the_run(coordinator).eta_seconds == 0.0, "nobody knows when north comes back, and the quorum needs it"
    for participant in coordinator.participants.values():
        participant.contribute()
    coordinator.clock.advance(seconds=10)
    coordinator.advance()
    assert the_run(coordinator).eta_seconds == 3 * 40.0
    coordinator.desk.control_run(RUN, "abort", "operator")
    assert the_run(coordinator).eta_seconds == 0.0


def test_a_watch_is_not_woken_by_the_estimate_alone(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.views.operator.WATCH_SECONDS", 0.0)
    coordinator.open_round(rounds=4)
    coordinator.board.report(coordinator["north"].member, Activity(RUN, 1, "training", 5, 10))
    stream = coordinator.views.watch(RUN)
    first = next(stream)
    waits: list[int] = []

    def wait(size: int, timeout: float) -> int:
        waits.append(size)
        coordinator.clock.advance(seconds=1)
        return size

    monkeypatch.setattr(coordinator.ledger, "wait_for_growth", wait)
    assert next(stream).opened_at == first.opened_at
    assert len(waits) == 15, "it was sent again after REPEAT_SECONDS, not before"


def test_closed_rounds_are_composed_once(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    coordinator.start_run(rounds=3)
    coordinator.play()
    before = the_run(coordinator)
    reads: list[int] = []
    real = coordinator.database.metrics_of
    monkeypatch.setattr(coordinator.database, "metrics_of", lambda digests: reads.append(1) or real(digests))
    assert the_run(coordinator) == before
    assert reads == []


def test_certificates_of_members_name_their_end(coordinator: Coordinator) -> None:
    ends = {view.name: view.certificate_expires_at for view in coordinator.views.institutions()}
    assert ends["operator"] == "2027-01-01T00:00:00.000Z"
    coordinator.enrol("west")
    ends = {view.name: view.certificate_expires_at for view in coordinator.views.institutions()}
    assert ends["west"] == "2027-01-01T00:00:00.000Z"


def test_the_status_counts_members_runs_bytes_and_who_is_connected(coordinator: Coordinator) -> None:
    coordinator.start_run()
    coordinator.board.heard(coordinator["north"].member)
    coordinator.clock.advance(seconds=60)
    coordinator.board.heard(coordinator["south"].member)
    coordinator.board.heard(coordinator.operator)
    status = coordinator.views.status()
    assert (status.consortium, status.version, status.open_calls) == ("hospitals", "0.0.0", 7)
    assert (status.members_active, status.trainers_connected, status.runs_active) == (4, 2, 1)
    assert (status.started_at, status.now) == ("2026-01-01T00:00:00.000Z", "2026-01-01T00:01:00.000Z")
    assert status.ledger_size == coordinator.state.size
    assert status.blob_bytes == sum(ref.size for ref, _ in coordinator.blobs.list()) > 0
    assert status.disk_free_bytes > 0
    assert status.fingerprint == coordinator.state.genesis_place.digest
    assert status.certificate_expires_at <= status.authority_expires_at
    coordinator.clock.advance(seconds=1)
    assert coordinator.views.status().trainers_connected == 1
