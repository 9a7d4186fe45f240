"""A participant that stood still past its lease and woke after its round was closed: it goes on with the next one."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import psutil

from common.statements.kinds import Kind
from common.terminal import exit_code_of
from coordinator.cli import app as operators_app
from tests.support.drafts import make_draft
from tests.support.federations import Federation

LEASE_SECONDS = 3.0
DEADLINE_SECONDS = 600
STOPPED, OTHERS = "clinic", ("bank", "laboratory")


def test_who_is_woken_after_its_round_was_closed_takes_part_in_the_next(tmp_path: Path) -> None:
    draft = make_draft(tmp_path / "draft", rounds=2, quorum=2, deadline_seconds=DEADLINE_SECONDS)
    with Federation(tmp_path / "federation", lease_seconds=LEASE_SECONDS, min_quorum=2) as federation:
        for name in federation.names:
            federation.hold(name)
        federation.start_participants()
        run = federation.start_run(draft)
        for name in federation.names:
            federation.wait_until_holding(name, run)
        stopped = processes(federation, STOPPED)
        signal_all(stopped, signal.SIGSTOP)
        try:
            federation.release(*federation.names)  # its training has nothing to wait for when it wakes
            federation.wait_for(lambda state: len(state.runs[run].rounds[0].contributions) == 2, "two contributed")
            for name in OTHERS:
                federation.hold(name)  # so that the next round is still open when it wakes
            federation.wait_until_open(run, 2)
        finally:
            signal_all(stopped, signal.SIGCONT)
        federation.wait_for(lambda state: STOPPED in state.runs[run].rounds[1].contributions, "it is in the next round")
        federation.release(*OTHERS)
        ended = federation.wait_until_ended(run)
        assert exit_code_of(operators_app, ["verify", run, "--home", str(federation.coordinator_home)]) == 0
        signed, held = journal(federation, STOPPED), statements(federation, STOPPED)
        refused = list(federation.of_kind(Kind.REFUSAL))

    first, second, last = ended.rounds
    assert first.closed is not None
    assert (first.closed.outcome, first.closed.reason) == ("committed", "leases-lapsed")
    assert [entry.institution for entry in first.closed.inputs] == sorted(OTHERS)
    for record in (second, last):
        assert record.closed is not None
        assert (record.closed.outcome, record.closed.reason) == ("committed", "all-contributed")
    assert STOPPED not in first.contributions
    assert len(set(signed)) == len(signed), "no slot twice"
    assert set(held) <= set(signed)
    # Awake, it may be quicker to sign than to read that its round was closed; then that one statement is refused.
    assert len(set(signed) - set(held)) <= 1
    assert {each.code for each in refused} <= {"round-not-open"}
    assert ended.ended is not None
    assert ended.ended.reason == "rounds-done"


def processes(federation: Federation, name: str) -> list[psutil.Process]:
    """An agent and what it started."""
    agent = psutil.Process(federation.participants[name].pid)
    return [agent, *agent.children(recursive=True)]


def signal_all(stopped: list[psutil.Process], number: signal.Signals) -> None:
    for process in stopped:
        os.kill(process.pid, number)


def journal(federation: Federation, name: str) -> list[str]:
    """Digests of what it signed."""
    with closing(sqlite3.connect(federation.home(name) / "journal.sqlite")) as connection:
        return [digest for (digest,) in connection.execute("SELECT digest FROM signed")]


def statements(federation: Federation, name: str) -> list[str]:
    """Digests of what the ledger holds of it."""
    entries = [each.statement for each in federation.entries()]
    return [each.digest for each in entries if getattr(each.predicate, "institution", "") == name]
