"""The agent and the witnesses: no work on a round before a majority cosigned its opening, and at once afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import CoordinatorUnreachable, TwoHistories
from common.ledger.heads import log_key
from common.ledger.notes import parse_note, read_checkpoint
from common.ledger.state import RoundRecord
from common.statements.kinds import Role
from participant import agent as module
from participant.commands import status_text
from participant.memory.checkpoints import Checkpoints
from tests.support.agents import Institution
from tests.support.coordinators import NAMES, Coordinator
from tests.support.federations import until
from tests.support.participants import RUN

ROLES: tuple[Role, ...] = ("trainer", "evaluator", "witness")


@pytest.fixture
def north(tmp_path: Path) -> Iterator[Institution]:
    """One of three institutions, all of them witnesses; a fourth is none."""
    coordinator = Coordinator(tmp_path / "coordinator", names=())
    coordinator.enrol("vienna", ("viewer",))
    for name in NAMES:
        coordinator.enrol(name, ROLES)
    made = Institution(tmp_path / "north", coordinator)
    made.session.round_open = True
    yield made
    made.close()
    coordinator.close()


@pytest.fixture
def waiting(north: Institution) -> RoundRecord:
    """A round that is open, and whose opening north alone cosigned."""
    return north.open_round()


class Loop:
    """The agent's loop on a thread of its own, while inside."""

    def __init__(self, north: Institution) -> None:
        self._stopping, self._mirror = threading.Event(), north.mirror
        self._thread = threading.Thread(target=north.agent.run, args=(self._stopping,), daemon=True)

    def __enter__(self) -> Loop:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._mirror.wake()
        self._thread.join(30)
        assert not self._thread.is_alive()


def contributed(north: Institution) -> bool:
    return "north" in north.mirror.state.runs[RUN].rounds[0].contributions


def idle(north: Institution, passes: int = 30) -> None:
    """The loop went round so often, and found nothing to do."""
    ticks = north.membership.ticks
    until(lambda: north.membership.ticks > ticks + passes, "the loop goes round", 30)


def test_a_round_whose_opening_no_majority_cosigned_is_never_worked_on(
    north: Institution, waiting: RoundRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.001)
    downloads: list[object] = []
    monkeypatch.setattr(north.session, "download", lambda ref, *_: downloads.append(ref))
    north.log.cosign("east", "south", size=waiting.place.index)  # all but the opening itself
    north.session.catch_up()
    with Loop(north):
        idle(north)
        north.log.cosign("vienna")
        north.session.catch_up()
        idle(north)
    assert north.witnessing.covered == waiting.place.index
    assert north.workbench.asked == []
    assert downloads == []
    assert len(north.session.submitted) == 1  # the answer
    assert north.agent._attempts == {}
    assert north.agent._given_up == set()


def test_while_it_waits_the_coordinator_and_status_are_told(north: Institution, waiting: RoundRecord) -> None:
    assert north.agent._next(north.mirror.state) is None
    (held,) = north.status.told["rounds_held"]
    assert held == {
        "run": RUN,
        "round": 1,
        "state": "witnesses",
        "until": "",
        "deadline": waiting.opened.stages[-1].deadline,
        "budgets": [],
        "entry": waiting.place.index,
        "cosigned_by": 1,
        "witnesses": 3,
        "witnesses_needed": 2,
    }
    assert north.status.said[-1] == "waiting for witnesses"
    assert north.session.reports[-1].activity == "waiting"


def test_status_says_in_words_what_the_round_waits_for(north: Institution, waiting: RoundRecord) -> None:
    north.agent._next(north.mirror.state)
    (text,) = status_text._held({"running": True, **north.status.told})
    assert text.startswith(
        f"for witnesses: the opening of round 1 of {RUN} (entry {waiting.place.index}) is cosigned by 1 of 3, 2 needed"
    )


def test_the_majority_wakes_the_agent_and_the_contribution_names_the_checkpoint(
    north: Institution, waiting: RoundRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 3600.0)
    with Loop(north):
        until(lambda: "waiting for witnesses" in north.status.said, "the agent waits", 30)
        assert north.workbench.asked == []
        north.log.cosign("south")
        north.session.catch_up()
        until(lambda: contributed(north), "the round is worked on", 30)
    contribution = north.run.rounds[0].contributions["north"].contribution
    assert contribution.checkpoint is not None
    note = parse_note(contribution.checkpoint.encode())
    head = read_checkpoint(note, log_key(north.mirror.state.genesis))
    assert head.size > waiting.place.index
    assert head == north.mirror.head(head.size)
    assert len(note.signatures) == 1


def test_a_contribution_that_was_signed_waits_for_the_witnesses_too(
    north: Institution, waiting: RoundRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut() -> None:
        raise CoordinatorUnreachable("No answer.")

    north.log.cosign("south")
    north.session.catch_up()
    north.session.before_submit = cut
    with pytest.raises(CoordinatorUnreachable):
        north.agent.work(north.run, waiting)
    for name in ("oslo", "paris", "quito"):  # now four of six are needed, and two have cosigned
        north.coordinator.enrol(name, ("witness",))
    north.restart()
    assert north.agent._next(north.mirror.state) is None
    north.log.cosign("oslo", "paris")
    north.session.catch_up()
    assert north.agent._next(north.mirror.state) is not None


def test_where_nobody_is_a_witness_a_round_waits_for_nobody(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path / "coordinator")
    north = Institution(tmp_path / "north", coordinator)
    north.open_round()
    assert north.agent._next(north.mirror.state) is not None
    assert north.status.told["rounds_held"] == []
    north.close()
    coordinator.close()


def test_two_histories_hold_the_agent_across_restarts_until_a_person_acknowledges_them(
    north: Institution, waiting: RoundRecord
) -> None:
    north.log.cosign("south")
    north.session.catch_up()
    fork = Checkpoints(north.mirror, north.journal, north.coordinator.clock).read(north.log.checkpoint(3, bytes(32)))
    with pytest.raises(TwoHistories, match="signed two histories of 3 entries"):
        Checkpoints(north.mirror, north.journal, north.coordinator.clock).is_own_history(fork)
    for _ in range(2):  # found by a command while the agent ran, then at its next start
        with pytest.raises(
            TwoHistories, match=r"1 checkpoints in its journal contradict its copy.*first seen at"
        ) as held:
            north.agent.run(threading.Event())
        assert "llmasos-participant checkpoint acknowledge" in held.value.fix
        assert "llmasos-participant evidence export FILE" in held.value.fix
        north.restart()
    assert north.workbench.asked == []
    assert north.journal.acknowledge() == 1
    assert north.journal.conflicting() == [fork.note.encode()]  # the evidence stays
    with Loop(north):
        until(lambda: contributed(north), "the round is worked on", 30)
