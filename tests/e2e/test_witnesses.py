"""Witnesses as real processes: no work without a majority, cosignatures in everybody's hands, and a witness from outside."""

from __future__ import annotations

import json
import subprocess
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

from common.clock import SystemClock
from common.identity.invitation import open_genesis, parse_invitation
from common.ledger.heads import log_key
from common.ledger.notes import parse_note, read_checkpoint
from common.ledger.state import LedgerState
from common.ledger.witnesses import cosigners, majority, witnesses_of
from llmasos.simulation.deployment import module_command
from participant.config import HomeLayout
from participant.joining import Joining, join
from participant.memory.journal import Journal
from participant.status import read_status
from tests.support.federations import NAMES, PARTICIPANT, Federation, make_draft, until

SILENT = ("silent-a", "silent-b", "silent-c")
"""Witnesses that never run: with them four of six are needed, and three are there."""
RUN = "tiny-000001"


def test_no_round_is_worked_on_until_a_majority_cosigned_it_and_then_everybody_holds_the_proof(tmp_path: Path) -> None:
    with Federation(tmp_path / "federation") as federation:
        for name in SILENT:
            _join_as_witness(federation, name)
        federation.start_participants()
        federation.start_run(make_draft(tmp_path / "draft", run=RUN, rounds=1))
        record = federation.wait_until_open(RUN, 1).rounds[0]
        for name in NAMES:
            until(lambda name=name: _waits(federation, name), f"{name} waits for witnesses")  # type: ignore[misc]
        (held,) = _status(federation, "clinic")["rounds_held"]
        assert (held["entry"], held["witnesses"], held["witnesses_needed"]) == (record.place.index, 6, 4)
        assert federation.state().runs[RUN].rounds[0].contributions == {}
        assert not (federation.home("clinic") / "jobs" / RUN / "base.safetensors").exists()
        with federation.operator() as session:
            session.revoke("silent-a", "never-there")  # five are left, and three of them are there
        federation.wait_until_ended(RUN)
        federation.wait_for(
            lambda state: _covers_all_rounds(federation, state), "the last opening is shown to be cosigned"
        )
        _contributions_name_their_checkpoint(federation)
        _commands_agree(federation, tmp_path)


def _join_as_witness(federation: Federation, name: str) -> None:
    with federation.operator() as session:
        invitation = parse_invitation(session.invite(name, expires_hours=1, roles=("witness",)))
    federation.data(name).mkdir(parents=True)
    (federation.data(name) / "text.txt").write_text("A witness needs no text.\n")
    join(federation.home(name), invitation, Joining(federation.data(name)), SystemClock())


def _status(federation: Federation, name: str) -> dict[str, Any]:
    return read_status(HomeLayout(federation.home(name)).status)


def _waits(federation: Federation, name: str) -> bool:
    return bool(_status(federation, name)["activity"] == "waiting for witnesses")


def _covers_all_rounds(federation: Federation, state: LedgerState) -> bool:
    """Whether clinic holds a note in which a majority cosigned the last round's opening."""
    with closing(Journal(HomeLayout(federation.home("clinic")).journal)) as journal:
        notes = [parse_note(note) for note in journal.checkpoints()]
    witnesses, opening = witnesses_of(state), state.runs[RUN].rounds[-1].place.index
    return any(
        read_checkpoint(note, log_key(state.genesis)).size > opening
        and len(cosigners(note, witnesses)) >= majority(len(witnesses))
        for note in notes
    )


def _contributions_name_their_checkpoint(federation: Federation) -> None:
    for record in federation.state().runs[RUN].rounds:
        for name in NAMES:
            contribution = record.contributions[name].contribution
            assert contribution.checkpoint is not None
            head = read_checkpoint(parse_note(contribution.checkpoint.encode()), log_key(federation.state().genesis))
            assert record.place.index < head.size <= record.contributions[name].place.index


def _commands_agree(federation: Federation, folder: Path) -> None:
    """What a person types afterwards: a witness from outside, and members who compare."""
    genesis = HomeLayout(federation.home("clinic")).genesis
    fingerprint = open_genesis(genesis.read_bytes())[0].digest
    address = str(federation.addresses()["enrolment"])
    outside = [
        *module_command("llmasos.cli"),
        "witness",
        address,
        "--genesis",
        str(genesis),
        "--home",
        str(folder / "witness"),
    ]
    seen = _json([*outside, "--once", "--fingerprint", fingerprint, "--format", "json"])
    assert seen["size"] == federation.state().size
    clinic = ["--home", str(federation.home("clinic")), "--format", "json"]
    compared = _json([*PARTICIPANT, "checkpoint", "compare", str(folder / "witness" / "checkpoint"), *clinic])
    assert (compared["result"], len(compared["others"])) == ("same", 1)
    asked = [*PARTICIPANT, "checkpoint", "compare", *clinic]
    until(lambda: sorted(_json(asked)["cosigned_by"]) == sorted(NAMES), "all cosigned the end")
    shown = _json([*PARTICIPANT, "checkpoint", "show", *clinic])
    assert shown["size"] == federation.state().size
    tries = count()

    def all_receipts() -> bool:
        out = str(folder / f"receipts-{next(tries)}")
        receipts = _json([*PARTICIPANT, "checkpoint", "receipts", "--out", out, *clinic])
        return receipts["receipts"] == 3 and len(receipts["cosigned_by"]) >= 3

    until(all_receipts, "with the next poll, cosignatures on the end have come to clinic")


def _json(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
