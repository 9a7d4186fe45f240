"""SCAFFOLD at the agent: which files a round starts from, what leaves, and what is kept until a round's fate is known."""

from __future__ import annotations

import pytest

from common.errors import CoordinatorUnreachable
from common.statements.envelope import parse
from common.statements.kinds import Contribution
from coordinator.ports import Steering
from participant.bench.worker_protocol import Train
from participant.policy import estimates
from participant.tidying import Tidying
from tests.support.agents import Institution
from tests.support.blobs import delta_bytes, random_arrays
from tests.support.participants import MANIFEST, RUN
from tests.unit.coordinator.test_scaffold import LOCAL

SIZE = len(delta_bytes(MANIFEST, random_arrays(MANIFEST, seed=1)))


def trains(north: Institution) -> list[tuple[int, str | None, int, str | None]]:
    asked = [message for message in north.workbench.asked if isinstance(message, Train)]
    return [(each.round, each.control, each.control_round, each.server_state) for each in asked]


def test_a_round_starts_from_the_newest_that_counts_and_from_the_consortiums_own(north: Institution) -> None:
    record = north.open_round(rounds=2, quorum=3, local=LOCAL)
    north.agent.work(north.run, record)
    assert not (north.workbench.job(RUN) / "server-state.safetensors").exists()
    north.others_act()  # round 1 is committed with ours
    north.agent.work(north.run, north.round)
    state = north.run.rounds[0].closed.outputs.server_state  # type: ignore[union-attr]
    assert state is not None
    placed = (north.workbench.job(RUN) / "server-state.safetensors").read_bytes()
    assert placed == north.coordinator.blobs.path(state).read_bytes()
    north.coordinator.clock.advance(seconds=north.run.statement.plan.deadline_seconds)
    north.coordinator.advance()  # round 2 is abandoned: nobody else came
    assert [each.closed.outcome for each in north.run.rounds if each.closed] == ["committed", "abandoned"]
    north.agent.work(north.run, north.round)
    assert trains(north) == [
        (1, "control.safetensors", 0, None),
        (2, "control.safetensors", 1, "server-state.safetensors"),
        (3, "control.safetensors", 1, "server-state.safetensors"),
    ]


def test_without_scaffold_the_worker_is_asked_for_no_control(north: Institution) -> None:
    record = north.open_round(rounds=2)
    north.agent.work(north.run, record)
    assert trains(north) == [(1, None, 0, None)]


def test_both_blobs_leave_once_and_the_same_statement_goes_again_after_a_restart(north: Institution) -> None:
    record = north.open_round(rounds=2, quorum=3, local=LOCAL)

    def cut() -> None:
        raise CoordinatorUnreachable("The line is cut.")

    north.session.before_submit = cut
    with pytest.raises(CoordinatorUnreachable):
        north.agent.work(north.run, record)
    signed = north.outbox.contributed(record)
    assert signed is not None
    contribution = parse(signed.envelope).predicate
    assert isinstance(contribution, Contribution)
    assert list(contribution.blobs) == ["control", "delta"]
    assert north.outbox.blobs_of(record) == {ref.root for ref in contribution.blobs.values()}
    assert len(north.outbox.blobs_of(record)) == 2
    north.restart()
    assert all(north.blobs.contains(ref) for ref in contribution.blobs.values())
    north.agent.work(north.run, record)
    assert trains(north) == [], "what was signed is not trained again"
    assert north.session.submitted == [signed.envelope]
    sent = [entry for entry in north.egress() if entry[0] in ("delta", "control")]
    assert sorted(sent) == [("control", SIZE), ("delta", SIZE)]
    assert north.run.rounds[0].contributions["north"].place.digest == signed.digest


def test_the_consortiums_control_variate_stays_while_its_round_is_open_and_goes_then(north: Institution) -> None:
    record = north.open_round(rounds=2, quorum=3, local=LOCAL)
    north.agent.work(north.run, record)
    north.others_act()
    second = north.round
    north.agent.work(north.run, second)
    state = second.opened.inputs.server_state
    assert state is not None
    tidying = Tidying(north.agent._ports)
    tidying.tidy()
    assert north.blobs.contains(state)
    north.others_act()
    tidying.tidy()
    assert not north.blobs.contains(state)


def test_what_it_costs_is_estimated(north: Institution) -> None:
    north.open_round(rounds=2, quorum=3, local=LOCAL)
    statement = north.run.statement
    plain = statement.plan.model_dump(mode="json")
    plain["local"]["correction"] = {"type": "none"}
    without = statement.model_copy(update={"plan": type(statement.plan).model_validate(plain)})
    plain["local"]["optimizer"] = {"type": "adamw"}
    adamw = statement.model_copy(update={"plan": type(statement.plan).model_validate(plain)})
    more, less, moments = (estimates.estimate(each) for each in (statement, without, adamw))
    numbers = 4 * (8 * 4 + 4)
    assert more.up_bytes_per_round == 2 * less.up_bytes_per_round == 2 * SIZE
    assert more.memory_bytes - less.memory_bytes == numbers
    assert more.disk_bytes - less.disk_bytes == SIZE + estimates.CONTROL_FILES * numbers
    assert moments.memory_bytes - less.memory_bytes == 2 * numbers


def test_after_a_roll_back_a_round_starts_from_what_still_counts(north: Institution) -> None:
    """Control variates of rounds that were taken back are nobody's: neither the institution's own nor the consortium's."""
    record, desk = north.open_round(rounds=4, quorum=3, local=LOCAL), north.coordinator.desk
    for _ in range(2):
        north.agent.work(north.run, record)
        north.others_act()
        record = north.round
    left = [each.closed.outputs.server_state for each in north.run.rounds[:2] if each.closed]
    desk.control_run(RUN, "rollback", "", Steering(to_round=1))
    north.coordinator.advance()
    north.agent.work(north.run, north.round)
    placed = north.workbench.job(RUN) / "server-state.safetensors"
    assert left[0] is not None
    assert placed.read_bytes() == north.coordinator.blobs.path(left[0]).read_bytes()
    desk.control_run(RUN, "rollback", "", Steering(to_round=0))
    north.coordinator.advance()
    north.agent.work(north.run, north.round)
    assert not placed.exists()
    assert trains(north)[1:] == [
        (2, "control.safetensors", 1, "server-state.safetensors"),
        (4, "control.safetensors", 1, "server-state.safetensors"),
        (5, "control.safetensors", 0, None),
    ]
