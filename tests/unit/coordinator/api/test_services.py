"""Work and Operations as their callers meet them: real stubs, real mutual TLS, ports that are fake."""

from __future__ import annotations

from dataclasses import replace

import pytest

from common.errors import (
    InternalError,
    MalformedMessage,
    StorageFailure,
    UnknownObject,
    WrongParent,
)
from common.wire import convert
from common.wire.errors import rpc_errors
from common.wire.messages import Approved, MetricsRecord, Proposal
from coordinator.ports import Activity, InstitutionView, Metrics, RunView
from tests.support.api import REPORT, Scene, until


def test_a_statement_is_submitted_with_its_metrics(scene: Scene) -> None:
    north = scene.session("north")
    assert north.submit(b'{"payload":""}', MetricsRecord(b"{}", b"s" * 32)) == 0
    assert scene.ports.desk.submitted == [("north", b'{"payload":""}', Metrics(b"{}", b"s" * 32))]


def test_a_refusal_reaches_its_sender_with_code_message_and_fix(scene: Scene) -> None:
    scene.ports.desk.failure = WrongParent(
        "Contribution of north: expected round 3, got round 2.", "Follow the ledger."
    )
    with pytest.raises(WrongParent) as error:
        scene.session("north").submit(b"{}")
    assert error.value.message == "Contribution of north: expected round 3, got round 2."
    assert error.value.fix == "Follow the ledger."


def test_a_bug_reaches_nobody_but_the_log(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.ports.desk.failure = KeyError("password of the database")
    with pytest.raises(InternalError) as error:
        scene.session("north").submit(b"{}")
    assert error.value.message == "The coordinator failed at this call; its log has the detail."
    assert "password of the database" in caplog.text


def test_a_failing_disk_is_named_in_the_log_only(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.ports.desk.failure = StorageFailure("/srv/secret/state.sqlite cannot be written: disk full.")
    with pytest.raises(StorageFailure) as error:
        scene.session("north").submit(b"{}")
    assert error.value.message == "The coordinator could not do this; its log says why."
    assert "/srv/secret/state.sqlite" in caplog.text


def test_the_ledger_is_followed_from_an_index(scene: Scene) -> None:
    for envelope in (b"zero", b"one", b"two"):
        scene.ports.ledger.append(envelope)
    entries = scene.session("north").follow(from_index=1, wait_seconds=30)
    assert (entries.first_index, entries.envelopes, entries.ledger_size) == (1, (b"one", b"two"), 3)


def test_drafts_are_counted_with_each_reply_listed_and_approved(scene: Scene) -> None:
    north, desk = scene.session("north"), scene.ports.desk
    assert north.follow(from_index=0, wait_seconds=0.01).open_proposals == 0
    desk.open = (Proposal(b'{"a":1}', "2026-01-01T00:00:00.000Z", 2, ("south",)),)
    assert north.follow(from_index=0, wait_seconds=0.01).open_proposals == 1
    assert north.proposals() == desk.open
    assert north.approve("ab" * 32, b"s" * 64) == Approved(None, 2, 1)
    assert desk.approved == [("north", "ab" * 32, b"s" * 64)]
    scene.session("ops").withdraw_proposal("cd" * 32)
    assert desk.withdrawn == ["cd" * 32]


def test_following_ends_without_news_when_its_time_is_over(scene: Scene) -> None:
    entries = scene.session("north").follow(from_index=0, wait_seconds=0.01)
    assert (entries.envelopes, entries.ledger_size) == ((), 0)


def test_a_caller_who_went_away_does_not_keep_a_thread(scene: Scene) -> None:
    call = scene.session("north").stubs().work.Follow.future(convert.follow_request_to_wire(0, wait_seconds=30))
    until(lambda: len(scene.listeners._open_calls) == 1)
    call.cancel()
    until(lambda: len(scene.listeners._open_calls) == 0)


def test_a_reply_of_follow_stays_below_two_mebibytes(scene: Scene) -> None:
    for _ in range(3):
        scene.ports.ledger.append(bytes(1024 * 1024))
    north = scene.session("north")
    assert len(north.follow(from_index=0, wait_seconds=0).envelopes) == 2
    assert len(north.follow(from_index=2, wait_seconds=0).envelopes) == 1


def test_a_report_renews_and_says_whether_the_round_is_open(scene: Scene) -> None:
    north = scene.session("north")
    assert north.report(REPORT) is True
    scene.ports.board.round_open = False
    assert north.report(REPORT) is False
    assert scene.ports.board.reports[0] == ("north", Activity("tiny-000001", 1, "training", 3, 10))


def test_bytes_that_are_no_message_are_refused(scene: Scene) -> None:
    north = scene.session("north")
    raw = north.stubs().channel.unary_unary("/llmasos.v1.Work/Submit")
    with (
        pytest.raises(MalformedMessage, match="The request's 2 bytes are not the message that this call takes"),
        rpc_errors(),
    ):
        raw(b"\xff\xff")


def test_a_call_without_its_message_is_refused(scene: Scene) -> None:
    raw = scene.session("north").stubs().channel.stream_unary("/llmasos.v1.Work/Submit")
    with pytest.raises(MalformedMessage, match="The call ended without its request message"), rpc_errors():
        raw(iter(()))


def test_an_operator_invites_lists_starts_and_controls(scene: Scene) -> None:
    ops, north = scene.session("ops"), InstitutionView("north", ("trainer",), "active", "")
    run = RunView("tiny-000001", "tiny", "collecting", 1, 3)
    scene.ports.views.of_institutions, scene.ports.views.of_runs = (north,), {"tiny-000001": [run]}
    assert ops.invite("south", expires_hours=72, roles=["trainer"]) == "-----BEGIN LLMASOS INVITATION-----"
    assert ops.institutions() == (north,)
    assert ops.start_run(b'{"run":"tiny"}') == "tiny-000001"
    assert ops.runs() == (run,)
    assert ops.control("tiny", "pause", "maintenance") == 9
    desk = scene.ports.desk
    assert (desk.invited, desk.plans) == ([("south", 72, ("trainer",))], [b'{"run":"tiny"}'])
    assert desk.controlled == [("tiny", "pause", "maintenance")]


def test_a_run_is_watched_until_it_ends(scene: Scene) -> None:
    running = RunView("tiny-000001", "tiny", "collecting", 1, 3)
    views = [running, replace(running, round=2), replace(running, phase="ended", end_reason="rounds")]
    scene.ports.views.of_runs["tiny-000001"] = views
    assert list(scene.session("ops").watch("tiny-000001")) == views


def test_watching_an_unknown_run_says_so(scene: Scene) -> None:
    with pytest.raises(UnknownObject, match=r"No run begins with 'big'\."):
        next(scene.session("ops").watch("big"))
