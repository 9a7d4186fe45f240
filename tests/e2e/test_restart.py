"""kill -9 of either side: the run goes on, ends with the very model of an undisturbed one, and no slot is signed twice.

The null worker's deltas are a function of text, round and base model, so all runs of one federation end with one model.
"""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from common.ledger.state import RunRecord
from common.statements.kinds import Kind
from coordinator.rounds.ports import Step
from tests.support.drafts import make_draft
from tests.support.federations import NAMES, Federation, until

ROUNDS = 2


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    with Federation(tmp_path / "federation") as running:
        running.start_participants()
        yield running


def start(federation: Federation, run: str, **plan: object) -> str:
    return federation.start_run(make_draft(federation.folder / "drafts" / run, run=run, rounds=ROUNDS, **plan))


def finished(federation: Federation, run: str) -> RunRecord:
    """The run, ended as it should, everybody in every round."""
    record = federation.wait_until_ended(run)
    assert record.ended is not None
    assert record.ended.reason == "rounds-done"
    assert [entry.closed.outcome for entry in record.rounds if entry.closed] == ["committed"] * (ROUNDS + 1)
    assert [sorted(entry.contributions) for entry in record.rounds] == [list(NAMES)] * (ROUNDS + 1)
    return record


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def assert_every_slot_was_signed_once(federation: Federation) -> None:
    """What an institution's journal says it signed is exactly what the ledger holds of it."""
    ledger: dict[str, list[str]] = {name: [] for name in NAMES}
    for entry in federation.entries():
        if entry.statement.kind in {Kind.ANSWER, Kind.CONTRIBUTION}:
            ledger[entry.statement.predicate.institution].append(entry.statement.digest)  # type: ignore[attr-defined]
    for name in NAMES:
        with closing(sqlite3.connect(federation.home(name) / "journal.sqlite")) as connection:
            signed = [digest for (digest,) in connection.execute("SELECT digest FROM signed")]
        assert sorted(signed) == sorted(ledger[name])
    assert not list(federation.of_kind(Kind.REFUSAL))


def test_whoever_is_killed_in_the_middle_of_a_round_the_run_ends_with_the_undisturbed_model(
    federation: Federation,
) -> None:
    models = [finished(federation, start(federation, "undisturbed-01")).model]

    federation.hold("laboratory")
    run = start(federation, "coordinator-killed")
    federation.wait_for(
        lambda state: (
            run in state.runs and state.runs[run].rounds and len(state.runs[run].rounds[0].contributions) == 2
        ),
        "two of three contributed",
    )
    federation.kill_coordinator()
    federation.start_coordinator()
    federation.release("laboratory")
    models.append(finished(federation, run).model)

    federation.hold("clinic")
    run = start(federation, "participant-killed")
    worker = federation.wait_until_holding("clinic", run)
    federation.kill_participant("clinic")
    until(lambda: gone(worker), "the killed participant's worker ends by itself")
    federation.start_participant("clinic")
    assert federation.wait_until_holding("clinic", run, not_pid=worker) != worker
    federation.release("clinic")
    models.append(finished(federation, run).model)

    federation.hold("bank")
    run = start(federation, "both-killed")
    worker = federation.wait_until_holding("bank", run)
    federation.kill_participant("bank")
    federation.kill_coordinator()
    federation.release("bank")
    federation.start_participant("bank")
    federation.start_coordinator()
    models.append(finished(federation, run).model)

    assert len({model.root for model in models}) == 1
    assert_every_slot_was_signed_once(federation)


def test_a_coordinator_killed_at_each_durable_step_goes_on_from_there(federation: Federation) -> None:
    """With a server optimizer whose moments go from round to round: they are the undisturbed ones too."""
    adam = {"server_optimizer": {"type": "adam"}}
    undisturbed = finished(federation, start(federation, "undisturbed-01", **adam))
    crashes = [
        (Step.ROUND_OPENED, 1),
        (Step.ROUND_SEALED, 1),
        (Step.MODEL_WRITTEN, 2),
        (Step.ROUND_CLOSED, 2),
        (Step.RUN_ENDED, ROUNDS + 1),
    ]
    federation.kill_coordinator()
    for position, crash in enumerate(crashes):
        doomed = federation.start_coordinator(crash_at=crash)
        if position == 0:
            start(federation, "crashing-01", **adam)
        until(doomed.process.poll, f"the coordinator dies at {crash[0]}")
        assert doomed.exit_code == -signal.SIGKILL
        federation.kill_coordinator()
    federation.start_coordinator()
    found = finished(federation, "crashing-01")
    assert found.model == undisturbed.model
    assert found.server_state == undisturbed.server_state is not None
    assert_every_slot_was_signed_once(federation)


def test_daemons_that_are_told_to_stop_end_in_order_and_go_on_when_started_again(federation: Federation) -> None:
    federation.hold("bank")
    run = start(federation, "stopped-01")
    worker = federation.wait_until_holding("bank", run)
    stopped = [*federation.participants.values(), federation.coordinator]
    for child in stopped:
        assert child is not None
        child.terminate()
    until(lambda: all(child.exit_code is not None for child in stopped if child), "all daemons end")
    assert [child.exit_code for child in stopped if child] == [0] * 4
    assert gone(worker)
    assert federation.addresses() == {}
    federation.release("bank")
    federation.start_coordinator()
    federation.start_participants()
    finished(federation, run)
    assert_every_slot_was_signed_once(federation)
