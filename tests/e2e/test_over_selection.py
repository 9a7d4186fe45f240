"""More are invited than wanted: a round does not wait for its slowest member, who stops at once and goes on with the next."""

from __future__ import annotations

import time
from pathlib import Path

from common.terminal import exit_code_of
from coordinator.cli import app as operators_app
from tests.support.drafts import make_draft
from tests.support.federations import Federation

NAMES = ("bank", "clinic", "laboratory")
DEADLINE_SECONDS = 600


def test_a_round_is_sealed_without_its_slowest_member(tmp_path: Path) -> None:
    draft = make_draft(
        tmp_path / "draft",
        rounds=3,
        quorum=2,
        cohort={"size": 2, "over_selection": 0.5},
        deadline_seconds=DEADLINE_SECONDS,
    )
    with Federation(tmp_path / "federation", NAMES, lease_seconds=DEADLINE_SECONDS, min_quorum=2) as federation:
        federation.hold("clinic")  # its training waits
        federation.start_participants()
        started = time.monotonic()
        run = federation.start_run(draft)
        federation.wait_for(lambda state: len(state.runs[run].committed()) >= 2, "two rounds without the slow one")
        federation.release("clinic")
        ended = federation.wait_until_ended(run)
        assert time.monotonic() - started < DEADLINE_SECONDS / 4
        code = exit_code_of(operators_app, ["verify", run, "--home", str(federation.coordinator_home)])
        assert code == 0
    for record in ended.committed()[:2]:
        assert record.closed is not None
        assert record.closed.reason == "enough-contributed"
        assert record.opened.cohort == NAMES
        assert [entry.institution for entry in record.closed.inputs] == ["bank", "laboratory"]
    last = ended.rounds[-1]
    assert last.opened.task == "evaluate"
    assert len(last.contributions) == 2
