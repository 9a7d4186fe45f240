"""Nobody waits for the slow: its delta goes into the round that is open when it is done, over real connections."""

from __future__ import annotations

from pathlib import Path

from common.ledger.staleness import weights
from common.terminal import exit_code_of
from coordinator.cli import app as operators_app
from participant.cli import app as participants_app
from tests.independent.verify_bundle import Verdict
from tests.support.drafts import make_draft
from tests.support.federations import Federation

NAMES = ("bank", "clinic", "laboratory")


def test_a_slow_members_delta_is_taken_late_and_everybody_verifies_the_run(tmp_path: Path) -> None:
    draft = make_draft(
        tmp_path / "draft",
        rounds=12,
        quorum=2,
        mode={"type": "buffered", "buffer": 2, "max_staleness": 10},
        codec={"type": "int8"},
        deadline_seconds=600,
    )
    with Federation(tmp_path / "federation", NAMES, lease_seconds=600, min_quorum=2) as federation:
        federation.hold("clinic")
        federation.hold("bank")  # round 1 cannot close before the slow one has begun it
        federation.start_participants()
        run = federation.start_run(draft)
        federation.wait_until_holding("clinic", run)
        (federation.data("bank") / "seconds").write_text("1")  # ten rounds last longer than a busy machine looks away
        federation.release("bank")
        federation.wait_for(lambda state: len(state.runs[run].committed()) >= 2, "two rounds without the slow one")
        federation.hold("bank")  # and the run cannot end before it delivers
        federation.release("clinic")
        federation.wait_for(
            lambda state: any("clinic" in record.contributions for record in state.runs[run].committed()),
            "a round with the slow one",
        )
        (federation.data("bank") / "seconds").unlink()
        federation.release("bank")
        ended = federation.wait_until_ended(run)
        assert exit_code_of(operators_app, ["verify", run, "--home", str(federation.coordinator_home)]) == 0
        for name in NAMES:
            code = exit_code_of(participants_app, ["verify", run, "--home", str(federation.home(name))])
            assert code in {0, 4}, name  # others' deltas are not shown to it: gaps, and no fault
        bundle = tmp_path / "run.evidence"
        arguments = ["evidence", "export", str(bundle), "--with-deltas", "--home", str(federation.coordinator_home)]
        assert exit_code_of(operators_app, arguments) == 0
        fingerprint = federation.entries()[0].statement.digest
    verdict = Verdict(bundle.read_bytes(), fingerprint, {})
    failed, gaps = verdict.sections
    assert (failed, gaps & {"rounds", "lineage", "history"}) == (set(), set())
    assert ended.ended is not None
    assert ended.ended.reason == "rounds-done"
    trained = ended.committed()
    assert len(trained) == 12
    assert {record.closed.reason for record in trained if record.closed} == {"enough-contributed"}
    taken = {record.number: record.contributions["clinic"] for record in trained if "clinic" in record.contributions}
    first = min(taken)
    assert first > 2
    assert taken[first].contribution.round == 1  # the very delta that it began with
    late = next(record for record in trained if record.number == first)
    num_tokens = {entry.institution: entry.num_tokens for entry in late.closed.inputs} if late.closed else {}
    assert weights(ended, late)["clinic"] < num_tokens["clinic"]
    assert ended.rounds[-1].contributions.keys() == set(NAMES)
