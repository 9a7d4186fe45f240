"""A backup from before is restored on each side, in the middle of a run: it ends with the model of an undisturbed one.

The null worker's deltas are a function of text, round and base model, so all runs of one federation end with one model.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from common.ledger.state import LedgerState
from common.statements.envelope import parse
from common.statements.kinds import Contribution, signing_institution
from common.terminal import exit_code_of
from coordinator.cli import app as coordinator
from participant.cli import app as participant
from tests.e2e.test_restart import assert_every_slot_was_signed_once, finished, start
from tests.support.federations import NAMES, Federation, until


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    with Federation(tmp_path / "federation") as running:
        running.start_participants()
        yield running


def contributed(federation: Federation, run: str, number: int, *names: str) -> None:
    """Wait until these, and nobody else, are in that round."""

    def there(state: LedgerState) -> bool:
        rounds = state.runs[run].rounds if run in state.runs else ()
        return len(rounds) == number and set(rounds[-1].contributions) == set(names)

    federation.wait_for(there, f"{' and '.join(names)} contributed to round {number}")


def ran(app: object, *words: object) -> None:
    assert exit_code_of(app, [str(word) for word in words]) == 0  # type: ignore[arg-type]


def test_a_backup_from_before_is_restored_on_each_side_and_the_run_ends_with_the_undisturbed_model(
    federation: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    undisturbed = finished(federation, start(federation, "undisturbed-01")).model
    federation.hold("bank")
    run = start(federation, "restored-01")
    contributed(federation, run, 1, "clinic", "laboratory")
    clinic, ours = federation.home("clinic"), federation.coordinator_home
    ran(coordinator, "backup", tmp_path / "coordinator.tar", "--home", ours)
    ran(participant, "backup", tmp_path / "clinic.tar", "--home", clinic)
    federation.release("bank")
    federation.wait_until_open(run, 2)
    federation.hold("bank")
    contributed(federation, run, 2, "clinic", "laboratory")

    federation.kill_coordinator()
    size = len(federation.entries())
    shutil.rmtree(ours)
    files = []
    for name in NAMES:
        files += ["--from", tmp_path / f"{name}.evidence"]
        ran(participant, "evidence", "export", files[-1], "--with-deltas", "--home", federation.home(name))
    ran(coordinator, "restore", tmp_path / "coordinator.tar", "--home", ours)
    capsys.readouterr()
    ran(coordinator, "recover", *files, "--home", ours, "--format", "json")
    found = json.loads(capsys.readouterr().out)
    assert found["lacking"] == []
    assert found["before"] < found["after"] <= size, (
        "what was appended in the last moment nobody may have been told yet"
    )
    federation.forget_ledger()
    federation.start_coordinator()
    contributed(federation, run, 2, "clinic", "laboratory")

    federation.kill_participant("clinic")
    shutil.rmtree(clinic)
    ran(participant, "restore", tmp_path / "clinic.tar", "--home", clinic)
    federation.start_participant("clinic")
    until(lambda: (restored(clinic) or {}).get("settled"), "the restored participant caught up")
    assert restored(clinic)["settled"]["taken_over"] == 1, "what it contributed to round 2"
    federation.release("bank")

    assert finished(federation, run).model == undisturbed
    assert_every_slot_was_signed_once(federation)


def test_a_restored_coordinator_takes_back_what_institutions_saw_and_the_run_goes_on_by_itself(
    federation: Federation, tmp_path: Path
) -> None:
    """Nobody does anything but restore and start; the institutions' daemons just run."""
    undisturbed = finished(federation, start(federation, "undisturbed-01")).model
    federation.hold("bank")
    run = start(federation, "restored-01")
    contributed(federation, run, 1, "clinic", "laboratory")
    ours = federation.coordinator_home
    ran(coordinator, "backup", tmp_path / "coordinator.tar", "--home", ours)
    federation.release("bank")
    federation.wait_until_open(run, 2)
    federation.hold("bank")
    contributed(federation, run, 2, "clinic", "laboratory")
    until(lambda: all(knows(federation, name, run, 2) for name in ("clinic", "laboratory")), "they saw each other's")
    federation.kill_coordinator()
    shutil.rmtree(ours)
    ran(coordinator, "restore", tmp_path / "coordinator.tar", "--home", ours)
    federation.forget_ledger()
    federation.start_coordinator()
    federation.kill_participant("laboratory")
    contributed(federation, run, 2, "clinic", "laboratory")
    federation.start_participant("laboratory")
    federation.release("bank")

    assert finished(federation, run).model == undisturbed
    assert_every_slot_was_signed_once(federation)
    note = json.loads((ours / "restored.json").read_bytes())
    assert note["settled"]["institutions"] == ["bank", "clinic", "laboratory"]


def test_what_nobody_holds_is_given_up_by_the_operator_and_by_each_institution_for_itself(
    federation: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = finished(federation, start(federation, "kept-01"))
    ours = federation.coordinator_home
    ran(coordinator, "backup", tmp_path / "coordinator.tar", "--home", ours)
    then = len(federation.entries())
    finished(federation, start(federation, "given-up-01"))
    federation.kill_coordinator()
    for name in NAMES:
        federation.kill_participant(name)
    head = (ours / "log.head").read_bytes()
    shutil.rmtree(ours)
    ran(coordinator, "restore", tmp_path / "coordinator.tar", "--home", ours)
    (ours / "log.head").write_bytes(head)  # all that is left of the other disk
    ran(coordinator, "recover", "--new-lineage", "--home", ours)
    federation.forget_ledger()
    federation.start_coordinator()
    assert len(federation.entries()) == then + 1

    for name in NAMES:  # each stops, whatever it is asked, until it has decided
        home = federation.home(name)
        daemon = federation.start_participant(name)
        until(lambda daemon=daemon: daemon.exit_code is not None, f"{name} stops")
        assert daemon.exit_code == 3
        federation.kill_participant(name)
        capsys.readouterr()
        assert exit_code_of(participant, ["lineage", "show", "--format", "json", "--home", str(home)]) == 4
        (offered,) = json.loads(capsys.readouterr().out)["lineages"]
        assert offered["begins_at"] == then
        ran(participant, "lineage", "accept", offered["digest"][:16], "--yes", "--home", home)
        federation.start_participant(name)
    run = start(federation, "again-01")
    assert finished(federation, run).model == first.model
    assert "given-up-01" not in federation.state().runs
    for name in NAMES:
        assert_all_that_was_signed_is_known(federation, name)
    assert exit_code_of(coordinator, ["verify", "--home", str(ours)]) == 4
    assert "gave up" in capsys.readouterr().out


def assert_all_that_was_signed_is_known(federation: Federation, name: str) -> None:
    """What an institution signed stands in the ledger or in what was given up of it; a slot once in both together."""
    with closing(sqlite3.connect(federation.home(name) / "journal.sqlite")) as connection:
        signed = {digest for (digest,) in connection.execute("SELECT digest FROM signed")}
        given_up = [parse(row[0]) for row in connection.execute("SELECT envelope FROM given_up")]
    statements = [*given_up, *(entry.statement for entry in federation.entries())]
    own = [each for each in statements if signing_institution(each.predicate) == name]
    assert {each.digest for each in own} == signed
    assert len({(each.kind, each.parent) for each in own}) == len(own)
    assert any(each.digest in signed for each in given_up)


def knows(federation: Federation, name: str, run: str, number: int) -> bool:
    """Whether this institution's own copy of the ledger holds both contributions to that round."""
    path = federation.home(name) / "journal.sqlite"
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        envelopes = [row[0] for row in connection.execute("SELECT envelope FROM ledger ORDER BY position")]
    said = [parse(envelope).predicate for envelope in envelopes]
    return sum(isinstance(each, Contribution) and (each.run, each.round) == (run, number) for each in said) == 2


def restored(home: Path) -> dict[str, object]:
    status = home / "status.json"
    found: dict[str, object] = json.loads(status.read_bytes()).get("restored", {}) if status.exists() else {}
    return found
