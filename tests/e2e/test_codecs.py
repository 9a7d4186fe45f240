"""A run whose deltas travel encoded: fewer bytes, every model recomputed to the bit, and no kill changes one."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from common.ledger.state import LedgerState
from common.tensors import delta_size
from common.terminal import exit_code_of
from coordinator.cli import app as operators_app
from participant.config import HomeLayout
from participant.memory.journal import Journal
from tests.support.drafts import Draft, make_draft
from tests.support.federations import NAMES, Federation, until

SHAPES = {"embedding": (1100, 1000), "bias": (777,)}
"""More than a chunk, as float32 and as int8."""
CODECS = {
    "int8": ({"type": "int8"}, 0.25, 0.26),
    "topk": ({"type": "topk", "fraction": "0.02"}, 0.025, 0.027),
}
"""A plan's section, and its deltas' bytes by those of float32: more than, less than."""
ROUNDS = 2


def draft(folder: Path, run: str, codec: dict[str, str]) -> Draft:
    return make_draft(folder / run, run=run, shapes=SHAPES, rounds=ROUNDS, codec=codec)


def deltas_sent(federation: Federation, name: str) -> list[int]:
    """Bytes of each delta that left, by the institution's own books."""
    with closing(Journal(HomeLayout(federation.home(name)).journal)) as journal:
        return [entry.bytes for entry in journal.egress() if entry.kind == "delta"]


def residuals(federation: Federation, name: str) -> dict[str, int]:
    """Sizes of the residuals that an institution keeps."""
    folder = HomeLayout(federation.home(name)).residuals
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*.f32")}


def has_contributed(state: LedgerState, run: str, name: str) -> bool:
    record = state.runs.get(run)
    return record is not None and record.current is not None and name in record.current.contributions


def verified(federation: Federation, run: str, output: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The coordinator's `verify`: its exit code, and what it says of rounds."""
    output.readouterr()
    code = exit_code_of(operators_app, ["verify", run, "--home", str(federation.coordinator_home), "--format", "json"])
    report: dict[str, Any] = json.loads(output.readouterr().out)
    return code, str(next(check["examined"] for check in report["checks"] if check["name"] == "rounds"))


@pytest.mark.parametrize("name", CODECS)
def test_deltas_take_the_codecs_share_of_the_bytes_and_a_kill_changes_no_bit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    codec, least, most = CODECS[name]
    with Federation(tmp_path / "federation") as federation:
        federation.start_participants()
        undisturbed = draft(tmp_path, "tiny-000001", codec)
        first = federation.wait_until_ended(federation.start_run(undisturbed))
        assert first.statement.plan.codec.model_dump(mode="json") == codec
        assert [record.closed.outcome for record in first.rounds if record.closed] == ["committed"] * (ROUNDS + 1)
        plain = delta_size(first.statement.manifest)
        for institution in NAMES:
            sizes = deltas_sent(federation, institution)
            assert len(sizes) == ROUNDS
            assert all(least * plain < size < most * plain for size in sizes), (sizes, plain)

        # Killed in round 2, it goes on from what round 1 left: the model is the undisturbed run's.
        federation.hold("bank")
        run = federation.start_run(draft(tmp_path, "tiny-000002", codec))
        federation.wait_for(lambda state: has_contributed(state, run, "clinic"), "the clinic's delta of round 1")
        federation.hold("clinic")
        federation.release("bank")
        federation.wait_until_open(run, 2)
        federation.wait_until_holding("clinic", run)
        assert residuals(federation, "clinic") == {f"{run}/1.f32": 4 * (1100 * 1000 + 777)}
        federation.kill_participant("clinic")
        federation.start_participant("clinic")
        federation.release("clinic")
        second = federation.wait_until_ended(run)
        assert second.model == first.model
        assert [each.contribution.deviations for each in second.rounds[1].contributions.values()] == [()] * len(NAMES)

        until(lambda: not any(residuals(federation, each) for each in NAMES), "no run goes on: no residual is left")
        for each in (undisturbed.statement.run, run):
            assert verified(federation, each, capsys) == (
                0,
                f"{ROUNDS} of {ROUNDS} recomputed here, equal in every bit",
            )
