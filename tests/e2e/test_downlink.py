"""Models and deltas travel as int8: the coordinator's very bits at everybody, whoever is killed meanwhile."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from common.blobs.reference import BlobRef
from common.codecs import CODECS
from common.ledger.state import RunRecord
from common.terminal import exit_code_of
from coordinator.cli import app as operators_app
from coordinator.rounds.ports import Step
from llmasos.simulation.deployment import edit_line
from llmasos.simulation.processes import Child
from participant.config import HomeLayout
from tests.support.drafts import Draft, make_draft
from tests.support.federations import NAMES, Federation, until

SHAPES = {"embedding": (2300, 1000), "bias": (777,)}
"""Three chunks."""
ROUNDS = 4
CRASHING = str(Path(__file__).resolve().parents[1] / "support" / "crashing_participant.py")


def draft(folder: Path, run: str, **plan: Any) -> Draft:
    fields = {"rounds": ROUNDS, "codec": {"type": "int8"}, "downlink": {"type": "int8"}} | plan
    return make_draft(folder / run, run=run, shapes=SHAPES, **fields)


def bytes_down(federation: Federation) -> int:
    """Bytes of blobs that the coordinator gave out since it was started, by its own metrics."""
    found = re.search(r"metrics ready.*?(127\.0\.0\.1:\d+)", federation.log("coordinator").read_text())
    assert found is not None
    with urllib.request.urlopen(f"http://{found[1]}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    value = re.search(
        r'^llmasos_coordinator_blob_bytes_total\{direction="to-institutions"\} (\S+)$', text, flags=re.MULTILINE
    )
    assert value is not None, text
    return int(float(value[1]))


def said(federation: Federation, name: str, event: str) -> int:
    """How often a daemon logged that."""
    return federation.log(name).read_text().count(event)


def base_here(federation: Federation, name: str, ref: BlobRef) -> bytes | None:
    """A model as an institution holds it."""
    path = HomeLayout(federation.home(name)).blobs / ref.algorithm / ref.root[:2] / f"{ref.root}.blob"
    return path.read_bytes() if path.exists() else None


def verified(federation: Federation, run: str, output: pytest.CaptureFixture[str]) -> tuple[int, str]:
    output.readouterr()
    code = exit_code_of(operators_app, ["verify", run, "--home", str(federation.coordinator_home), "--format", "json"])
    report: dict[str, Any] = json.loads(output.readouterr().out)
    return code, str(next(check["examined"] for check in report["checks"] if check["name"] == "rounds"))


def outcomes(record: RunRecord) -> list[str]:
    return [each.closed.outcome for each in record.rounds if each.closed]


def test_after_the_first_round_a_quarter_of_the_bytes_comes_down_and_every_bit_is_the_coordinators(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Federation(tmp_path / "federation") as federation:
        federation.kill_coordinator()
        edit_line(
            federation.coordinator_home / "coordinator.yaml", r"metrics: \{\}", 'metrics: {listen: "127.0.0.1:0"}'
        )
        federation.start_coordinator()
        federation.start_participants()
        made = draft(tmp_path, "tiny-000001")
        for name in NAMES:
            federation.hold(name)
        run = federation.start_run(made)
        for number in range(1, ROUNDS + 1):
            record = federation.wait_until_open(run, number)
            model = record.model
            for name in NAMES:
                until(lambda name=name, model=model: base_here(federation, name, model), f"{name} has its base")  # type: ignore[misc]
                assert base_here(federation, name, model) == federation.blob(model)
                federation.wait_until_holding(name, run)
            if number < ROUNDS:
                let_through(federation, run, number)
        federation.release(*NAMES)
        ended = federation.wait_until_ended(run)
        assert outcomes(ended) == ["committed"] * (ROUNDS + 1)
        applied = CODECS["int8"].encoded_size(ended.statement.manifest)
        model_bytes, tokenizer = ended.model.size, ended.statement.initial.tokenizer.size
        assert applied < 0.26 * model_bytes
        assert bytes_down(federation) == len(NAMES) * (tokenizer + model_bytes + ROUNDS * applied)
        assert [said(federation, name, "model brought forward") for name in NAMES] == [ROUNDS] * len(NAMES)
        assert verified(federation, run, capsys) == (
            0,
            f"{ROUNDS} of {ROUNDS} recomputed here, equal in every bit",
        )


def let_through(federation: Federation, run: str, number: int) -> None:
    """One round: everybody trains, and waits again in the next one."""
    federation.release(*NAMES)
    federation.wait_for(
        lambda state: not state.runs[run].rounds[number - 1].missing, f"all have contributed to round {number}"
    )
    for name in NAMES:
        federation.hold(name)


def test_kills_on_either_side_change_no_bit(tmp_path: Path) -> None:
    with Federation(tmp_path / "federation") as federation:
        federation.start_participants()
        undisturbed = federation.wait_until_ended(federation.start_run(draft(tmp_path, "tiny-000001")))

        # The clinic dies when it has written one of three chunks of its second base model.
        federation.kill_participant("clinic")
        doomed = start_crashing(federation, "clinic", 1)
        run = federation.start_run(draft(tmp_path, "tiny-000002"))
        until(lambda: doomed.exit_code is not None, "the clinic dies")
        assert doomed.exit_code == -signal.SIGKILL
        assert len(list((HomeLayout(federation.home("clinic")).blobs / "partial").rglob("*.part"))) == 1
        federation.kill_participant("clinic")

        # The coordinator dies when the three blobs of round 3 are written, and the round is not closed.
        federation.kill_coordinator()
        dying = federation.start_coordinator(crash_at=(Step.MODEL_WRITTEN, 3))
        federation.start_participant("clinic")
        until(lambda: dying.exit_code is not None, "the coordinator dies")
        federation.kill_coordinator()
        federation.start_coordinator()
        second = federation.wait_until_ended(run)
        made = [[each.closed.outputs for each in record.rounds if each.closed] for record in (undisturbed, second)]
        assert made[0] == made[1]
        assert len(made[0][0].blobs) == 3
        assert not any(
            said(federation, name, event)
            for name in NAMES
            for event in ("model differs here", "applied delta not used")
        )


def test_missed_rounds_are_made_good_and_who_holds_nothing_fetches_the_model(tmp_path: Path) -> None:
    with Federation(tmp_path / "federation", lease_seconds=3.0, min_quorum=2) as federation:
        federation.start_participants()
        federation.hold("bank")
        run = federation.start_run(draft(tmp_path, "tiny-000001", quorum=2, rounds=5))
        federation.wait_until_holding("bank", run)
        federation.kill_participant("bank")
        waiting = federation.wait_until_open(run, 3)  # two rounds went on without it, once its lease had lapsed
        assert "bank" not in {*waiting.rounds[0].contributions, *waiting.rounds[1].contributions}
        for name in ("clinic", "laboratory"):
            federation.hold(name)
        federation.start_participant("bank")
        until(lambda: said(federation, "bank", "model brought forward"), "the bank's base is brought forward")
        assert re.search(r"model brought forward.*deltas=([23])\b", federation.log("bank").read_text())

        federation.kill_participant("bank")
        shutil.rmtree(HomeLayout(federation.home("bank")).blobs)
        federation.start_participant("bank")
        model = waiting.model
        until(lambda: base_here(federation, "bank", model), "the bank has the model of the open round")
        assert base_here(federation, "bank", model) == federation.blob(model)
        federation.release(*NAMES)
        assert outcomes(federation.wait_until_ended(run)) == ["committed"] * 6


def start_crashing(federation: Federation, name: str, chunk: int) -> Child:
    """That institution's daemon, which dies when it is to write that chunk of a base model."""
    argv = (sys.executable, "-P", CRASHING, str(chunk), "start", "--home", str(federation.home(name)))
    child = federation.processes.start(name, argv, log=federation.log(name), lifeline=True)
    federation.participants[name] = child
    return child
